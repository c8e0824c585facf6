// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How to run the image in QEMU, for boards that QEMU emulates.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use toml_span::Spanned;

use crate::board::{Board, Qemu};
use crate::modules::Module;
use crate::plan::Plan;

/// A command: what `qemu.json` consists of.
///
/// Files are named by absolute paths. Sockets are relative: QEMU is to be started in a directory of its own, in which
/// it makes `qmp.sock` and finds a socket `NAME.sock` for each piece of the driver domain's hardware that a vhost-user
/// daemon on the host plays.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct QemuCommand {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
}

/// Makes the command, or none if QEMU does not know the board.
pub fn qemu(plan: &Plan<'_>, xen: &Path, host_dtb: &Path, modules: &[Module]) -> Option<QemuCommand> {
    let qemu = &plan.board.qemu.as_ref()?.value;
    let mut args = machine(plan.board, qemu);
    // A vhost-user daemon maps the machine's memory, so it must be a file.
    let size = plan.board.machine.ram_size() >> 20;
    args.extend(["-object".into(), format!("memory-backend-memfd,id=memory,size={size}M,share=on")]);
    args.extend(
        ["-machine", "memory-backend=memory", "-display", "none", "-monitor", "none"].map(Into::into),
    );
    args.extend(
        ["-serial", "stdio", "-qmp", "unix:qmp.sock,server=on,wait=off", "-no-reboot"].map(Into::into),
    );
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

/// The board's own device tree, as QEMU makes it.
///
/// # Errors
///
/// The board is not one of QEMU's, or QEMU did not do it.
pub fn dump_device_tree(board: &Board) -> anyhow::Result<Vec<u8>> {
    let Some(Spanned { value: qemu, .. }) = &board.qemu else {
        bail!("QEMU does not emulate this board: give the board's device tree with `--host-dtb`");
    };
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("host.dtb");
    let mut args = machine(board, qemu);
    args.extend(["-machine".into(), format!("dumpdtb={}", text(&path)), "-display".into(), "none".into()]);
    let output = Command::new(&qemu.program).args(args).output().with_context(|| {
        format!(
            "cannot run {}, which knows the board's device tree: install it (scripts/setup does)",
            qemu.program
        )
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} did not dump its device tree:\n{}", qemu.program, said.trim_end());
    std::fs::read(&path).context("QEMU wrote no device tree")
}

/// The arguments that make the machine what its device tree says.
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
