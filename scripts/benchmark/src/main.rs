// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Measures and writes what was measured: `scripts/bench` builds what it needs and runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use benchmark::figures::Report;
use benchmark::measure::{self, Amount};
use benchmark::stack::{Clock, Host};
use benchmark::table;
use clap::Parser;

#[derive(Parser)]
#[command(about = "Boots the stack in QEMU and measures what a request costs, and where it goes")]
struct Options {
    /// Write all figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A few requests only.
    #[arg(long)]
    quick: bool,
    /// Let the machine's clock be the host's, instead of counting instructions.
    #[arg(long)]
    wall: bool,
    /// Leave out some of it.
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// QEMU's plugin.
    #[arg(long, value_name = "FILE")]
    plugin: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Contenders,
    Start,
    Scale,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether nothing got worse.
fn run(options: &Options) -> Result<bool> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let host = Host { plugin: options.plugin.canonicalize().context("the plugin")?, checkout };
    let report = measure(&host, options)?;
    println!("{}", table::markdown(&report));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(true)
}

fn measure(host: &Host, options: &Options) -> Result<Report> {
    let clock = if options.wall { Clock::Wall } else { Clock::Instructions };
    let amount = if options.quick { Amount::QUICK } else { Amount::FULL };
    let (name, unit) = match clock {
        Clock::Instructions => ("icount", "instructions"),
        Clock::Wall => ("wall", "nanoseconds"),
    };
    let mut report = Report {
        format: 1,
        commit: commit(&host.checkout)?,
        clock: name.to_owned(),
        unit: unit.to_owned(),
        quick: options.quick,
        ..Report::default()
    };
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    if wanted(Part::Contenders) {
        measure::contenders(host, clock, amount, &mut report)?;
    }
    if wanted(Part::Start) {
        report.start = Some(measure::start(host, clock)?);
    }
    if wanted(Part::Scale) {
        report.scale = measure::scale(host, clock, amount)?;
    }
    report.compare();
    Ok(report)
}

/// The commit that is checked out, with a mark if there is something else than that.
fn commit(checkout: &Path) -> Result<String> {
    let output = Command::new("git")
        .current_dir(checkout)
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .output()
        .context("cannot run git")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
