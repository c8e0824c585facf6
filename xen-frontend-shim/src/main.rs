// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: `xen-frontend-shim run CONFIG` supervises, and starts itself as the worker of each guest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use confinement::Enforcement;
use log::error;
use shim_config::Config;
use xen_frontend_shim::check::{self, Finding, Place};
use xen_frontend_shim::handoff::Inheritance;
use xen_frontend_shim::{supervisor, worker};

/// Where the state directory is.
const STATE: &str = "/run/xen-frontend-shim";

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
        /// Where to keep what the next supervisor needs to go on. It has to be gone when the machine restarts.
        #[arg(long, value_name = "DIR", default_value = STATE)]
        state: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Say what of kernel, Xen, policy or configuration is missing, and how to get it.
    ///
    /// One line for each thing: ok; weak, if it works without; missing, if it does not. Fails if something is missing.
    Check {
        /// The configuration (TOML).
        #[arg(default_value = "/etc/xen-frontend-shim.toml")]
        config: PathBuf,
        /// Where `run` is to keep its state.
        #[arg(long, value_name = "DIR", default_value = STATE)]
        state: PathBuf,
    },
    /// Serve one guest with inherited descriptors. Only `run` starts this.
    #[command(hide = true)]
    Worker {
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Clone, Copy, Debug, Args)]
struct Options {
    /// What becomes of system calls that the shim has no reason to make: `on` kills the process, `log` writes them to the
    /// audit log, `off` is for kernels without seccomp
    #[arg(long, value_name = "MODE", default_value_t)]
    seccomp: Enforcement,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Action::Run { config, state, options } => run(&config, &state, options.seccomp),
        Action::Check { config, state } => check(&config, state),
        Action::Worker { options } => serve(options.seccomp),
    }
}

fn run(path: &Path, state: &Path, seccomp: Enforcement) -> ExitCode {
    logging::start(None);
    conclude(supervisor::run(path, state, seccomp).map_err(|error| error.to_string()))
}

#[allow(clippy::print_stdout)]
fn check(path: &Path, state: PathBuf) -> ExitCode {
    let findings = match Config::read(path) {
        Ok(config) => check::all(&config, &Place { root: "/".into(), state }),
        Err(error) => {
            println!("missing  configuration: {error}");
            return ExitCode::FAILURE;
        }
    };
    for finding in &findings {
        println!("{finding}");
    }
    if findings.iter().any(Finding::is_missing) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn serve(seccomp: Enforcement) -> ExitCode {
    let inherited = Inheritance::claim().and_then(|inheritance| {
        let handoff = inheritance.handoff()?;
        Ok((inheritance, handoff))
    });
    match inherited {
        Ok((inheritance, handoff)) => {
            logging::start(Some(&handoff.name));
            conclude(worker::run(&inheritance, &handoff, seccomp).map_err(|error| error.to_string()))
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
