// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host can ask an agent for, and what it answers. Written with postcard: a request has to pass a
//! console in steps of a few bytes.
//!
//! There is only one thing to ask for: run a program. Everything that plain Linux tools do not do is a tool
//! of the agent's binary and is run as a program too.

use alloc::{borrow::ToOwned, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

/// The most that is kept of what a program writes to one of its outputs.
pub const OUTPUT_LIMIT: usize = 128 * 1024;

/// A request to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Run a program to its end; after that many milliseconds it is killed.
    Run(Vec<String>, u32),
    /// Start a program and answer at once, with its number in [`Answer::Started`].
    Start(Vec<String>),
    /// What a started program has written so far, and whether it has ended.
    Look(u32),
    /// Kill a started program, and say what it had written. Its number is free after this.
    Stop(u32),
    /// Hand the console to an interactive program; the answer comes when it ends.
    Interactive(Vec<String>),
}

/// What an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// What a program has written, and how it ended.
    Output(Output),
    /// The number of the program that was started.
    Started(u32),
    /// The agent could not do it, and why.
    Failed(String),
}

/// What a program has written, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Standard output, at most [`OUTPUT_LIMIT`] bytes.
    pub stdout: Vec<u8>,
    /// Standard error, likewise.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub end: End,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It has not ended yet.
    #[default]
    Running,
    /// By itself, with this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// The agent killed it, since its time was over.
    TimedOut,
}

impl Output {
    /// Whether the program ended with exit status 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.end == End::Exited(0)
    }

    /// Standard output as text, without white space at its end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text, without white space at its end.
    #[must_use]
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}
