// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The scenarios, each a test with a name. Nearly all run on one machine that boots once. `scripts/test e2e
//! [NAME]` runs them.
//!
//! `XBA_VCPUS=N` gives each domain N virtual CPUs instead of one.

mod backend_loss;
mod both;
mod confined;
mod gpio;
mod guest_loss;
mod i2c;
mod isolation;
mod life;
mod outputs;
mod quiet;
mod rebind;
mod reload;
#[path = "../shared/mod.rs"]
mod shared;
mod shim_loss;
mod size;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use e2e::host::machine::{Machine, Place};
use libtest_mimic::{Arguments, Failed, Trial};
use toml::{Table, Value};

/// The limit for a short command in a domain.
const LIMIT: Duration = Duration::from_secs(60);

/// One scenario.
struct Scenario {
    name: &'static str,
    run: fn(&Machine) -> Result<()>,
    /// Messages on the console that do not count as faults in this scenario.
    expected: &'static [&'static str],
    /// Whether another machine boots for this scenario and those after it.
    boots: bool,
}

const fn scenario(name: &'static str, run: fn(&Machine) -> Result<()>) -> Scenario {
    Scenario { name, run, expected: &[], boots: false }
}

/// Returns a scenario in which Xen's policy denies a call.
const fn denied(name: &'static str, run: fn(&Machine) -> Result<()>) -> Scenario {
    // Two spaces, as the security server prints it.
    Scenario { name, run, expected: &["avc:  denied"], boots: false }
}

/// The scenarios, in the order in which they run. Late ones check the state after all earlier ones.
const SCENARIOS: &[Scenario] = &[
    scenario("guest-a-reads-temperature", i2c::guest_a_reads_temperature),
    scenario("guest-a-sees-temperature-change", i2c::guest_a_sees_temperature_change),
    scenario("guest-a-writes-eeprom-page", i2c::guest_a_writes_eeprom_page),
    scenario("guest-b-reads-clock", i2c::guest_b_reads_clock),
    scenario("guest-b-cannot-reach-targets-of-guest-a", isolation::targets),
    scenario("guest-b-cannot-reach-targets-by-a-later-message", isolation::second_message),
    scenario("guest-b-cannot-reach-lines-of-guest-a", isolation::lines),
    scenario("guest-a-drives-a-line", gpio::guest_a_drives_a_line),
    scenario("an-edge-arrives-in-guest-a", gpio::an_edge_arrives),
    scenario("the-power-button-arrives-in-guest-a", gpio::the_power_button_arrives),
    scenario("an-open-drain-of-guest-b-is-not-driven-high", gpio::an_open_drain_is_not_driven_high),
    scenario("a-bouncing-contact-of-guest-b-is-one-edge", gpio::a_bouncing_contact_is_one_edge),
    Scenario {
        name: "driver-domain-cannot-map-what-was-not-granted",
        run: isolation::foreign_pages,
        // Two spaces, as the security server prints it. Other denials are faults here.
        expected: &[
            "avc:  denied  { map_read map_write } for",
            "avc:  denied  { map_read } for",
            "avc:  denied  { map_write } for",
        ],
        boots: false,
    },
    denied("driver-domain-maps-no-resource-but-its-ioreq-page", isolation::resources),
    denied("driver-domain-takes-no-event-channel-of-a-guest", isolation::event_channels),
    scenario("driver-domain-enables-no-ioreq-server-without-a-page", isolation::no_page),
    scenario("driver-domain-does-no-harm-by-many-ioreq-servers", isolation::overload),
    denied("driver-domain-makes-no-call-that-it-does-not-need", isolation::hypercalls),
    scenario("both-guests-at-once", both::both_guests_at_once),
    scenario("an-unbound-driver-leaves-outputs-safe", outputs::unbound_driver_leaves_outputs_safe),
    scenario("an-output-with-safe-stay-keeps-its-level", outputs::output_with_safe_stay_keeps_its_level),
    scenario("an-output-outlives-its-backend", outputs::output_outlives_its_backend),
    scenario("a-backend-killed-before-a-transfer-fails-no-request", backend_loss::killed_with_a_request),
    scenario("a-backend-killed-in-a-transfer-fails-that-request", backend_loss::killed_in_a_transfer),
    scenario("a-backend-that-hangs-before-a-transfer-fails-no-request", backend_loss::hangs),
    scenario("a-backend-that-hangs-in-a-transfer-fails-that-request", backend_loss::hangs_in_a_transfer),
    scenario("a-device-without-a-backend-needs-a-reset", backend_loss::cannot_be_started_again),
    scenario("a-gpio-backend-killed-loses-no-edge", backend_loss::gpio_backend_killed),
    scenario("backends-killed-repeatedly", backend_loss::killed_repeatedly),
    scenario("rebinding-leaves-no-grant-mapped", rebind::rebinding_leaves_no_grant_mapped),
    scenario(
        "a-request-completes-while-its-driver-is-unbound",
        rebind::request_completes_while_its_driver_is_unbound,
    ),
    scenario("every-process-has-given-up-its-rights", confined::every_process_has_given_up_its_rights),
    denied("a-process-reaches-its-own-guest-only", confined::a_process_reaches_its_own_guest_only),
    scenario("a-guests-user-opens-no-device", confined::a_guests_user_opens_no_device),
    denied("check-finds-nothing-missing", confined::check_finds_nothing_missing),
    denied("check-lists-what-is-missing", confined::check_lists_what_is_missing),
    scenario("a-worker-is-killed", shim_loss::worker_killed),
    scenario("the-supervisor-is-killed", shim_loss::supervisor_killed),
    scenario("the-supervisor-is-terminated", shim_loss::supervisor_terminated),
    scenario("the-record-of-an-ioreq-server-is-damaged", shim_loss::server_record_damaged),
    scenario("a-lost-device-needs-a-reset", shim_loss::lost_device_needs_a_reset),
    scenario("a-reload-does-not-affect-lines-in-use", reload::lines_in_use_are_not_affected),
    scenario("a-reload-does-not-affect-transfers", reload::transfers_are_not_affected),
    scenario("a-reload-replaces-a-worker-that-hangs", reload::hanging_worker_is_replaced),
    scenario("lifecycle-loop", shim_loss::lifecycle_loop),
    scenario("driver-domain-is-small", size::driver_domain_is_small),
    scenario("kernels-report-no-fault", quiet::kernels_report_no_fault),
    // Linux cannot use the removed device after this one.
    Scenario {
        name: "the-configuration-is-reloaded",
        run: shim_loss::configuration_reloaded,
        expected: &["Xen grant DMA data is already created"],
        boots: false,
    },
    Scenario { name: "guest-b-powers-off", run: guest_loss::guest_b_powers_off, expected: &[], boots: true },
    Scenario {
        name: "guest-a-panics",
        run: guest_loss::guest_a_panics,
        expected: &["Kernel panic", "Call trace"],
        boots: false,
    },
];

