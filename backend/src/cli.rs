// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line: typed arguments, then an opened device, then the daemon.
//!
//! The options that all devices share are those of the vhost-user specification, "Backend program conventions".
//! These know no subcommands: management software runs a program with `--print-capabilities` alone, for example. So
//! links to this program named `backend-i2c` and `backend-gpio` stand for `backend i2c` and `backend gpio`.
//!
//! There are no description files for `/usr/share/qemu/vhost-user`. The types that QEMU's schema
//! (`docs/interop/vhost-user.json`) allows in them include neither `i2c` nor `gpio`, and libvirt refuses every
//! vhost-user device of a host where one file has a type that it does not know.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser};
use serde_json::json;

use crate::daemon::{Daemon, Source};
use crate::device::Device;
use crate::{confine, gpio, i2c, inherited};

/// Serves a virtio device to a guest, over vhost-user.
#[derive(Debug, Parser)]
#[command(version)]
pub enum Command {
    /// An I2C adapter, or some addresses of one.
    I2c(i2c::Arguments),
    /// Chosen lines of GPIO chips.
    Gpio(gpio::Arguments),
}

/// How the frontend and this program come together.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Connection {
    /// Listen at PATH, and serve one frontend after another
    #[arg(long, value_name = "PATH")]
    socket_path: Option<PathBuf>,
    /// Serve the connected stream socket that was passed as descriptor FDNUM, and end with it
    #[arg(long, value_name = "FDNUM")]
    fd: Option<RawFd>,
    /// Print what this program can do, as JSON, and end
    #[arg(long)]
    print_capabilities: bool,
}

/// What is good for one guest and bad for another.
#[derive(Clone, Copy, Debug, Args)]
pub struct Tuning {
    /// Look for another request for so long after each, before sleeping: quicker for a guest that sends one after the
    /// other, at the price of processor time
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=LONGEST_BUSY_POLL))]
    busy_poll: u32,
}

/// In microseconds. Who has not sent the next request by then is not waiting for the answer to the last.
const LONGEST_BUSY_POLL: i64 = 1000;

impl Connection {
    /// Where frontends come from, or nothing where only the capabilities are wanted.
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
    logging::start(name_before(std::env::args_os().next()).as_deref());
    match Command::parse_from(spelled_out(std::env::args_os())).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Who is served, from a title like `guest-a/i2c:/usr/bin/backend`, as the supervisor gives one.
fn name_before(title: Option<OsString>) -> Option<String> {
    Some(title?.to_str()?.split_once(':')?.0.to_owned())
}

/// Makes `backend i2c ARGUMENT...` of `backend-i2c ARGUMENT...`.
fn spelled_out(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()?.to_str());
    if let Some(device) = name.and_then(|name| name.strip_prefix("backend-")) {
        let device = OsString::from(device);
        arguments.insert(1, device);
    }
    arguments
}

impl Command {
    /// Does what the arguments say.
    ///
    /// # Errors
    /// Says what is wrong with an argument, or what the system refused.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::I2c(arguments) => {
                let role = arguments.confinement().role(arguments.hardware());
                start("i2c", arguments.connection(), arguments.tuning(), || arguments.open(), role)
            }
            Self::Gpio(arguments) => {
                let role = arguments.confinement().role(arguments.hardware());
                start("gpio", arguments.connection(), arguments.tuning(), || arguments.open(), role)
            }
        }
    }
}

/// Opens all that the daemon needs, gives up the rest, and serves.
fn start(
    kind: &str,
    connection: &Connection,
    tuning: Tuning,
    open: impl FnOnce() -> anyhow::Result<Box<dyn Device>>,
    role: confine::Role,
) -> anyhow::Result<()> {
    let Some(source) = connection.source()? else { return print_capabilities(kind) };
    let daemon = Daemon::new(open()?, source).context("the daemon cannot start")?;
    role.enter()?;
    let daemon = daemon.busy_poll(Duration::from_micros(tuning.busy_poll.into()));
    let started = daemon.start().context("the daemon cannot start")?;
    role.enforce()?;
    started.run().context("the daemon cannot go on")
}

/// What management software asks for ("Backend program conventions", `--print-capabilities`).
#[allow(clippy::print_stdout)]
fn print_capabilities(kind: &str) -> anyhow::Result<()> {
    println!("{}", json!({ "type": kind }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        let arguments = spelled_out(arguments.iter().map(OsString::from));
        Command::try_parse_from(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_named_for_its_device_needs_no_subcommand() {
        assert!(matches!(parse(&["/usr/libexec/backend-i2c", "--print-capabilities"]), Ok(Command::I2c(_))));
        assert!(matches!(parse(&["backend-gpio", "--print-capabilities"]), Ok(Command::Gpio(_))));
        assert!(matches!(parse(&["backend", "i2c", "--print-capabilities"]), Ok(Command::I2c(_))));
    }

    #[test]
    fn one_frontend_and_one_bus() {
        let i2c = |arguments: &[&str]| parse(&[&["backend-i2c"][..], arguments].concat());
        assert!(i2c(&["--fd=3", "--adapter=1", "--allow=0x48"]).is_ok());
        assert!(i2c(&["--socket-path=s", "--sim=board", "--allow=any"]).is_ok());
        assert!(i2c(&["--adapter=1", "--allow=any"]).is_err(), "no frontend");
        assert!(i2c(&["--fd=3", "--socket-path=s", "--adapter=1", "--allow=any"]).is_err(), "two frontends");
        assert!(i2c(&["--fd=3", "--allow=any"]).is_err(), "no bus");
        assert!(i2c(&["--fd=3", "--sim=board", "--adapter=1", "--allow=any"]).is_err(), "two buses");
        assert!(i2c(&["--fd=3", "--adapter=1"]).is_err(), "no addresses");
        assert!(i2c(&["--fd=3", "--adapter=1", "--allow=0x48", "--busy-poll=50"]).is_ok());
        assert!(i2c(&["--fd=3", "--adapter=1", "--allow=0x48", "--busy-poll=1001"]).is_err(), "for ever");
        assert!(i2c(&["--fd=3", "--adapter=1", "--allow=48"]).is_err(), "an address that is none");
    }
}
