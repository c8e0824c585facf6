// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The programs that read an image.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use images::emit::shim::shim;
use images::plan::Plan;
use shim_config::backend::FD;
use shim_config::{Backend, Config, Program};

use crate::inputs::Inputs;

/// Warnings of dtc that do not hold for Linux's bindings: clocks and the grants' IOMMU have no registers, an
/// interrupt controller without an interrupt map needs no address cells, and a board's author may name a node
/// without its address.
const BY_BINDING: [&str; 3] = ["no-simple_bus_reg", "no-interrupt_provider", "no-unit_address_vs_reg"];

/// Warnings of dtc by a node's name alone: guests are nodes with any name.
const BY_NAME: [&str; 6] = [
    "no-i2c_bus_bridge",
    "no-i2c_bus_reg",
    "no-spi_bus_bridge",
    "no-spi_bus_reg",
    "no-chosen_node_is_root",
    "no-alias_paths",
];

/// A description of a program and its input, and the running program.
type Reader = (String, Child);

/// Starts all of them on the image in `output`.
pub(crate) fn accept(plan: &Plan<'_>, output: &Path, inputs: &Inputs) -> Result<(), String> {
    let config = Config::read(&output.join("shim.toml")).map_err(|error| error.to_string())?;
    if config != shim(plan) {
        return Err(format!("the shim reads another configuration than was written: {config:?}"));
    }
    // All at once: each spends most of its time on starting.
    let mut readers = Vec::new();
    for entry in std::fs::read_dir(output).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "dtb") {
            readers.push(device_tree_compiler(&path)?);
        }
    }
    for device in config.guest.iter().flat_map(|guest| &guest.device) {
        if let Backend::Program(Program { command, confine: None, .. }) = &device.backend {
            readers.push(backend(command, inputs)?);
        }
    }
    let verdicts: Vec<_> = readers.into_iter().map(verdict).collect();
    verdicts.into_iter().collect()
}

fn device_tree_compiler(dtb: &Path) -> Result<Reader, String> {
    let mut command = Command::new("dtc");
    command.args(["-I", "dtb", "-O", "dts", "-o", "/dev/null"]);
    let by_name: &[_] = if dtb.ends_with("host.dtb") { &BY_NAME } else { &[] };
    command.args(BY_BINDING.iter().chain(by_name).flat_map(|check| ["-W", check])).arg(dtb);
    start(format!("dtc, of {}", dtb.file_name().unwrap_or_default().display()), &mut command)
}

/// With `--print-capabilities` the backend parses its command line and opens nothing. It must be built from
/// the same sources as the builder.
fn backend(words: &[String], inputs: &Inputs) -> Result<Reader, String> {
    // The supervisor passes the socket.
    let arguments: Vec<_> = words.iter().skip(1).filter(|word| !word.contains(FD)).collect();
    let mut command = Command::new(&inputs.backend);
    command.args(&arguments).arg("--print-capabilities");
    start(format!("backend, of {arguments:?}"), &mut command)
}

fn start(what: String, command: &mut Command) -> Result<Reader, String> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("{what}: {error}"))?;
    Ok((what, child))
}

/// A program accepts its input if it succeeds without a word.
fn verdict((what, child): Reader) -> Result<(), String> {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.is_empty() {
        Ok(())
    } else {
        Err(format!("{what}: {}", said.trim_end()))
    }
}
