// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine in QEMU with the plugin, and commands in its domains.

use std::mem;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::host::PATIENCE;
use e2e::host::channel::{Background, Channel};
use e2e::host::machine::{DRIVER_DOMAIN, GUEST_A, ICOUNT, Machine};
use e2e::host::process::wait_until;
use e2e::request::End;
use ledger::{Mark, Record};
use serde_json::json;

use crate::image::{Image, SOCKETS, Variant};
use crate::profile::Symbols;
use crate::records::{Records, of};
use crate::spent::{Program, Threads};

/// The time within which a workload has to end.
const LIMIT: Duration = Duration::from_secs(600);
/// The interval at which a workload is checked for failure.
const LOOK: Duration = Duration::from_secs(30);

/// The time of a message on the bus. Three bytes at 100 kHz take a third of it.
const MESSAGE: Duration = Duration::from_millis(1);
/// The targets on the bus, a sensor and an EEPROM.
const TARGETS: [u16; 2] = [0x48, 0x50];

/// The clock of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The number of executed instructions.
    Instructions,
    /// The host's clock.
    Wall,
}

/// Files on the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// The checkout.
    pub checkout: PathBuf,
    /// The plugin.
    pub plugin: PathBuf,
    /// Whether instructions are also counted by address.
    pub profile: bool,
    /// The variant of the images.
    pub variant: Variant,
}

/// The records at the begin and the end of a workload.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where it began.
    pub begin: Record,
    /// Where it was over.
    pub finish: Record,
    /// The number of failed transfers that the agent reports.
    pub errors: u64,
}

/// The number of a line for its reader, and on the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// For its reader.
    pub seen: u32,
    /// On the chip.
    pub driven: u32,
}

/// The domain in which a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In the driver domain.
    Driver,
    /// In the guest with this place in the manifest.
    Guest(usize),
}

impl Where {
    /// Returns the domid, which is also the VMID.
    ///
    /// # Errors
    /// Returns an error if the number does not fit.
    pub fn domain(self) -> Result<u16> {
        match self {
            Self::Driver => Ok(DRIVER_DOMAIN),
            Self::Guest(place) => Ok(GUEST_A + u16::try_from(place)?),
        }
    }
}

/// The channels to the domains of the machine.
struct Domains(Machine);

impl Domains {
    fn channel(&self, place: Where) -> Result<&Channel> {
        match place {
            Where::Driver => Ok(&self.0.driver_domain),
            Where::Guest(place) => {
                Ok(self.0.guests.get(place).with_context(|| format!("there is no guest number {place}"))?)
            }
        }
    }

    /// Starts a program. It is stopped when the returned value is dropped.
    fn start(&self, place: Where, command: &str) -> Result<Background<'_>> {
        self.channel(place)?.start(&words(command)).with_context(|| command.to_owned())
    }
}

/// The running machine.
pub struct Stack {
    machine: Domains,
    records: Records,
    /// The programs of the driver domain's threads.
    pub threads: Threads,
    /// The time between two edges in milliseconds.
    pause: u32,
    /// The symbols, if instructions are counted by address.
    pub symbols: Symbols,
    /// The records up to the start of all agents.
    pub boot: Vec<Record>,
}

impl Stack {
    /// Builds the image and boots it. Returns when all agents have started.
    ///
    /// # Errors
    /// Returns an error if a step fails.
    pub fn boot(host: &Host, image: Image, clock: Clock) -> Result<Self> {
        let name = image.name();
        eprintln!("bench: booting {name}");
        let place = image.build(&host.checkout, &host.variant, &name, Vec::new())?;
        std::fs::create_dir_all(&place.run)?;
        let output = place.run.with_extension("records");
        let mut place = place;
        place.arguments = arguments(host, &output, clock);
        let machine = Machine::start(&place)?;
        slow_down(&machine)?;
        machine.driver_domain.check(&["/bin/busybox", "true"], PATIENCE)?;
        if let Image::Contenders = image {
            start_upstream(&machine.driver_domain)?;
        }
        machine.wait_for_guests()?;
        let mut records = Records::new(output);
        let boot = records.new_ones()?;
        let pause = match clock {
            Clock::Instructions => 5,
            Clock::Wall => 50,
        };
        let symbols = match host.profile {
            true => Symbols::read(&host.checkout.join("target/artefacts/symbols"))?,
            false => Symbols::default(),
        };
        let mut stack =
            Self { machine: Domains(machine), records, threads: Threads::new(), pause, symbols, boot };
        stack.threads = stack.find_threads()?;
        Ok(stack)
    }

