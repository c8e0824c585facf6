// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `images`: checks a manifest, and builds from it all that an appliance image consists of.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use images::load::{Loaded, load};
use images::plan::{Function, Plan};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say whether a manifest holds together, and what each guest gets.
    Check {
        /// The manifest.
        manifest: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Check { manifest } => check(&manifest),
    }
}

fn check(path: &Path) -> anyhow::Result<()> {
    let Loaded { manifest, board, .. } = load(path)?;
    let plan = Plan::new(&manifest, &board).context("the manifest was checked but cannot be planned")?;
    for guest in &plan.guests {
        println!("{} (domain {})", guest.guest.name.value, guest.domid);
        for device in &guest.devices {
            let what = match &device.function {
                Function::I2c { targets, .. } => format!("I2C, {} targets", targets.len()),
                Function::Gpio { lines } => format!("GPIO, {} lines", lines.len()),
            };
            println!("  {:<12} {:#x}  interrupt {}  {what}", device.name, device.base, device.irq);
        }
    }
    Ok(())
}