/// The machine, which the first scenario boots.
#[derive(Default)]
enum Shared {
    #[default]
    Off,
    On(Box<Machine>),
    /// The scenario of this name has failed.
    Broken(&'static str),
}

impl Shared {
    fn run(&mut self, scenario: &Scenario) -> Result<()> {
        if scenario.boots {
            *self = Self::Off;
        }
        if let Self::Off = self {
            *self = Self::Broken(scenario.name);
            *self = Self::On(Box::new(boot(scenario)?));
        }
        let done = match self {
            Self::On(machine) => {
                perform(machine, scenario).map_err(|error| anyhow!("{error:#}\n{}", machine.post_mortem()))
            }
            Self::Broken(first) => bail!("not run: {first} failed, and the machine is in an unknown state"),
            Self::Off => bail!("the machine is off"),
        };
        if done.is_err() {
            *self = Self::Broken(scenario.name);
        }
        done
    }
}

fn boot(first: &Scenario) -> Result<Machine> {
    // Another directory, so that the logs of the former machine are kept.
    let mut place = Place::in_checkout(if first.boots { first.name } else { "scenarios" });
    if let Ok(vcpus) = std::env::var("XBA_VCPUS") {
        let vcpus: i64 = vcpus.parse().context("XBA_VCPUS must be a number")?;
        place = shared::rebuild(place, "vcpus", |manifest, _| {
            let give = |domain: &mut Table| domain.insert("vcpus".to_owned(), vcpus.into());
            give(shared::section(manifest, "driver-domain")?);
            let guests = manifest.get_mut("guest").and_then(Value::as_array_mut);
            for guest in guests.into_iter().flatten() {
                give(guest.as_table_mut().context("a guest of the manifest is not a table")?);
            }
            Ok(())
        })?;
    }
    let machine = Machine::start(&place)?;
    machine.wait_for_guests()?;
    eprintln!("booted in {:.1} s", machine.uptime().as_secs_f64());
    Ok(machine)
}

fn perform(machine: &mut Machine, scenario: &Scenario) -> Result<()> {
    let mark = machine.console.mark();
    let done = (scenario.run)(machine);
    let quiet = quiet::check(&machine.console.since(mark), scenario.expected);
    machine.split_log()?;
    let place = || format!("logs in {}", machine.directory.display());
    done.with_context(place)?;
    quiet.with_context(place)?;
    machine.alive()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The scenarios share one machine, and some compare its state before and after.
    arguments.test_threads = Some(1);
    let shared = Arc::new(Mutex::new(Shared::default()));
    let trial = |scenario: &'static Scenario| {
        let shared = Arc::clone(&shared);
        Trial::test(scenario.name, move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.run(scenario).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    let conclusion = libtest_mimic::run(&arguments, SCENARIOS.iter().map(trial).collect());
    // Ends QEMU and the simulated hardware before this process.
    *shared.lock().unwrap_or_else(PoisonError::into_inner) = Shared::Off;
    conclusion.exit_code()
}
