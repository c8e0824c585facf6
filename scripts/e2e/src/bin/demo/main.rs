// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The demo: two guests use the hardware of a driver domain. `scripts/demo` builds what it needs and runs it.

mod picture;
mod shell;
mod show;

use std::env;
use std::io::{IsTerminal, stdin};
use std::process::ExitCode;

use anyhow::Result;
use e2e::host::machine::{Machine, Place};

fn main() -> ExitCode {
    let once = env::args().skip(1).any(|argument| argument == "--once");
    match run(once || !stdin().is_terminal()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all steps worked.
fn run(once: bool) -> Result<bool> {
    picture::print()?;
    let machine = Machine::start(&Place::in_checkout("demo"))?;
    let worked = show::run(&machine)?;
    if !once {
        shell::offer(&machine)?;
    }
    println!("\nLogs and journals of this run: {}", machine.directory.display());
    Ok(worked)
}
