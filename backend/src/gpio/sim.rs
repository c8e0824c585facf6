// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A model of a board: lines that are wired to each other, driven by the guest from one side and by
//! whoever holds the control socket from the other.
//!
//! A net is a set of lines that are wired together. Its level is what drives it: an output of the guest,
//! else what is driven from outside, else low (a weak pull-down). Two outputs that disagree are a short;
//! the net is low then, as with open drains.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use serde::Deserialize;
use serde_json::{Value, json};

use super::chip::{Edges, Lines, Seen, Setup};
use crate::sim::board::GpioChip;
use crate::sim::control::Control;
use crate::sim::journal::Journal;
use crate::watch::Watcher;

/// What can be done to a board from outside: one line of JSON on the control socket.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Drives a line from outside until it is released.
    Drive(Drive),
    /// Stops driving a line.
    Release(Which),
    /// Asks for a line's direction and level.
    Read(Which),
}

/// Arguments of [`Command::Drive`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Number of the line.
    pub line: u16,
    /// 0 or 1.
    pub value: u8,
}

/// Arguments of the commands that name a line only.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Number of the line.
    pub line: u16,
}

/// Why a board cannot be built or a command not be followed.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// A wire or a command names a line that there is not.
    #[error("line {line} does not exist, the board has {count} (numbered from 0)")]
    NoSuchLine {
        /// The line.
        line: u16,
        /// How many there are.
        count: usize,
    },
    /// A safe value for a line that there is not would protect nothing.
    #[error("`safe` names the line {0:?}, and no line of the board is called that")]
    NoSuchName(String),
    /// A level is low or high.
    #[error("a line can be driven to 0 or 1, not to {0}")]
    NoSuchLevel(u8),
    /// What is driven from both sides breaks.
    #[error("line {0} is driven by the guest")]
    DrivenByGuest(u16),
    /// The kernel has no descriptors left.
    #[error("cannot make an event descriptor: {0}")]
    Descriptor(#[from] io::Error),
}

/// One line of a board.
struct Pin {
    setup: Setup,
    outside: Option<bool>,
    /// Level of the net when it was last looked at.
    level: bool,
    /// Counts the edges that the set-up asks for.
    edges: OwnedFd,
    /// The smallest number of the lines that this one is wired to, itself included.
    net: usize,
}

/// The lines of a board, and what is connected to them.
pub struct Board {
    pins: Vec<Pin>,
    journal: Journal,
}

impl Board {
    /// Builds a board; what the guest does to it goes to `journal`.
    ///
    /// # Errors
    /// When a wire goes nowhere.
    pub fn new(config: &GpioChip, journal: Journal) -> Result<Self, BoardError> {
        if let Some(unknown) = config.safe.keys().find(|name| !config.lines.contains(name)) {
            return Err(BoardError::NoSuchName(unknown.clone()));
        }
        let count = config.lines.len();
        let mut pins = Vec::with_capacity(count);
        for net in 0..count {
            let edges =
                eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(io::Error::from)?;
            pins.push(Pin { setup: Setup::Released, outside: None, level: false, edges, net });
        }
        let mut board = Self { pins, journal };
        for wire in &config.wires {
            board.connect(wire)?;
        }
        Ok(board)
    }

    /// Makes one net of all the nets that `wire` touches.
    fn connect(&mut self, wire: &[u16]) -> Result<(), BoardError> {
        let nets: Vec<usize> =
            wire.iter().map(|line| self.pin(*line).map(|pin| pin.net)).collect::<Result<_, _>>()?;
        let Some(first) = nets.iter().min().copied() else { return Ok(()) };
        for pin in self.pins.iter_mut().filter(|pin| nets.contains(&pin.net)) {
            pin.net = first;
        }
        Ok(())
    }

    /// Follows a command of the control socket; the value goes back under `ok`.
    ///
    /// # Errors
    /// When the command makes no sense on this board.
    pub fn command(&mut self, command: Command) -> Result<Value, BoardError> {
        match command {
            Command::Drive(Drive { line, value }) => self.drive(line, value).map(|()| json!({})),
            Command::Release(Which { line }) => {
                self.pin_mut(line)?.outside = None;
                self.settle()?;
                Ok(json!({}))
            }
            Command::Read(Which { line }) => {
                let pin = self.pin(line)?;
                Ok(json!({ "direction": direction(pin.setup), "value": u8::from(self.level(pin.net)) }))
            }
        }
    }

    fn drive(&mut self, line: u16, value: u8) -> Result<(), BoardError> {
        let level = match value {
            0 => false,
            1 => true,
            other => return Err(BoardError::NoSuchLevel(other)),
        };
        let net = self.pin(line)?.net;
        if self.pins.iter().any(|pin| pin.net == net && matches!(pin.setup, Setup::Output(_))) {
            return Err(BoardError::DrivenByGuest(line));
        }
        self.pin_mut(line)?.outside = Some(level);
        Ok(self.settle()?)
    }

