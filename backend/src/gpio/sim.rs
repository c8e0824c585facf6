// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated GPIO chip: lines that are wired to each other, driven by the guest on one side and by the
//! control socket on the other.
//!
//! A net is a set of lines that are wired together. Its level is that of the guest's outputs, else of the
//! control socket, else low (a weak pull-down). If two outputs differ, the net is low, as with open drains.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::event::{EventfdFlags, eventfd};
use serde::Deserialize;
use serde_json::{Value, json};

use super::device::Gpio;
use super::lines::{EdgeReport, Edges, Lines, Setup};
use crate::device::Device;
use crate::sim::Simulation;
use crate::sim::board::GpioChip;
use crate::sim::control::Control;
use crate::sim::journal::Journal;
use crate::watch::Watcher;

/// Creates the device of a simulated board. A line with an empty name has none.
///
/// # Errors
/// When the board's `[gpio]` is invalid.
pub fn device(simulation: Simulation) -> anyhow::Result<Box<dyn Device>> {
    let Simulation { board, journal, control } = simulation;
    let lines = &board.gpio.lines;
    let names: Vec<_> = lines.iter().map(|name| Some(name.clone()).filter(|name| !name.is_empty())).collect();
    let safe: Vec<_> = lines.iter().map(|name| board.gpio.safe_value(name)).collect();
    let chip = SimulatedChip::new(&board.gpio, journal).context("the board's [gpio] cannot be simulated")?;
    let device = Gpio::new(SimulatedLines::new(chip, control), &names, &safe);
    Ok(Box::new(device.context("the board's [gpio] is not one for a guest: see its `lines`")?))
}

/// A command of the control socket: one line of JSON.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlCommand {
    /// Drives a line from outside until it is released.
    /// Drives a line from outside until it is released.
    Drive(Drive),
    /// Stops driving a line.
    Release(Which),
    /// Returns the direction and the level of a line.
    Read(Which),
}

/// Arguments of [`ControlCommand::Drive`].
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

/// Why a chip cannot be simulated, or a command not executed.
#[derive(Debug, thiserror::Error)]
pub enum ChipError {
    /// A wire or a command names a line that does not exist.
    #[error("line {line} does not exist, the board has {count} (numbered from 0)")]
    NoSuchLine {
        /// The line.
        line: u16,
        /// Number of lines.
        count: usize,
    },
    /// A safe value names a line that does not exist.
    #[error("`safe` names the line {0:?}, and no line of the board has that name")]
    NoSuchName(String),
    /// A level is 0 or 1.
    #[error("a line can be driven to 0 or 1, not to {0}")]
    NoSuchLevel(u8),
    /// The net has an output of the guest.
    #[error("line {0} is driven by the guest")]
    DrivenByGuest(u16),
    /// The kernel has no descriptors left.
    #[error("cannot create an event descriptor: {0}")]
    Descriptor(#[from] io::Error),
}

impl From<ChipError> for io::Error {
    fn from(error: ChipError) -> Self {
        Self::other(error)
    }
}

/// A line of a simulated chip.
struct Pin {
    setup: Setup,
    outside: Option<bool>,
    /// Level of the net when it was updated last.
    level: bool,
    /// Counts the edges that the set-up asks for.
    edges: OwnedFd,
    /// The smallest number of the lines of its net.
    net: usize,
}

/// The lines of a simulated chip and their wires.
pub struct SimulatedChip {
    pins: Vec<Pin>,
    journal: Journal,
}

impl SimulatedChip {
    /// Creates a chip whose changes by the guest are written to `journal`.
    ///
    /// # Errors
    /// When a wire or a safe value names a line that does not exist.
    pub fn new(config: &GpioChip, journal: Journal) -> Result<Self, ChipError> {
        if let Some(unknown) = config.safe.keys().find(|name| !config.lines.contains(name)) {
            return Err(ChipError::NoSuchName(unknown.clone()));
        }
        let count = config.lines.len();
        let mut pins = Vec::with_capacity(count);
        for net in 0..count {
            let edges =
                eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(io::Error::from)?;
            pins.push(Pin { setup: Setup::Released, outside: None, level: false, edges, net });
        }
        let mut chip = Self { pins, journal };
        for wire in &config.wires {
            chip.connect(wire)?;
        }
        Ok(chip)
    }

