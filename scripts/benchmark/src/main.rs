// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The benchmark's program. `scripts/bench` builds what it needs and runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow};
use benchmark::baseline::Baseline;
use benchmark::figures::Report;
use benchmark::image::Variant;
use benchmark::measure::{self, Amount, Latencies};
use benchmark::plot;
use benchmark::stack::{Clock, Host};
use benchmark::table;
use clap::Parser;

#[derive(Parser)]
#[command(about = "Boots the stack in QEMU and measures the cost of a request and its parts")]
struct Options {
    /// Write all figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure a few requests only.
    #[arg(long)]
    quick: bool,
    /// Run the machine by the host's clock instead of counting instructions.
    #[arg(long)]
    wall: bool,
    /// Write pictures of the figures to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Measure with --quick, compare with the baseline in the repository, and fail if a figure is worse.
    #[arg(long)]
    check: bool,
    /// Measure with --quick, and write the baseline in the repository.
    #[arg(long, conflicts_with = "check")]
    update: bool,
    /// Also count instructions by function of Xen and of the driver domain's kernel.
    #[arg(long, conflicts_with = "wall")]
    profile: bool,
    /// The board: a name of images/boards, or the path of such a file. Figures of different boards cannot be
    /// compared.
    #[arg(long, value_name = "BOARD", default_value = "qemu-virt", conflicts_with_all = ["check", "update"])]
    board: String,
    /// The time for which our backends poll for another request before they sleep.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, conflicts_with_all = ["check", "update"])]
    busy_poll: u32,
    /// Measure these parts only.
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// The QEMU plugin.
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

/// Returns the board as a manifest in another directory can name it.
fn board(name: &str) -> Result<String> {
    if !name.ends_with(".toml") {
        return Ok(name.to_owned());
    }
    Ok(fs::canonicalize(name).with_context(|| format!("the board {name}"))?.display().to_string())
}

/// Returns whether no figure is worse than in the baseline.
fn run(options: &Options) -> Result<bool> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let plugin = options.plugin.canonicalize().with_context(|| format!("{}", options.plugin.display()))?;
    let variant = Variant { board: board(&options.board)?, busy_poll: options.busy_poll };
    let host = Host { plugin, checkout, profile: options.profile, variant };
    let (report, latencies) = measure(&host, options)?;
    println!("{}", table::markdown(&report));
    if let Some(path) = &options.svg {
        plot::svg(path, &report, &latencies).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    compare(&host, options, &report)
}

/// Returns whether no figure is worse than in the baseline.
fn compare(host: &Host, options: &Options, report: &Report) -> Result<bool> {
    let kept = host.checkout.join("scripts/benchmark/baseline.toml");
    let now = Baseline::of(report);
    if options.update {
        now.write(&kept)?;
    }
    if !options.check {
        return Ok(true);
    }
    let before = Baseline::read(&kept)?;
    let worse = before.worse(&now)?;
    match worse.as_slice() {
        [] => println!("No figure is worse than at {}.", before.commit),
        _ => println!("Worse than at {}:\n  {}", before.commit, worse.join("\n  ")),
    }
    Ok(worse.is_empty())
}

fn measure(host: &Host, options: &Options) -> Result<(Report, Latencies)> {
    let clock = if options.wall { Clock::Wall } else { Clock::Instructions };
    let quick = options.quick || options.check || options.update;
    let amount = if quick { Amount::QUICK } else { Amount::FULL };
    let (name, unit) = match clock {
        Clock::Instructions => ("icount", "instructions"),
        Clock::Wall => ("wall", "nanoseconds"),
    };
    let mut report = Report {
        format: 1,
        commit: commit(&host.checkout)?,
        clock: name.to_owned(),
        unit: unit.to_owned(),
        quick,
        ..Report::default()
    };
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut latencies = Latencies::new();
    if wanted(Part::Contenders) {
        latencies = measure::contenders(host, clock, amount, &mut report)?;
    }
    if wanted(Part::Start) {
        report.start = Some(measure::start(host, clock)?);
    }
    if wanted(Part::Scale) {
        report.scale = measure::scale(host, clock, amount)?;
    }
    report.compare();
    Ok((report, latencies))
}

/// Returns the commit that is checked out, with a mark if the tree differs from it.
fn commit(checkout: &Path) -> Result<String> {
    let output = Command::new("git")
        .current_dir(checkout)
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .output()
        .context("cannot run git")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
