// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: `xen-frontend-shim run CONFIG` supervises, and starts itself as the worker of each guest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use log::error;
use xen_frontend_shim::config::Config;
use xen_frontend_shim::handoff::Inheritance;
use xen_frontend_shim::{logging, supervisor, worker};

/// Serves virtio-mmio devices to Xen guests, backed by vhost-user daemons.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve the guests of a configuration, which the image builder writes.
    Run {
        /// The configuration (TOML).
        config: PathBuf,
    },
    /// Serve one guest with inherited descriptors. Only `run` starts this.
    #[command(hide = true)]
    Worker,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Action::Run { config } => run(&config),
        Action::Worker => serve(),
    }
}

fn run(path: &Path) -> ExitCode {
    logging::start(None);
    let result = read(path).and_then(|config| supervisor::run(config).map_err(|error| error.to_string()));
    conclude(result)
}

fn read(path: &Path) -> Result<Config, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn serve() -> ExitCode {
    let inherited = Inheritance::claim().and_then(|inheritance| {
        let handoff = inheritance.handoff()?;
        Ok((inheritance, handoff))
    });
    match inherited {
        Ok((inheritance, handoff)) => {
            logging::start(Some(&handoff.guest.name));
            conclude(worker::run(&inheritance, handoff).map_err(|error| error.to_string()))
        }
        Err(error) => {
            logging::start(None);
            conclude(Err(format!("this is for `xen-frontend-shim run` to start: {error}")))
        }
    }
}

fn conclude(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}
