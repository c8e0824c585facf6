// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated board in place of hardware: for tests, for the demo, and behind QEMU's own virtio devices.
//!
//! A TOML file describes the board ([`board`]); a [`journal`] lists what happens on it; faults and inputs
//! come from a [`control`] socket. The models are `i2c::sim` and `gpio::sim`.

pub mod board;
pub mod control;
pub mod journal;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use self::board::Board;
use self::control::Control;
use self::journal::Journal;

/// The options of a simulated board.
#[derive(Debug, Default, Args)]
pub struct SimulationOptions {
    /// Simulate the board that FILE describes, in place of hardware
    #[arg(long = "sim", value_name = "FILE", group = "hardware")]
    board: Option<PathBuf>,
    /// Append a JSON line for each event on the simulated bus
    #[arg(long = "sim-journal", value_name = "FILE", requires = "board")]
    journal: Option<PathBuf>,
    /// Take commands for the simulated board at this socket: a JSON line each
    #[arg(long = "sim-control", value_name = "SOCKET", requires = "board")]
    control: Option<PathBuf>,
}

/// A simulated board with its files.
#[derive(Debug, Default)]
pub struct Simulation {
    /// The description of the board.
    pub board: Board,
    /// The journal.
    pub journal: Journal,
    /// The control socket.
    pub control: Option<Control>,
}

impl SimulationOptions {
    /// Opens the files that the options name. Returns `None` if no board is to be simulated.
    ///
    /// # Errors
    /// When a file or socket is not usable.
    pub fn load(&self) -> anyhow::Result<Option<Simulation>> {
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
                Some(bound.with_context(|| format!("cannot create the control socket {}", path.display()))?)
            }
            None => None,
        };
        Ok(Some(Simulation { board, journal, control }))
    }
}