    /// Joins all nets that `wire` touches.
    fn connect(&mut self, wire: &[u16]) -> Result<(), ChipError> {
        let nets: Vec<usize> =
            wire.iter().map(|line| self.pin(*line).map(|pin| pin.net)).collect::<Result<_, _>>()?;
        let Some(first) = nets.iter().min().copied() else { return Ok(()) };
        for pin in self.pins.iter_mut().filter(|pin| nets.contains(&pin.net)) {
            pin.net = first;
        }
        Ok(())
    }

    /// Executes a command of the control socket, and returns the value for `ok`.
    ///
    /// # Errors
    /// When the command is not possible on this chip.
    pub fn execute(&mut self, command: ControlCommand) -> Result<Value, ChipError> {
        match command {
            ControlCommand::Drive(Drive { line, value }) => self.drive(line, value).map(|()| json!({})),
            ControlCommand::Release(Which { line }) => {
                self.pin_mut(line)?.outside = None;
                self.update_levels()?;
                Ok(json!({}))
            }
            ControlCommand::Read(Which { line }) => {
                let pin = self.pin(line)?;
                Ok(json!({ "direction": direction(pin.setup), "value": u8::from(self.level(pin.net)) }))
            }
        }
    }

    fn drive(&mut self, line: u16, value: u8) -> Result<(), ChipError> {
        let level = match value {
            0 => false,
            1 => true,
            other => return Err(ChipError::NoSuchLevel(other)),
        };
        let net = self.pin(line)?.net;
        if self.pins.iter().any(|pin| pin.net == net && matches!(pin.setup, Setup::Output(_))) {
            return Err(ChipError::DrivenByGuest(line));
        }
        self.pin_mut(line)?.outside = Some(level);
        Ok(self.update_levels()?)
    }

    /// Sets up a line for the guest.
    fn set_up(&mut self, line: u16, setup: Setup) -> Result<(), ChipError> {
        let pin = self.pin_mut(line)?;
        let setup = match (setup, pin.setup) {
            (Setup::Kept, driven @ Setup::Output(_)) => driven,
            (Setup::Kept, _) => Setup::Released,
            (other, _) => other,
        };
        let before = std::mem::replace(&mut pin.setup, setup);
        if before != setup {
            self.record_change(line, before, setup);
        }
        Ok(self.update_levels()?)
    }

    fn record_change(&mut self, line: u16, before: Setup, now: Setup) {
        let mut append = |event: &str, value: Value| {
            self.journal.append("gpio", &json!({ "line": line, "event": event, "value": value }));
        };
        if direction(before) != direction(now) {
            append("direction", json!(direction(now)));
        }
        if let Setup::Output(value) = now {
            append("value", json!(u8::from(value)));
        }
        if irq(before) != irq(now) {
            append("irq", json!(irq(now)));
        }
    }

