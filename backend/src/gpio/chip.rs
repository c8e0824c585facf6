// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The small door to hardware: what the device needs of a set of lines, whoever provides them.
//!
//! [`super::linux`] is the real one, [`super::sim`] a model of a board. Lines are given by their
//! index in the guest's order, over all chips that they come from. Nothing here waits: a call is an
//! ioctl on one line at most, and edges are collected, not awaited.

use std::io;

use crate::watch::Watcher;

/// Which edges of an input are recorded.
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

/// How a line is to be set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setup {
    /// Not held: another process may take the line, and it goes to the kernel's default.
    #[default]
    Released,
    /// Driven.
    Output(bool),
    /// Sensed.
    Input(Edges),
    /// An output stays held as it is, anything else is released.
    Left,
}

/// What a line has seen since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many edges.
    pub edges: u32,
    /// The level after the last of them, if there was one.
    pub level: Option<bool>,
}

/// The lines behind a device.
pub trait Lines: Send {
    /// Sets a line up, whatever it was before; on failure it stays as it was.
    ///
    /// # Errors
    /// When the line is taken by somebody else, or the hardware cannot do it.
    fn set_up(&mut self, line: u16, setup: Setup) -> io::Result<()>;

    /// What the line's level is now, also of an output and of a line that is released.
    ///
    /// # Errors
    /// When it cannot be read.
    fn value(&mut self, line: u16) -> io::Result<bool>;

    /// Takes note of where to register descriptors. From now on `watcher` reports a line's number
    /// whenever the line has edges to take. Tokens beyond the lines are for the hardware's own use.
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    fn watch(&mut self, watcher: &Watcher) -> io::Result<()>;

    /// An event of a token of the hardware's own.
    fn event(&mut self, token: u32);

    /// Whether lines stay as they are set up when this process ends, for the next one to take up.
    fn is_kept(&self) -> bool;

    /// The edges that the line has seen since it was last asked; asking forgets them. A line that fails
    /// here is reported no more.
    ///
    /// # Errors
    /// When the line is gone.
    fn take_edges(&mut self, line: u16) -> io::Result<Seen>;
}
