// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines for tests, which fail where the test sets that.

use std::collections::HashSet;
use std::io;

use super::lines::{EdgeReport, Edges, Lines, Setup};
use crate::watch::Watcher;

/// One line of [`FakeLines`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FakeLine {
    pub(super) setup: Setup,
    pub(super) level: bool,
    pub(super) edges: u32,
}

/// Lines whose levels the test sets.
#[derive(Debug, Default)]
pub(crate) struct FakeLines {
    pub(super) lines: Vec<FakeLine>,
    /// Lines that another process has requested.
    pub(super) taken: HashSet<u16>,
    /// Lines that cannot raise interrupts.
    pub(super) without_interrupts: HashSet<u16>,
}

impl FakeLines {
    pub(crate) fn new(count: usize) -> Self {
        Self { lines: vec![FakeLine::default(); count], ..Self::default() }
    }

    /// Drives a line from outside, and counts the edge as hardware does.
    pub(super) fn drive(&mut self, line: u16, level: bool) {
        let line = self.line(line);
        let edge = std::mem::replace(&mut line.level, level) != level;
        let wanted = match line.setup {
            Setup::Input(Edges::Both) => true,
            Setup::Input(Edges::Rising) => level,
            Setup::Input(Edges::Falling) => !level,
            Setup::Input(Edges::None) | Setup::Output(_) | Setup::Released | Setup::Kept => false,
        };
        line.edges += u32::from(edge && wanted);
    }

    pub(super) fn line(&mut self, line: u16) -> &mut FakeLine {
        &mut self.lines[usize::from(line)]
    }
}

impl Lines for FakeLines {
    fn stay_requested(&self) -> bool {
        false
    }

    fn set_up(&mut self, line: u16, setup: Setup) -> io::Result<()> {
        let has_interrupt = matches!(setup, Setup::Input(edges) if edges != Edges::None);
        let is_taken = setup != Setup::Released && self.taken.contains(&line);
        if is_taken || has_interrupt && self.without_interrupts.contains(&line) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let state = self.line(line);
        let setup = match (setup, state.setup) {
            (Setup::Kept, driven @ Setup::Output(_)) => driven,
            (Setup::Kept, _) => Setup::Released,
            (other, _) => other,
        };
        state.setup = setup;
        match setup {
            Setup::Released => state.edges = 0,
            Setup::Output(level) => state.level = level,
            Setup::Input(_) | Setup::Kept => {}
        }
        Ok(())
    }

    fn value(&mut self, line: u16) -> io::Result<bool> {
        Ok(self.line(line).level)
    }

    fn watch(&mut self, _watcher: &Watcher) -> io::Result<()> {
        Ok(())
    }

    fn handle_event(&mut self, _token: u32) {}

    fn take_edges(&mut self, line: u16) -> io::Result<EdgeReport> {
        let line = self.line(line);
        let edges = std::mem::take(&mut line.edges);
        Ok(EdgeReport { edges, level: (edges > 0).then_some(line.level) })
    }
}