    /// Lists the driver domain's threads again: backends start threads for requests.
    ///
    /// # Errors
    /// Returns an error if the agent does not answer.
    pub fn find_threads(&self) -> Result<Threads> {
        let text = self.machine.0.driver_domain.check(&["/usr/bin/agent", "threads"], PATIENCE)?;
        Ok(text.lines().filter_map(thread).collect())
    }

    /// Runs a workload to its end.
    ///
    /// # Errors
    /// Returns an error if it fails or the plugin has no record of it.
    pub fn run(&mut self, place: Where, command: &str) -> Result<Run> {
        self.run_beside(&[], place, command)
    }

    /// Runs a workload to its end while others, which take longer, run too; then stops those.
    ///
    /// # Errors
    /// Returns an error as [`Stack::run`], or if another one ends first.
    pub fn run_beside(&mut self, others: &[(Where, String)], place: Where, command: &str) -> Result<Run> {
        self.records.new_ones()?;
        let started: Vec<_> =
            others.iter().map(|(place, other)| self.machine.start(*place, other)).collect::<Result<_>>()?;
        let mut seen = Vec::new();
        wait_until("the others begin", LIMIT, || {
            seen.extend(self.records.new_ones()?);
            let begun = |(place, _): &(Where, String)| {
                place.domain().is_ok_and(|domain| of(&seen, domain, Mark::Begin).is_some())
            };
            Ok(others.iter().all(begun).then_some(()))
        })?;
        let run = watch(&self.machine, &mut self.records, place, command, |_| Ok(()))?;
        for (background, (_, other)) in started.iter().zip(others) {
            let end = background.look()?;
            ensure!(end.end == End::Running, "`{other}` ended early: {} {}", end.text(), end.error_text());
        }
        Ok(run)
    }

    /// Runs a program that waits for edges, and another that makes them.
    ///
    /// # Errors
    /// Returns an error if one of them fails.
    pub fn edges(&mut self, place: Where, chip: &str, line: Lines, count: u32) -> Result<Run> {
        self.records.new_ones()?;
        let Lines { seen, driven } = line;
        let driver_domain = &self.machine.0.driver_domain;
        // A slow reader misses some edges and gets later ones, so there are more than `count`.
        let make = format!("make-edges {} 1000000 {}", pull(driver_domain, driven)?, self.pause);
        let mut maker = None;
        let watcher = format!("time-edges {chip} {seen} {count}");
        watch(&self.machine, &mut self.records, place, &watcher, |watcher| {
            let watching = watcher.look_until(LIMIT, |output| output.text().contains("watching"))?;
            let said = (watching.end, watching.text(), watching.error_text());
            ensure!(said.0 == End::Running, "the program that waits for edges: {said:?}");
            maker = Some(driver_domain.start(&words(&make))?);
            Ok(())
        })
    }

    /// Checks that the machine still runs.
    ///
    /// # Errors
    /// Returns an error if a part of it has ended.
    pub fn alive(&mut self) -> Result<()> {
        self.machine.0.alive()
    }
}

fn arguments(host: &Host, output: &Path, clock: Clock) -> Vec<String> {
    let mut own = format!("{},out={}", host.plugin.display(), output.display());
    let mut rest = Vec::new();
    if clock == Clock::Instructions {
        own += ",turns=on";
        own += if host.profile { ",profile=on" } else { "" };
        rest.extend(ICOUNT.map(str::to_owned));
    }
    ["-plugin".to_owned(), own].into_iter().chain(rest).collect()
}

/// Sets the time of a message on the bus. Without it, the host decides whether the answer arrives before the
/// driver domain sleeps, which makes a difference of some thousand instructions. On a real bus it never does.
fn slow_down(machine: &Machine) -> Result<()> {
    for target in TARGETS {
        let delay =
            json!({ "address": target, "fault": { "delay-ms": MESSAGE.as_millis() }, "count": u32::MAX });
        machine.i2c.control(&json!({ "inject": delay }))?;
    }
    Ok(())
}

fn words(command: &str) -> Vec<&str> {
    ["/usr/bin/agent"].into_iter().chain(command.split(' ')).collect()
}