    /// Updates the level of every line, and counts the edges.
    fn update_levels(&mut self) -> io::Result<()> {
        let levels: Vec<bool> = self.pins.iter().map(|pin| self.level(pin.net)).collect();
        for (pin, level) in self.pins.iter_mut().zip(levels) {
            let edge = std::mem::replace(&mut pin.level, level) != level;
            let wanted = match pin.setup {
                Setup::Released | Setup::Kept | Setup::Output(_) | Setup::Input(Edges::None) => false,
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

    /// Returns the level of a net.
    fn level(&self, net: usize) -> bool {
        let members = || self.pins.iter().filter(|pin| pin.net == net);
        let mut outputs = members().filter_map(|pin| match pin.setup {
            Setup::Output(value) => Some(value),
            Setup::Released | Setup::Kept | Setup::Input(_) => None,
        });
        match outputs.next() {
            Some(first) => first && outputs.all(|value| value),
            None => members().find_map(|pin| pin.outside).unwrap_or(false),
        }
    }

    fn pin(&self, line: u16) -> Result<&Pin, ChipError> {
        let count = self.pins.len();
        self.pins.get(usize::from(line)).ok_or(ChipError::NoSuchLine { line, count })
    }

    fn pin_mut(&mut self, line: u16) -> Result<&mut Pin, ChipError> {
        let count = self.pins.len();
        self.pins.get_mut(usize::from(line)).ok_or(ChipError::NoSuchLine { line, count })
    }
}

/// Returns the direction of a set-up, as in the journal and on the control socket.
fn direction(setup: Setup) -> &'static str {
    match setup {
        Setup::Released | Setup::Kept => "none",
        Setup::Output(_) => "output",
        Setup::Input(_) => "input",
    }
}

/// Returns the interrupt of a set-up, as in the journal.
fn irq(setup: Setup) -> &'static str {
    match setup {
        Setup::Released | Setup::Kept | Setup::Output(_) | Setup::Input(Edges::None) => "none",
        Setup::Input(Edges::Rising) => "rising",
        Setup::Input(Edges::Falling) => "falling",
        Setup::Input(Edges::Both) => "both",
    }
}

/// The lines of a simulated chip for one device, with the control socket.
pub struct SimulatedLines {
    chip: SimulatedChip,
    control: Option<Control>,
}

impl SimulatedLines {
    /// Creates the lines of `chip`, driven from outside through `control`.
    pub fn new(chip: SimulatedChip, control: Option<Control>) -> Self {
        Self { chip, control }
    }
}

impl Lines for SimulatedLines {
    fn stay_requested(&self) -> bool {
        false
    }

    fn set_up(&mut self, line: u16, setup: Setup) -> io::Result<()> {
        Ok(self.chip.set_up(line, setup)?)
    }

    fn value(&mut self, line: u16) -> io::Result<bool> {
        let pin = self.chip.pin(line)?;
        Ok(self.chip.level(pin.net))
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        let mut tokens = 0..;
        for (pin, line) in self.chip.pins.iter().zip(&mut tokens) {
            watcher.add(&pin.edges, line)?;
        }
        match (&mut self.control, tokens.next()) {
            (Some(control), Some(first)) => control.watch(watcher, first),
            _ => Ok(()),
        }
    }

    fn handle_event(&mut self, token: u32) {
        if let Some(control) = &mut self.control {
            control
                .handle_event(token, |command| self.chip.execute(command).map_err(|error| error.to_string()));
        }
    }

