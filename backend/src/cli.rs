// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line: typed arguments, then an opened device, then the daemon.
//!
//! The options that all devices share are those of the vhost-user specification, "Backend program
//! conventions". These have no subcommands: management software runs a program with `--print-capabilities`
//! alone, for example. Therefore links to this program named `backend-i2c`, `backend-gpio` and
//! `backend-console` stand for `backend i2c`, `backend gpio` and `backend console`.
//!
//! There are no description files for `/usr/share/qemu/vhost-user`: QEMU's schema
//! (`docs/interop/vhost-user.json`) has neither `i2c` nor `gpio`, and libvirt refuses all vhost-user devices
//! of a host with a file of an unknown type.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser};
use confinement::role::backend::Hardware;

use crate::arguments::DeviceArguments;
use crate::daemon::{Daemon, Source};
use crate::device::Device;
use crate::{confine, console, gpio, i2c, inherited};

/// Serves a virtio device to a guest, over vhost-user.
#[derive(Debug, Parser)]
#[command(version)]
pub enum Command {
    /// An I2C adapter, or some addresses of one.
    I2c(Program<i2c::Arguments>),
    /// Chosen lines of GPIO chips.
    Gpio(Program<gpio::Arguments>),
    /// A console on which the guest reads a log, or asks for figures.
    Console(Program<console::Arguments>),
}

/// The arguments of a subcommand: the common ones, and those of the device.
#[derive(Debug, Args)]
pub struct Program<D: DeviceArguments> {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    confinement: confine::Options,
    #[command(flatten)]
    tuning: Tuning,
    #[cfg(feature = "sim")]
    #[command(flatten)]
    simulation: crate::sim::SimulationOptions,
    #[command(flatten)]
    device: D,
}

/// The connection to the frontend. To serve one, the arguments of a device must be in the group `hardware`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Connection {
    /// Listen at PATH, and serve one frontend after another
    #[arg(long, value_name = "PATH", requires = "hardware")]
    socket_path: Option<PathBuf>,
    /// Serve the connected stream socket that was passed as descriptor FDNUM, and end with it
    #[arg(long, value_name = "FDNUM", requires = "hardware")]
    fd: Option<RawFd>,
    /// Print what this program can do, as JSON, and end
    #[arg(long)]
    print_capabilities: bool,
}

/// Options whose best value depends on the guest.
#[derive(Clone, Copy, Debug, Args)]
struct Tuning {
    /// After each request, poll for another one for so long before sleeping: lower latency for a guest that
    /// sends one request after the other, at the price of processor time
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=BUSY_POLL_MAX))]
    busy_poll: u32,
}

/// In microseconds. A guest that has not sent its next request by then does not wait for the answer to the
/// last.
const BUSY_POLL_MAX: i64 = 1000;

impl Connection {
    /// Returns the source of frontends, or nothing if only the capabilities are wanted.
    fn source(&self) -> anyhow::Result<Option<Source>> {
        match (&self.socket_path, self.fd) {
            (Some(path), _) => Ok(Some(Source::Path(path.clone()))),
            (None, Some(number)) => {
                let stream = inherited::stream(number).with_context(|| {
                    format!("--fd={number} must name a connected stream socket that is open")
                })?;
                Ok(Some(Source::Stream(stream)))
            }
            (None, None) => Ok(None),
        }
    }
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    logging::start(device_name(std::env::args_os().next()).as_deref());
    match Command::parse_from(with_subcommand(std::env::args_os())).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns `guest-a/i2c` from a process title like `guest-a/i2c:/usr/bin/backend`, which the supervisor
/// gives.
fn device_name(title: Option<OsString>) -> Option<String> {
    Some(title?.to_str()?.split_once(':')?.0.to_owned())
}

/// Replaces `backend-i2c ARGUMENT...` by `backend-i2c i2c ARGUMENT...`.
fn with_subcommand(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()?.to_str());
    if let Some(device) = name.and_then(|name| name.strip_prefix("backend-")) {
        let device = OsString::from(device);
        arguments.insert(1, device);
    }
    arguments
}

impl Command {
    /// Executes the command.
    ///
    /// # Errors
    /// When an argument is invalid, or the system refuses something.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::I2c(program) => program.run(),
            Self::Gpio(program) => program.run(),
            Self::Console(program) => program.run(),
        }
    }
}