    /// What the guest's side does to a line.
    fn set_up(&mut self, line: u16, setup: Setup) -> Result<(), BoardError> {
        let pin = self.pin_mut(line)?;
        let setup = match (setup, pin.setup) {
            (Setup::Left, driven @ Setup::Output(_)) => driven,
            (Setup::Left, _) => Setup::Released,
            (other, _) => other,
        };
        let before = std::mem::replace(&mut pin.setup, setup);
        if before != setup {
            self.record_change(line, before, setup);
        }
        Ok(self.settle()?)
    }

    fn record_change(&mut self, line: u16, before: Setup, now: Setup) {
        let mut record = |event: &str, value: Value| {
            self.journal.record("gpio", &json!({ "line": line, "event": event, "value": value }));
        };
        if direction(before) != direction(now) {
            record("direction", json!(direction(now)));
        }
        if let Setup::Output(value) = now {
            record("value", json!(u8::from(value)));
        }
        if irq(before) != irq(now) {
            record("irq", json!(irq(now)));
        }
    }

    /// Lets every line see the level of its net, and counts the edges.
    fn settle(&mut self) -> io::Result<()> {
        let levels: Vec<bool> = self.pins.iter().map(|pin| self.level(pin.net)).collect();
        for (pin, level) in self.pins.iter_mut().zip(levels) {
            let edge = std::mem::replace(&mut pin.level, level) != level;
            let wanted = match pin.setup {
                Setup::Released | Setup::Left | Setup::Output(_) | Setup::Input(Edges::None) => false,
                Setup::Input(Edges::Rising) => level,
                Setup::Input(Edges::Falling) => !level,
                Setup::Input(Edges::Both) => true,
            };
            if edge && wanted {
                rustix::io::write(&pin.edges, &1_u64.to_ne_bytes())?;
            }
        }
        Ok(())
    }

    /// The level of a net.
    fn level(&self, net: usize) -> bool {
        let members = || self.pins.iter().filter(|pin| pin.net == net);
        let mut outputs = members().filter_map(|pin| match pin.setup {
            Setup::Output(value) => Some(value),
            Setup::Released | Setup::Left | Setup::Input(_) => None,
        });
        match outputs.next() {
            Some(first) => first && outputs.all(|value| value),
            None => members().find_map(|pin| pin.outside).unwrap_or(false),
        }
    }

    fn pin(&self, line: u16) -> Result<&Pin, BoardError> {
        let count = self.pins.len();
        self.pins.get(usize::from(line)).ok_or(BoardError::NoSuchLine { line, count })
    }

    fn pin_mut(&mut self, line: u16) -> Result<&mut Pin, BoardError> {
        let count = self.pins.len();
        self.pins.get_mut(usize::from(line)).ok_or(BoardError::NoSuchLine { line, count })
    }
}

/// A set-up's direction, in the words of the journal and the control socket.
fn direction(setup: Setup) -> &'static str {
    match setup {
        Setup::Released | Setup::Left => "none",
        Setup::Output(_) => "output",
        Setup::Input(_) => "input",
    }
}

/// A set-up's interrupt, in the words of the journal.
fn irq(setup: Setup) -> &'static str {
    match setup {
        Setup::Released | Setup::Left | Setup::Output(_) | Setup::Input(Edges::None) => "none",
        Setup::Input(Edges::Rising) => "rising",
        Setup::Input(Edges::Falling) => "falling",
        Setup::Input(Edges::Both) => "both",
    }
}

/// All lines of a board, for one device, and the way in from outside.
pub struct SimLines {
    board: Board,
    control: Option<Control>,
}

impl SimLines {
    /// The lines of `board`, driven from outside through `control`.
    pub fn new(board: Board, control: Option<Control>) -> Self {
        Self { board, control }
    }
}

impl Lines for SimLines {
    fn is_kept(&self) -> bool {
        false
    }

    fn set_up(&mut self, line: u16, setup: Setup) -> io::Result<()> {
        self.board.set_up(line, setup).map_err(io::Error::other)
    }

    fn value(&mut self, line: u16) -> io::Result<bool> {
        let pin = self.board.pin(line).map_err(io::Error::other)?;
        Ok(self.board.level(pin.net))
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        let mut tokens = 0..;
        for (pin, line) in self.board.pins.iter().zip(&mut tokens) {
            watcher.add(&pin.edges, line)?;
        }
        match (&mut self.control, tokens.next()) {
            (Some(control), Some(first)) => control.watch(watcher, first),
            _ => Ok(()),
        }
    }

    fn event(&mut self, token: u32) {
        if let Some(control) = &mut self.control {
            control.event(token, |command| self.board.command(command).map_err(|error| error.to_string()));
        }
    }

