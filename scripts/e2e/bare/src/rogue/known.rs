// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host gives the rogue about the guests.

use super::words::Target;

/// A guest as the rogue knows it: all that could help an attack except the plain secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Its domid.
    pub(super) domid: u16,
    /// The first frame that is full of its secret.
    pub(super) frame: u64,
    /// The reference of a page that it has granted to the rogue.
    pub(super) control: u32,
    /// The reference of a page that it has granted to the rogue read-only.
    pub(super) read_only: u32,
    /// The reference of a page with its secret that it has granted to the other guest.
    pub(super) neighbour: u32,
    /// Its secret, combined with [`MASK`](super::ledger::MASK).
    pub(super) secret: u64,
}

impl Known {
    pub(super) fn target(&self) -> Target {
        Target { domid: self.domid, frame: self.frame, grant: self.control }
    }
}
