// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Executes requests of the host on the console of a domain under test. With arguments, it runs one of its
//! tools instead.

use std::env;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, stdin};
use std::os::fd::AsFd;
use std::process::ExitCode;

use e2e::agent::{Agent, tools};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = if arguments.is_empty() { serve().map_err(Into::into) } else { tools::run(&arguments) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves the console, which is standard input, in raw mode: no echo, no line editing, no translation.
fn serve() -> io::Result<()> {
    let console = File::from(stdin().as_fd().try_clone_to_owned()?);
    if isatty(&console) {
        let mut settings: Termios = tcgetattr(&console)?;
        settings.make_raw();
        tcsetattr(&console, OptionalActions::Now, &settings)?;
    }
    // The standard library seeds its hash tables with random numbers of the kernel: each agent has another
    // number.
    let [low, high, ..] = RandomState::new().hash_one(std::process::id()).to_le_bytes();
    Agent::new(console, u16::from_le_bytes([low, high]))?.serve()
}
