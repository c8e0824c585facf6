// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host tells the rogue of the guests.

use super::words::Target;

/// What the rogue knows of a guest: all that could help it but the secret itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Its domid.
    pub(super) domid: u16,
    /// The first of some frames that are full of its secret.
    pub(super) frame: u64,
    /// The reference of a page that it has granted to the rogue.
    pub(super) control: u32,
    /// Likewise, to be read only.
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