    fn take_edges(&mut self, line: u16) -> io::Result<Seen> {
        let pin = self.board.pin(line).map_err(io::Error::other)?;
        let mut count = [0; 8];
        match rustix::io::read(&pin.edges, &mut count) {
            Ok(_) => {
                let edges = u32::try_from(u64::from_ne_bytes(count)).unwrap_or(u32::MAX);
                Ok(Seen { edges, level: Some(pin.level) })
            }
            Err(rustix::io::Errno::AGAIN) => Ok(Seen::default()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(lines: usize, wires: &[[u16; 2]]) -> Board {
        let config =
            GpioChip { lines: vec![String::new(); lines], wires: wires.to_vec(), ..GpioChip::default() };
        Board::new(&config, Journal::default()).expect("a board")
    }

    fn follow(board: &mut Board, command: &str) -> Result<Value, String> {
        let command = serde_json::from_str(command).map_err(|error| error.to_string())?;
        board.command(command).map_err(|error| error.to_string())
    }

    fn read(board: &mut Board, line: u16) -> Value {
        board.command(Command::Read(Which { line })).expect("a line that exists")
    }

    #[test]
    fn what_drives_a_line_shows_on_all_that_it_is_wired_to() {
        let mut board = board(5, &[[0, 1], [3, 2], [2, 1]]);
        board.set_up(0, Setup::Output(true)).expect("an output");
        for line in [1, 2, 3] {
            assert_eq!(read(&mut board, line), json!({ "direction": "none", "value": 1 }));
        }
        assert_eq!(read(&mut board, 0), json!({ "direction": "output", "value": 1 }));
        assert_eq!(read(&mut board, 4)["value"], 0);
        // Two outputs that disagree, then the outside where no output is.
        board.set_up(3, Setup::Output(false)).expect("an output");
        assert_eq!(read(&mut board, 1)["value"], 0);
        board.set_up(3, Setup::Released).expect("a release");
        board.set_up(0, Setup::Input(Edges::None)).expect("an input");
        assert_eq!(read(&mut board, 1)["value"], 0);
        follow(&mut board, r#"{"drive":{"line":2,"value":1}}"#).expect("a free net");
        assert_eq!(read(&mut board, 0), json!({ "direction": "input", "value": 1 }));
        follow(&mut board, r#"{"release":{"line":2}}"#).expect("a line that exists");
        assert_eq!(read(&mut board, 0)["value"], 0);
    }

    #[test]
    fn edges_are_counted_as_the_setup_asks() {
        let mut lines = SimLines::new(board(2, &[[0, 1]]), None);
        let cases = [(Edges::None, 0), (Edges::Rising, 3), (Edges::Falling, 3), (Edges::Both, 6)];
        for (edges, count) in cases {
            lines.set_up(1, Setup::Input(edges)).expect("an input");
            for _ in 0..3 {
                lines.set_up(0, Setup::Output(true)).expect("an output");
                lines.set_up(0, Setup::Output(true)).expect("no edge");
                lines.set_up(0, Setup::Output(false)).expect("an output");
            }
            assert_eq!(lines.take_edges(1).ok().map(|seen| seen.edges), Some(count), "{edges:?}");
            assert_eq!(lines.take_edges(1).ok(), Some(Seen::default()));
        }
        assert_eq!(lines.take_edges(0).ok(), Some(Seen::default()));
        assert!(lines.take_edges(2).is_err() && lines.value(2).is_err());
    }

    #[test]
    fn commands_that_make_no_sense_say_why() {
        let mut board = board(2, &[]);
        board.set_up(0, Setup::Output(true)).expect("an output");
        for (command, why) in [
            (r#"{"drive":{"line":0,"value":0}}"#, "line 0 is driven by the guest"),
            (r#"{"drive":{"line":1,"value":2}}"#, "a line can be driven to 0 or 1, not to 2"),
            (r#"{"read":{"line":2}}"#, "line 2 does not exist, the board has 2 (numbered from 0)"),
            (r#"{"release":{"line":70000}}"#, "invalid value: integer `70000`"),
            (r#"{"toggle":{"line":1}}"#, "unknown variant `toggle`"),
            (r#"{"read":{"line":1,"value":1}}"#, "unknown field `value`"),
        ] {
            let answer = follow(&mut board, command);
            assert!(matches!(&answer, Err(text) if text.starts_with(why)), "{answer:?}");
        }
        let config = GpioChip { lines: vec![String::new()], wires: vec![[0, 1]], ..GpioChip::default() };
        assert!(matches!(
            Board::new(&config, Journal::default()),
            Err(BoardError::NoSuchLine { line: 1, .. })
        ));
    }

    #[test]
    fn the_journal_has_what_the_guest_changes_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut board = board(2, &[]);
        board.journal = Journal::append_to(file.path()).expect("a journal");
        board.set_up(0, Setup::Output(true)).expect("an output");
        board.set_up(0, Setup::Output(true)).expect("the same");
        board.set_up(0, Setup::Input(Edges::Both)).expect("an input");
        follow(&mut board, r#"{"drive":{"line":0,"value":1}}"#).expect("an input");
        board.set_up(0, Setup::Released).expect("a release");
        let text = std::fs::read_to_string(file.path()).expect("text");
        let events: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .map(|entry| format!("{} {} {}", entry["line"], entry["event"], entry["value"]))
            .collect();
        assert_eq!(
            events,
            [
                "0 \"direction\" \"output\"",
                "0 \"value\" 1",
                "0 \"direction\" \"input\"",
                "0 \"irq\" \"both\"",
                "0 \"direction\" \"none\"",
                "0 \"irq\" \"none\"",
            ]
        );
    }
}
