// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interface between the device and its lines.
//!
//! [`super::linux`] implements it for the kernel's lines, `super::sim` for a simulated board. Lines are given
//! by their index in the guest's order, over all of their chips. No call blocks: it is an ioctl on one line
//! at most.

use std::io;

use crate::watch::Watcher;

/// The edges of an input that are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    /// None: plain input.
    #[default]
    None,
    /// Inactive to active.
    Rising,
    /// Active to inactive.
    Falling,
    /// Both.
    Both,
}

/// The set-up of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setup {
    /// Not requested: another process may request the line.
    #[default]
    Released,
    /// Driven to a level.
    Output(bool),
    /// An input.
    Input(Edges),
    /// An output stays as it is, anything else is released.
    Kept,
}

/// The edges of a line since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeReport {
    /// Number of edges.
    pub edges: u32,
    /// The level after the last edge, if there was one.
    pub level: Option<bool>,
}

/// The lines behind a device.
pub trait Lines: Send {
    /// Sets up a line; on failure it stays as it was.
    ///
    /// # Errors
    /// When another process has requested the line, or the hardware fails.
    fn set_up(&mut self, line: u16, setup: Setup) -> io::Result<()>;

    /// Returns the present level of the line, also of an output and of a released line.
    ///
    /// # Errors
    /// When it cannot be read.
    fn value(&mut self, line: u16) -> io::Result<bool>;

    /// Adds the descriptors to `watcher`, which reports a line's number whenever the line has edges to take.
    /// Tokens beyond the lines are for other descriptors of the implementation.
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    fn watch(&mut self, watcher: &Watcher) -> io::Result<()>;

    /// Handles an event of another descriptor of the implementation.
    fn handle_event(&mut self, token: u32);

    /// Whether lines stay as they are when this process ends, for the next daemon.
    fn stay_requested(&self) -> bool;

    /// Takes the edges of the line since the last call. After an error the line is no longer watched.
    ///
    /// # Errors
    /// When the line no longer exists.
    fn take_edges(&mut self, line: u16) -> io::Result<EdgeReport>;
}