impl<D: DeviceArguments> Program<D> {
    /// Opens all that the daemon needs, gives up all other privileges, and serves.
    fn run(&self) -> anyhow::Result<()> {
        let Some(source) = self.connection.source()? else { return print_capabilities(D::KIND) };
        let (device, hardware) = self.open()?;
        let role = self.confinement.role(hardware);
        let daemon = Daemon::new(device, source).context("the daemon cannot start")?;
        role.enter()?;
        let daemon = daemon.busy_poll(Duration::from_micros(self.tuning.busy_poll.into()));
        let started = daemon.start().context("the daemon cannot start")?;
        role.enforce()?;
        started.run().context("the daemon ends")
    }

    fn open(&self) -> anyhow::Result<(Box<dyn Device>, Hardware)> {
        #[cfg(feature = "sim")]
        if let Some(simulation) = self.simulation.load()? {
            return Ok((self.device.simulate(simulation)?, Hardware::Simulated));
        }
        Ok((self.device.open()?, D::HARDWARE))
    }
}

/// Prints what management software asks for ("Backend program conventions", `--print-capabilities`).
#[allow(clippy::print_stdout)]
fn print_capabilities(kind: &str) -> anyhow::Result<()> {
    println!("{{\"type\":\"{kind}\"}}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        let arguments = with_subcommand(arguments.iter().map(OsString::from));
        Command::try_parse_from(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_named_for_its_device_needs_no_subcommand() {
        assert!(matches!(parse(&["/usr/libexec/backend-i2c", "--print-capabilities"]), Ok(Command::I2c(_))));
        assert!(matches!(parse(&["backend-gpio", "--print-capabilities"]), Ok(Command::Gpio(_))));
        assert!(matches!(parse(&["backend", "i2c", "--print-capabilities"]), Ok(Command::I2c(_))));
    }

    #[test]
    fn a_daemon_needs_one_frontend_and_one_bus() {
        let i2c = |arguments: &[&str]| parse(&[&["backend-i2c"][..], arguments].concat());
        assert!(i2c(&["--fd=3", "--adapter=1", "--allow=0x48"]).is_ok());
        assert!(i2c(&["--adapter=1", "--allow=any"]).is_err(), "no frontend");
        assert!(i2c(&["--fd=3", "--socket-path=s", "--adapter=1", "--allow=any"]).is_err(), "two frontends");
        assert!(i2c(&["--fd=3", "--allow=any"]).is_err(), "no bus");
        assert!(i2c(&["--fd=3", "--adapter=1"]).is_err(), "no addresses");
        assert!(i2c(&["--fd=3", "--adapter=1", "--allow=0x48", "--busy-poll=50"]).is_ok());
        assert!(i2c(&["--fd=3", "--adapter=1", "--allow=0x48", "--busy-poll=1001"]).is_err(), "too long");
        assert!(i2c(&["--fd=3", "--adapter=1", "--allow=48"]).is_err(), "not an address");
    }

    #[test]
    fn gpio_lines_are_one_or_more() {
        let gpio = |arguments: &[&str]| parse(&[&["backend-gpio", "--fd=3"][..], arguments].concat());
        assert!(gpio(&["--line=gpiochip0:1"]).is_ok());
        assert!(gpio(&["--line=gpiochip0:1", "--line=gpiochip0:2"]).is_ok());
        assert!(gpio(&[]).is_err());
    }

    #[test]
    fn a_console_has_one_source() {
        let console = |arguments: &[&str]| parse(&[&["backend-console", "--fd=3"][..], arguments].concat());
        assert!(console(&["--source=kmsg"]).is_ok());
        assert!(console(&["--source=unix:/run/status", "--request=json", "--request=openmetrics"]).is_ok());
        assert!(console(&[]).is_err(), "no source");
        assert!(console(&["--source=/dev/kmsg"]).is_err(), "not a source");
        assert!(console(&["--source=unix:/run/status", "--request=two words"]).is_err(), "not a word");
        assert!(parse(&["backend-console", "--print-capabilities"]).is_ok());
    }

    #[test]
    #[cfg(feature = "sim")]
    fn a_simulated_board_replaces_the_hardware() {
        for (hardware, good) in [(&["--sim=b"][..], true), (&["--sim=b", "--line=gpiochip0:1"], false)] {
            let arguments = [&["backend-gpio", "--socket-path=s"][..], hardware].concat();
            assert_eq!(parse(&arguments).is_ok(), good, "{hardware:?}");
        }
        assert!(parse(&["backend-i2c", "--socket-path=s", "--sim=board", "--allow=any"]).is_ok());
        let two = ["backend-i2c", "--fd=3", "--sim=board", "--adapter=1", "--allow=any"];
        assert!(parse(&two).is_err(), "two buses");
    }
}
