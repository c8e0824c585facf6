// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Shared by the end-to-end tests: images with changes to manifest and board.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::host::machine::Place;
use toml::{Table, Value};

/// Builds the image of `place` with changes to the manifest and to the board, in the folder `name` beside it.
pub(crate) fn rebuild(
    place: Place,
    name: &str,
    change: impl FnOnce(&mut Table, &mut Table) -> Result<()>,
) -> Result<Place> {
    let directory = place.image.with_file_name(name);
    fs::create_dir_all(&directory)?;
    let original = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../images/boards/qemu-virt.toml"));
    let [board, manifest] = ["board.toml", "manifest.toml"].map(|name| directory.join(name));
    let (mut manifest_values, mut board_values) = (read(&place.manifest)?, read(&original)?);
    manifest_values.insert("board".to_owned(), board.display().to_string().into());
    change(&mut manifest_values, &mut board_values)?;
    fs::write(&manifest, toml::to_string(&manifest_values)?)?;
    fs::write(&board, toml::to_string(&board_values)?)?;
    let image = directory.join("image");
    let mut builder = Command::new(&place.builder);
    builder.arg("build").arg(&manifest).arg("--files").arg(&place.files).arg("--output").arg(&image);
    let status = builder.status().with_context(|| place.builder.display().to_string())?;
    ensure!(status.success(), "{builder:?}: {status}");
    Ok(Place { manifest, image, ..place })
}

/// Returns whether the long run was requested (`XBA_LONG`).
pub(crate) fn is_long() -> bool {
    std::env::var_os("XBA_LONG").is_some()
}

/// Returns the table `name` of a table.
pub(crate) fn section<'table>(table: &'table mut Table, name: &str) -> Result<&'table mut Table> {
    let section = table.get_mut(name).and_then(Value::as_table_mut);
    section.with_context(|| format!("there is no [{name}]"))
}

fn read(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(toml::from_str(&text)?)
}
