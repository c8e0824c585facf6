// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Our backends under a stock QEMU, without Xen: guests on aarch64 and x86-64, by virtio-mmio and PCI.
//!
//! ```text
//!   guest: Linux's drivers ── QEMU: vhost-user-{i2c,gpio}-{device,pci} ── backend --sim ── journal, control
//! ```
//!
//! `scripts/image frontends` makes kernels and ramdisks.

mod devices;
mod machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

use machine::{Board, Connection, Machine};

/// A machine of QEMU.
#[derive(Debug)]
struct Platform {
    name: &'static str,
    /// The program of QEMU, and the arguments that choose the machine.
    qemu: &'static [&'static str],
    /// The kernel and the ramdisk, below `target`.
    kernel: &'static str,
    ramdisk: &'static str,
    console: &'static str,
    /// What follows `vhost-user-i2c-` in the name of QEMU's device.
    transport: &'static str,
}

const PLATFORMS: &[Platform] = &[
    Platform {
        name: "aarch64-mmio",
        qemu: &["qemu-system-aarch64", "-cpu", "cortex-a57", "-M", "virt,memory-backend=memory"],
        kernel: "artefacts/Image",
        ramdisk: "frontends/aarch64.cpio.gz",
        console: "ttyAMA0",
        transport: "device",
    },
    Platform {
        name: "x86-64-mmio",
        qemu: &["qemu-system-x86_64", "-M", "microvm,accel=tcg,acpi=off,memory-backend=memory"],
        kernel: "artefacts/x86_64/bzImage",
        ramdisk: "frontends/x86_64.cpio.gz",
        console: "ttyS0",
        transport: "device",
    },
    Platform {
        name: "x86-64-pci",
        qemu: &["qemu-system-x86_64", "-M", "q35,accel=tcg,memory-backend=memory"],
        kernel: "artefacts/x86_64/bzImage",
        ramdisk: "frontends/x86_64.cpio.gz",
        console: "ttyS0",
        transport: "pci",
    },
];

/// A test of a platform.
type Test = fn(&Platform, &Path) -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("devices-work-and-qemu-is-restarted", qemu_is_restarted),
    ("daemons-are-replaced", daemons_are_replaced),
    ("migration-is-refused", migration_is_refused),
];

/// The daemons listen, and serve one QEMU after the other.
fn qemu_is_restarted(platform: &Platform, run: &Path) -> Result<()> {
    let mut board = Board::new(run, Connection::DaemonListens)?;
    for round in ["the first QEMU", "the second QEMU"] {
        let mut machine = Machine::start(platform, &mut board)?;
        devices::check_all(&mut machine, &board).context(round)?;
        machine.quit().context(round)?;
        devices::check_released(&board).context(round)?;
    }
    board.alive()
}

/// The guest continues without its devices. QEMU 10.0 ends when another daemon connects, since its
/// vhost-user-base.c does not initialise the device again ([`QEMU_FAULT`]). A QEMU without that fault must
/// serve the guest with the new daemons.
///
/// QEMU listens here, so that it accepts another daemon. With `reconnect-ms` it connects in the background,
/// and cannot create these devices, which do not wait for the connection.
fn daemons_are_replaced(platform: &Platform, run: &Path) -> Result<()> {
    let mut board = Board::new(run, Connection::QemuListens)?;
    let mut machine = Machine::start(platform, &mut board)?;
    devices::check_all(&mut machine, &board).context("the first daemons")?;
    board.kill();
    machine.check("echo alive", "alive").context("without daemons")?;
    if let Err(error) = board.replace(&mut machine) {
        ensure!(machine.log()?.contains(QEMU_FAULT), "{error:#}");
        eprintln!("QEMU has ended: {QEMU_FAULT}");
        return Ok(());
    }
    devices::check_requests(&mut machine, &board).context("the second daemons")?;
    machine.quit()
}

/// What QEMU 10.0 prints before it ends.
const QEMU_FAULT: &str = "vhost_dev_start: Assertion `hdev->vhost_ops' failed";

/// The state of the devices is in the daemons and in the hardware: QEMU refuses and tells which device it is.
fn migration_is_refused(platform: &Platform, run: &Path) -> Result<()> {
    let mut board = Board::new(run, Connection::DaemonListens)?;
    let mut machine = Machine::start(platform, &mut board)?;
    machine.wait_for_guest()?;
    let refused = machine.execute("migrate", &json!({ "uri": "exec:cat >/dev/null" }));
    let message = format!("{:#}", refused.err().context("QEMU migrates")?);
    ensure!(message.contains("non-migratable device"), "QEMU's message is {message:?}");
    let state = machine.execute("query-migrate", &json!({}))?;
    let reasons: Vec<_> =
        state["blocked-reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for device in ["vhost-user-i2c", "vhost-user-gpio"] {
        let named = reasons.iter().any(|reason| reason.contains(device) && reason.contains("non-migratable"));
        ensure!(named, "{device} is in none of {reasons:?}");
    }
    let lacks = reasons.iter().filter(|reason| reason.contains("VHOST_USER_PROTOCOL_F_LOG_SHMFD")).count();
    ensure!(lacks == 2, "the backends' reason is in {lacks} of {reasons:?}");
    devices::check_requests(&mut machine, &board).context("after the refusal")?;
    machine.quit()
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each boots a guest.
    arguments.test_threads = Some(1);
    let trial = |platform: &'static Platform, (name, test): (&'static str, Test)| {
        let name = format!("{name}-{}", platform.name);
        let run = target().join("e2e").join(&name);
        Trial::test(name, move || test(platform, &run).map_err(|error| Failed::from(format!("{error:#}"))))
    };
    let trials = PLATFORMS.iter().flat_map(|platform| TESTS.iter().map(move |test| trial(platform, *test)));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
