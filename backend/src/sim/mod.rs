// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A model of a board in place of hardware: for unit tests, for the demo, and behind QEMU's own virtio devices.
//!
//! The board is described by a TOML file for both kinds of bus ([`board`]); what happens on it is written to a
//! [`journal`]; faults and inputs come in by a [`control`] socket. The models are with their devices.

pub mod board;
pub mod control;
pub mod journal;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use self::board::Board;
use self::control::Control;
use self::journal::Journal;

/// The arguments of both daemons that replace hardware by a model.
#[derive(Debug, Default, Args)]
pub struct Simulation {
    /// Simulate the board that FILE describes, in place of hardware
    #[arg(long = "sim", value_name = "FILE")]
    board: Option<PathBuf>,
    /// Append a JSON line for whatever happens on the simulated bus
    #[arg(long = "sim-journal", value_name = "FILE", requires = "board")]
    journal: Option<PathBuf>,
    /// Take commands for the simulated board at this socket: a JSON line each
    #[arg(long = "sim-control", value_name = "SOCKET", requires = "board")]
    control: Option<PathBuf>,
}

/// What a simulation is made of.
#[derive(Debug, Default)]
pub struct Parts {
    /// What is on the board.
    pub board: Board,
    /// Where to write down what happens.
    pub journal: Journal,
    /// Where commands come from.
    pub control: Option<Control>,
}

impl Simulation {
    /// Whether a board is to be simulated.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.board.is_some()
    }

    /// Opens what the arguments name: nothing, if no board is to be simulated.
    ///
    /// # Errors
    /// Says which file or socket is not usable, and why.
    pub fn load(&self) -> anyhow::Result<Option<Parts>> {
        let Some(board) = &self.board else { return Ok(None) };
        let board = Board::load(board)?;
        let journal = match &self.journal {
            Some(path) => Journal::append_to(path)
                .with_context(|| format!("cannot write the journal {}", path.display()))?,
            None => Journal::default(),
        };
        let control = match &self.control {
            Some(path) => {
                let bound = Control::bind(path);
                Some(
                    bound
                        .with_context(|| format!("cannot listen at the control socket {}", path.display()))?,
                )
            }
            None => None,
        };
        Ok(Some(Parts { board, journal, control }))
    }
}