/// Starts a workload, calls `beside`, and waits for the end of the workload. It reads the plugin's file and
/// not the console, because traffic on the console would be measured.
fn watch<'a>(
    machine: &'a Domains,
    records: &mut Records,
    place: Where,
    command: &str,
    beside: impl FnOnce(&Background<'a>) -> Result<()>,
) -> Result<Run> {
    let started = machine.start(place, command)?;
    beside(&started)?;
    let mut seen = Vec::new();
    let mut look = Instant::now() + LOOK;
    wait_until(command, LIMIT, || {
        seen.extend(records.new_ones()?);
        if Instant::now() > look {
            look = Instant::now() + LOOK;
            let output = started.look()?;
            let failed = output.end != End::Running && !output.succeeded();
            ensure!(!failed, "`{command}`: {} {}", output.text(), output.error_text());
        }
        Ok(of(&seen, place.domain()?, Mark::Finish).is_some().then_some(()))
    })?;
    let output = started.look_until(LIMIT, |_| false)?;
    ensure!(output.succeeded(), "`{command}`: {} {}", output.text(), output.error_text());
    ends(&seen, place, &output.text()).with_context(|| command.to_owned())
}

/// Returns the records of a workload, and the errors that its agent has printed.
fn ends(records: &[Record], place: Where, text: &str) -> Result<Run> {
    let domain = place.domain()?;
    let find = |mark| of(records, domain, mark).cloned();
    let errors = text.split_whitespace().find_map(|pair| pair.strip_prefix("errors=")?.parse().ok());
    Ok(Run {
        begin: find(Mark::Begin).context("the plugin has no record of the workload's start")?,
        finish: find(Mark::Finish).context("the plugin has no record of the workload's end")?,
        errors: errors.with_context(|| format!("unexpected output of the agent: {text:?}"))?,
    })
}

/// Parses a line of `agent threads`.
fn thread(line: &str) -> Option<(u32, Program)> {
    let mut values = line.split(' ');
    let number = values.next()?.strip_prefix("thread=")?.parse().ok()?;
    Some((number, Program::named(values.next()?.strip_prefix("program=")?)))
}

/// Runs a script in the driver domain's shell.
fn script(driver_domain: &Channel, text: &str) -> Result<String> {
    driver_domain.check(&["/bin/busybox", "sh", "-c", text], PATIENCE)
}

/// Returns the path of the file that sets a line of the chip.
fn pull(driver_domain: &Channel, line: u32) -> Result<String> {
    script(driver_domain, &format!("echo /sys/devices/platform/gpio-sim.*/gpiochip*/sim_gpio{line}/pull"))
}

/// Starts the upstream daemons, which run until the domain ends.
fn start_upstream(driver_domain: &Channel) -> Result<()> {
    // This daemon serves a whole chip, given by its number.
    let chip =
        script(driver_domain, "cd /sys/devices/platform/gpio-sim.*/gpiochip* && echo ${PWD##*gpiochip}")?;
    // This daemon finds an adapter by its name, and its addresses are decimal.
    let adapter = script(driver_domain, "/bin/busybox cat /sys/bus/i2c/devices/i2c-0/name")?;
    for (program, device, list) in
        [("vhost-device-i2c", "i2c", format!("{adapter}:72:80")), ("vhost-device-gpio", "gpio", chip)]
    {
        let path = format!("{SOCKETS}{device}");
        let program = format!("/usr/bin/{program}");
        let daemon = [program.as_str(), "-s", &path, "-c", "1", "-l", &list];
        let daemon = driver_domain.start(&daemon)?;
        // An error of its start is printed at once. The guest waits for its device, so later errors show
        // there.
        let said = daemon.look()?;
        ensure!(said.end == End::Running, "{program} does not start: {} {}", said.text(), said.error_text());
        // Dropping it would stop the daemon.
        mem::forget(daemon);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_classified_by_program() {
        let known = thread;
        assert_eq!(
            known("thread=41 program=backend command=/usr/bin/backend i2c"),
            Some((41, Program::Daemon))
        );
        assert_eq!(known("thread=42 program=vhost-device-i2c command="), Some((42, Program::Daemon)));
        assert_eq!(known("thread=7 program=xen-frontend-shim command=x"), Some((7, Program::Shim)));
        assert_eq!(known("thread=8 program=agent command=x"), Some((8, Program::Other)));
        assert_eq!(known("agent: no such tool"), None);
    }

    #[test]
    fn a_workload_has_a_begin_and_an_end() {
        let record = |mark: Mark| Record { mark: mark.number(), domain: 2, ..Record::default() };
        let records = [record(Mark::Begin), record(Mark::Finish)];
        assert_eq!(ends(&records, Where::Guest(0), "transfers=5 errors=2").unwrap().errors, 2);
        assert!(ends(&records, Where::Guest(1), "transfers=5 errors=2").is_err());
        assert!(ends(&records, Where::Guest(0), "killed").is_err());
    }
}
