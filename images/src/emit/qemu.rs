// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command that runs the image in QEMU, for boards that QEMU emulates.

use std::path::Path;
use std::process::Command;

use serde::Serialize;
use toml_span::Spanned;

use crate::board::{Board, Qemu};
use crate::error::{Error, read};
use crate::modules::Module;
use crate::plan::Plan;

/// A command, the content of `qemu.json`.
///
/// Files have absolute paths. Sockets have relative ones: QEMU is started in a directory of its own, in which
/// it makes `qmp.sock` and connects to `NAME.sock` for each piece of hardware that a vhost-user daemon on the
/// host simulates.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct QemuCommand {
    /// The program.
    pub program: String,
    /// The arguments.
    pub args: Vec<String>,
}

/// Xen's console is on standard input and output.
const CONSOLES: [&str; 9] = [
    "-display",
    "none",
    "-monitor",
    "none",
    "-serial",
    "stdio",
    "-qmp",
    "unix:qmp.sock,server=on,wait=off",
    "-no-reboot",
];

/// Makes the command, or none if QEMU does not emulate the board.
pub fn qemu(plan: &Plan<'_>, xen: &Path, host_dtb: &Path, modules: &[Module]) -> Option<QemuCommand> {
    let qemu = &plan.board.qemu.as_ref()?.value;
    let mut args = machine(plan.board, qemu);
    // Vhost-user daemons map the machine's memory: it must be a file.
    let size = plan.board.machine.ram_size() >> 20;
    args.extend(["-object".into(), format!("memory-backend-memfd,id=memory,size={size}M,share=on")]);
    args.extend(["-machine", "memory-backend=memory"].map(Into::into));
    args.extend(CONSOLES.map(Into::into));
    for hardware in &plan.hardware {
        let Some(device) = &hardware.qemu else { continue };
        let name = &hardware.name.value;
        args.extend(["-chardev".into(), format!("socket,id={name},path={name}.sock")]);
        args.extend(["-device".into(), format!("{},chardev={name},bus={}", device.vhost_user, device.bus)]);
    }
    args.extend(["-kernel".into(), text(xen), "-dtb".into(), text(host_dtb)]);
    for module in modules {
        // A comma would end the option's value.
        let (file, address) = (text(&module.file).replace(',', ",,"), module.region.base);
        args.extend(["-device".into(), format!("loader,file={file},addr={address:#x},force-raw=on")]);
    }
    Some(QemuCommand { program: qemu.program.clone(), args })
}

/// The device tree that QEMU makes for the board.
///
/// # Errors
///
/// QEMU does not emulate the board, cannot be run, or fails.
pub fn dump_device_tree(board: &Board) -> Result<Vec<u8>, Error> {
    let Spanned { value: qemu, .. } = board.qemu.as_ref().ok_or(Error::NotEmulated)?;
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("host.dtb");
    let mut args = machine(board, qemu);
    args.extend(["-machine".into(), format!("dumpdtb={}", text(&path)), "-display".into(), "none".into()]);
    let output = Command::new(&qemu.program).args(args).output();
    let output = output.map_err(|error| Error::Start(qemu.program.clone(), error))?;
    Error::check_program(&qemu.program, &output)?;
    read(&path)
}

/// The arguments that configure the machine as its device tree describes it.
fn machine(board: &Board, qemu: &Qemu) -> Vec<String> {
    let mut args = vec!["-M".to_owned(), qemu.machine.clone()];
    args.extend(["-smp".to_owned(), board.machine.cpus.value.to_string()]);
    args.extend(["-m".to_owned(), format!("{}M", board.machine.ram_size() >> 20)]);
    args.extend(qemu.args.iter().cloned());
    args
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
