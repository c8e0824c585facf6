// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program xen-frontend-shim: the supervisor, the check, and the workers that the supervisor starts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use confinement::Enforcement;
use log::error;
use shim_config::Config;
use xen_frontend_shim::check::{self, Finding, Paths};
use xen_frontend_shim::handoff::InheritedFds;
use xen_frontend_shim::launch::Launch;
use xen_frontend_shim::{supervisor, worker};

/// The default state directory.
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
    /// Serve the guests of a configuration. The image builder writes it.
    Run {
        /// The configuration (TOML).
        config: PathBuf,
        /// The directory of the state records, from which the next supervisor continues. It must be empty
        /// after a restart of the machine: a tmpfs.
        #[arg(long, value_name = "DIR", default_value = STATE)]
        state: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// List what the kernel, Xen, the policy or the configuration lacks.
    ///
    /// One line for each requirement: ok, weak (works without it) or missing. Exits with status 1 if one is
    /// missing.
    Check {
        /// The configuration (TOML).
        #[arg(default_value = "/etc/xen-frontend-shim.toml")]
        config: PathBuf,
        /// The directory of the state records.
        #[arg(long, value_name = "DIR", default_value = STATE)]
        state: PathBuf,
    },
    /// Confine this process, and execute the program of a backend that does not confine itself. `run` starts
    /// such programs like this.
    #[command(hide = true)]
    Confine {
        #[command(flatten)]
        launch: Launch,
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
    /// What happens on a system call that is not on the list of the process: `on` kills the process, `log`
    /// writes to the audit log, `off` is for kernels without seccomp
    #[arg(long, value_name = "MODE", default_value_t)]
    seccomp: Enforcement,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Action::Run { config, state, options } => run(&config, &state, options.seccomp),
        Action::Check { config, state } => check(&config, state),
        Action::Confine { launch } => confine(launch),
        Action::Worker { options } => work(options.seccomp),
    }
}

fn run(config: &Path, state: &Path, seccomp: Enforcement) -> ExitCode {
    logging::start(None);
    exit_code(supervisor::run(config, state, seccomp))
}

#[allow(clippy::print_stdout)]
fn check(path: &Path, state: PathBuf) -> ExitCode {
    let findings = match Config::read(path) {
        Ok(config) => check::all(&config, &Paths { root: "/".into(), state }),
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

/// Executes a program. Returns if that fails.
fn confine(launch: Launch) -> ExitCode {
    logging::start(Some(&launch.name));
    error!("{}", launch.execute());
    ExitCode::FAILURE
}

fn work(seccomp: Enforcement) -> ExitCode {
    let inherited = InheritedFds::claim().and_then(|fds| fds.handoff().map(|handoff| (fds, handoff)));
    match inherited {
        Ok((fds, handoff)) => {
            logging::start(Some(&handoff.name));
            exit_code(worker::run(&fds, &handoff, seccomp))
        }
        Err(error) => {
            logging::start(None);
            error!("only `xen-frontend-shim run` can start a worker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs an error. Returns the exit status of the program.
fn exit_code<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}
