// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line: typed arguments, then an opened device, then the daemon.
//!
//! The options that all devices share are those of the vhost-user specification, "Backend program conventions".

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser};
use serde_json::json;

use crate::daemon::{Source, serve};
use crate::device::Device;
use crate::{gpio, i2c, inherited};

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
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match Command::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Command {
    /// Does what the arguments say.
    ///
    /// # Errors
    /// Says what is wrong with an argument, or what the system refused.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::I2c(arguments) => start("i2c", arguments.connection(), || arguments.open()),
            Self::Gpio(arguments) => start("gpio", arguments.connection(), || arguments.open()),
        }
    }
}

fn start(
    kind: &str,
    connection: &Connection,
    open: impl FnOnce() -> anyhow::Result<Box<dyn Device>>,
) -> anyhow::Result<()> {
    match connection.source()? {
        None => print_capabilities(kind),
        Some(source) => serve(open()?, source).context("the daemon cannot go on"),
    }
}

/// What management software asks for ("Backend program conventions", `--print-capabilities`).
#[allow(clippy::print_stdout)]
fn print_capabilities(kind: &str) -> anyhow::Result<()> {
    println!("{}", json!({ "type": kind }));
    Ok(())
}
