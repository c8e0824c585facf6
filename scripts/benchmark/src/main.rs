// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Measures and writes what was measured: `scripts/bench` builds what it needs and runs it.

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
    /// Draw the figures into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Measure quickly, compare with the figures that are kept in the repository, and fail if something got
    /// worse.
    #[arg(long)]
    check: bool,
    /// Measure quickly, and keep the figures in the repository.
    #[arg(long, conflicts_with = "check")]
    update: bool,
    /// Also say which functions of Xen and of the driver domain's kernel the instructions are in.
    #[arg(long, conflicts_with = "wall")]
    profile: bool,
    /// The board: a name of images/boards, or a file like those. With another than qemu-virt the figures are
    /// another's.
    #[arg(long, value_name = "BOARD", default_value = "qemu-virt", conflicts_with_all = ["check", "update"])]
    board: String,
    /// Have our backends look for another request for so long before they sleep.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, conflicts_with_all = ["check", "update"])]
    busy_poll: u32,
    /// Only some of it.
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

/// As a manifest elsewhere can name it.
fn board(name: &str) -> Result<String> {
    if !name.ends_with(".toml") {
        return Ok(name.to_owned());
    }
    Ok(fs::canonicalize(name).with_context(|| format!("the board {name}"))?.display().to_string())
}

/// Returns whether nothing got worse.
fn run(options: &Options) -> Result<bool> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let plugin = options.plugin.canonicalize().context("the plugin")?;
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

/// Returns whether nothing got worse.
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
        [] => println!("Nothing got worse since {}.", before.commit),
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

/// The commit that is checked out, with a mark if there is something else than that.
fn commit(checkout: &Path) -> Result<String> {
    let output = Command::new("git")
        .current_dir(checkout)
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .output()
        .context("cannot run git")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
