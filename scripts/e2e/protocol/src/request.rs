// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests to an agent, and its answers. They are encoded with postcard, because a request passes the
//! console in steps of a few bytes.
//!
//! An agent only runs programs. What no Linux tool does is a tool of the agent's binary, run as a program
//! too.

use alloc::{borrow::ToOwned, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

/// The maximum number of bytes that is kept of each output of a program.
pub const OUTPUT_LIMIT: usize = 128 * 1024;

/// A request to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Run a program to its end. It is killed after this number of milliseconds.
    Run(Vec<String>, u32),
    /// Start a program and answer at once with its number, [`Answer::Started`].
    Start(Vec<String>),
    /// Return the output of a started program, and whether it has ended.
    Look(u32),
    /// Kill a started program and return its output. Its number is free after this.
    Stop(u32),
    /// Give the console to an interactive program. The answer follows when it ends.
    Interactive(Vec<String>),
}

/// An answer of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The output of a program, and how it ended.
    Output(Output),
    /// The number of the program that was started.
    Started(u32),
    /// The error because of which the agent could not do it.
    Failed(String),
}

/// The output of a program, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Standard output, at most [`OUTPUT_LIMIT`] bytes.
    pub stdout: Vec<u8>,
    /// Standard error, likewise.
    pub stderr: Vec<u8>,
    /// Whether and how the program ended.
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
    /// The agent killed it after its time limit.
    TimedOut,
}

impl Output {
    /// Returns whether the program ended with exit status 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.end == End::Exited(0)
    }

    /// Returns standard output as text, without trailing white space.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Returns standard error as text, without trailing white space.
    #[must_use]
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}
