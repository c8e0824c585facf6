// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why an image is not built.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

use dtoolkit::error::{FdtParseError, ModelError};

use crate::load::Refusal;

/// The reasons.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest or the board file is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A file cannot be written, or a directory cannot be made.
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    /// A file or directory cannot be made, moved or looked at beside the output.
    #[error("cannot prepare the image")]
    Prepare(#[from] io::Error),
    /// The board's device tree is invalid.
    #[error("the board's device tree cannot be read")]
    HostDeviceTree(#[from] FdtParseError),
    /// A node or a property has an invalid name, which should have been refused.
    #[error("a device tree cannot be made")]
    DeviceTree(#[from] ModelError),
    /// The manifest cannot be planned, and should have been refused.
    #[error("the manifest was accepted but cannot be planned")]
    NoPlan,
    /// Files that every image needs are missing.
    #[error("{} lacks files that every image needs: {names}", .directory.display())]
    Missing {
        /// The directory of input files.
        directory: PathBuf,
        /// The files.
        names: String,
    },
    /// The files are larger than the board's room for them.
    #[error(
        "no room for {}: the board has {mib} MiB for kernels, ramdisks, device trees and policy",
        .file.display()
    )]
    NoRoom {
        /// The first file without a place.
        file: PathBuf,
        /// The room in MiB.
        mib: u64,
    },
    /// A file is too large for a ramdisk.
    #[error("cannot add /{0} to a ramdisk")]
    Ramdisk(String, #[source] io::Error),
    /// The output directory is not an image.
    #[error("{0} exists and is not an image: name another directory")]
    NotAnImage(PathBuf),
    /// QEMU has no such board, and `--host-dtb` is missing.
    #[error("QEMU does not emulate this board: give the board's device tree with `--host-dtb`")]
    NotEmulated,
    /// A program cannot be started.
    #[error("cannot run {0}: scripts/setup installs it")]
    Start(String, #[source] io::Error),
    /// A program failed.
    #[error("{program} failed:\n{output}")]
    Program {
        /// The program.
        program: String,
        /// What it wrote to standard error.
        output: String,
    },
    /// The shim's configuration cannot be serialised.
    #[error("the shim's configuration cannot be written")]
    Configuration(#[from] toml::ser::Error),
    /// QEMU's command cannot be serialised.
    #[error("qemu.json cannot be written")]
    Command(#[from] serde_json::Error),
}

impl Error {
    /// Fails if `program` failed.
    pub(crate) fn check_program(program: &str, output: &Output) -> Result<(), Self> {
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        Err(Self::Program { program: program.to_owned(), output: text })
    }
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Read(path.to_owned(), error))
}