    fn take_edges(&mut self, line: u16) -> io::Result<EdgeReport> {
        let pin = self.chip.pin(line)?;
        let mut count = [0; 8];
        match rustix::io::read(&pin.edges, &mut count) {
            Ok(_) => {
                let edges = u32::try_from(u64::from_ne_bytes(count)).unwrap_or(u32::MAX);
                Ok(EdgeReport { edges, level: Some(pin.level) })
            }
            Err(rustix::io::Errno::AGAIN) => Ok(EdgeReport::default()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chip(lines: usize, wires: &[[u16; 2]]) -> SimulatedChip {
        let config =
            GpioChip { lines: vec![String::new(); lines], wires: wires.to_vec(), ..GpioChip::default() };
        SimulatedChip::new(&config, Journal::default()).expect("a chip")
    }

    fn execute(chip: &mut SimulatedChip, command: &str) -> Result<Value, String> {
        let command = serde_json::from_str(command).map_err(|error| error.to_string())?;
        chip.execute(command).map_err(|error| error.to_string())
    }

    fn read(chip: &mut SimulatedChip, line: u16) -> Value {
        chip.execute(ControlCommand::Read(Which { line })).expect("a line that exists")
    }

    #[test]
    fn an_output_drives_all_lines_that_it_is_wired_to() {
        let mut chip = chip(5, &[[0, 1], [3, 2], [2, 1]]);
        chip.set_up(0, Setup::Output(true)).expect("an output");
        for line in [1, 2, 3] {
            assert_eq!(read(&mut chip, line), json!({ "direction": "none", "value": 1 }));
        }
        assert_eq!(read(&mut chip, 0), json!({ "direction": "output", "value": 1 }));
        assert_eq!(read(&mut chip, 4)["value"], 0);
        // Two outputs that differ, then the outside where no output is.
        chip.set_up(3, Setup::Output(false)).expect("an output");
        assert_eq!(read(&mut chip, 1)["value"], 0);
        chip.set_up(3, Setup::Released).expect("a release");
        chip.set_up(0, Setup::Input(Edges::None)).expect("an input");
        assert_eq!(read(&mut chip, 1)["value"], 0);
        execute(&mut chip, r#"{"drive":{"line":2,"value":1}}"#).expect("a free net");
        assert_eq!(read(&mut chip, 0), json!({ "direction": "input", "value": 1 }));
        execute(&mut chip, r#"{"release":{"line":2}}"#).expect("a line that exists");
        assert_eq!(read(&mut chip, 0)["value"], 0);
    }

    #[test]
    fn edges_are_counted_as_the_setup_asks() {
        let mut lines = SimulatedLines::new(chip(2, &[[0, 1]]), None);
        let cases = [(Edges::None, 0), (Edges::Rising, 3), (Edges::Falling, 3), (Edges::Both, 6)];
        for (edges, count) in cases {
            lines.set_up(1, Setup::Input(edges)).expect("an input");
            for _ in 0..3 {
                lines.set_up(0, Setup::Output(true)).expect("an output");
                lines.set_up(0, Setup::Output(true)).expect("no edge");
                lines.set_up(0, Setup::Output(false)).expect("an output");
            }
            assert_eq!(lines.take_edges(1).ok().map(|report| report.edges), Some(count), "{edges:?}");
            assert_eq!(lines.take_edges(1).ok(), Some(EdgeReport::default()));
        }
        assert_eq!(lines.take_edges(0).ok(), Some(EdgeReport::default()));
        assert!(lines.take_edges(2).is_err() && lines.value(2).is_err());
    }

    #[test]
    fn impossible_commands_are_errors_with_a_reason() {
        let mut chip = chip(2, &[]);
        chip.set_up(0, Setup::Output(true)).expect("an output");
        for (command, why) in [
            (r#"{"drive":{"line":0,"value":0}}"#, "line 0 is driven by the guest"),
            (r#"{"drive":{"line":1,"value":2}}"#, "a line can be driven to 0 or 1, not to 2"),
            (r#"{"read":{"line":2}}"#, "line 2 does not exist, the board has 2 (numbered from 0)"),
            (r#"{"release":{"line":70000}}"#, "invalid value: integer `70000`"),
            (r#"{"toggle":{"line":1}}"#, "unknown variant `toggle`"),
            (r#"{"read":{"line":1,"value":1}}"#, "unknown field `value`"),
        ] {
            let answer = execute(&mut chip, command);
            assert!(matches!(&answer, Err(text) if text.starts_with(why)), "{answer:?}");
        }
        let config = GpioChip { lines: vec![String::new()], wires: vec![[0, 1]], ..GpioChip::default() };
        assert!(matches!(
            SimulatedChip::new(&config, Journal::default()),
            Err(ChipError::NoSuchLine { line: 1, .. })
        ));
    }

    #[test]
    fn the_journal_has_the_changes_by_the_guest_only() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut chip = chip(2, &[]);
        chip.journal = Journal::append_to(file.path()).expect("a journal");
        chip.set_up(0, Setup::Output(true)).expect("an output");
        chip.set_up(0, Setup::Output(true)).expect("the same");
        chip.set_up(0, Setup::Input(Edges::Both)).expect("an input");
        execute(&mut chip, r#"{"drive":{"line":0,"value":1}}"#).expect("an input");
        chip.set_up(0, Setup::Released).expect("a release");
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
