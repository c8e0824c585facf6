// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices of one guest that daemons of other projects serve (scripts/e2e/devices.toml), on one machine that
//! boots once: each does what a user would do with it. `scripts/test e2e [NAME]` runs them.
//!
//! `XBA_LONG=1` also kills their daemons and binds the drivers again. vm-memory 0.12.0 then ends a daemon
//! that has a memory table already. Linux's GPIO driver waits without a limit if this loses its request, so
//! the normal run leaves that out.

mod confined;
mod daemon;
mod gpio;
mod i2c;
mod table;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Result;
use daemon::Daemon;
use e2e::host::machine::{Machine, Place};
use libtest_mimic::{Arguments, Failed, Trial};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A device and what is done with it. The texts are of the table in README.md.
struct Device {
    daemon: Daemon,
    /// What `use_it` does.
    used: &'static str,
    /// What a user does with the device.
    use_it: fn(&Machine) -> Result<()>,
    /// Binds the driver again, after the daemon has ended while the device was idle.
    recover: fn(&Machine) -> Result<()>,
    /// Faults and limits of the daemon.
    limits: &'static str,
}

/// What vhost-user-backend 0.10.0 does, which the daemons' lock files have. Version 0.10.1 reads the index.
const USED_INDEX: &str =
    "a daemon that continues with a ring writes its used entries at the start of the ring";

static DEVICES: [Device; 2] = [
    Device {
        daemon: i2c::DAEMON,
        used: "an EEPROM, while another guest uses the same bus by our daemon",
        use_it: i2c::eeprom_is_written,
        recover: i2c::bind_again,
        limits: USED_INDEX,
    },
    Device {
        daemon: gpio::DAEMON,
        used: "an edge of the power button",
        use_it: gpio::button_is_seen,
        recover: gpio::bind_again,
        limits: "the same; a second memory table ends it; a guest gets a whole chip",
    },
];

/// The machine, booted when the first test needs it, or why it did not boot.
type Shared = Mutex<OnceLock<Result<Machine, String>>>;

fn boot() -> Result<Machine> {
    let machine = Machine::start(&Place::devices("devices"))?;
    machine.wait_for_guests()?;
    Ok(machine)
}

fn trial(shared: &Shared, perform: impl FnOnce(&Machine) -> Result<()>) -> Result<(), Failed> {
    let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = shared.get_or_init(|| boot().map_err(|error| format!("{error:#}")));
    let machine = machine.as_ref().map_err(Failed::from)?;
    let done = perform(machine);
    machine.split_log()?;
    done.map_err(|error| Failed::from(format!("{error:#}\n{}", machine.post_mortem())))
}

/// Kills the daemon of an idle device, and uses the device again.
fn survive(machine: &Machine, device: &Device) -> Result<()> {
    device.daemon.kill(machine)?;
    (device.recover)(machine)?;
    (device.use_it)(machine)
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one machine.
    arguments.test_threads = Some(1);
    let shared = Arc::new(Shared::default());
    let is_long = std::env::var_os("XBA_LONG").is_some();
    let trials = DEVICES.iter().flat_map(|device| {
        let [used, powerless, bounded, survived] = std::array::from_fn(|_| Arc::clone(&shared));
        [
            Trial::test(format!("device-{}-is-used", device.daemon.device), move || {
                trial(&used, device.use_it)
            }),
            Trial::test(
                format!("device-{}-daemon-has-given-up-its-rights", device.daemon.device),
                move || {
                    trial(&powerless, |machine| {
                        confined::daemon_has_given_up_its_rights(machine, device.daemon)
                    })
                },
            ),
            Trial::test(
                format!("device-{}-daemon-reaches-its-own-guest-only", device.daemon.device),
                move || {
                    trial(&bounded, |machine| {
                        confined::daemon_reaches_its_own_guest_only(machine, device.daemon)
                    })
                },
            ),
            Trial::test(format!("device-{}-outlives-its-daemon", device.daemon.device), move || {
                trial(&survived, |machine| survive(machine, device))
            })
            .with_ignored_flag(!is_long),
        ]
    });
    let hang = Arc::clone(&shared);
    let hang =
        Trial::test("device-gpio-daemon-that-hangs-is-killed", move || trial(&hang, gpio::hang_is_ended))
            .with_ignored_flag(!is_long);
    let table = Trial::test("table-of-devices-is-current", || {
        table::is_current().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.chain([hang, table]).collect());
    // `exit` would leave QEMU and the hardware running.
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
