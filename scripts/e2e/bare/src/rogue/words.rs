// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The words of 64 bits that a structure consists of, as templates without a target.

use super::memory::{self, LIST_LENGTH};

/// One word of a structure.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    /// A number.
    Is(u64),
    /// A number with the target's domid from this bit on.
    Target(u32, u64),
    /// The address of a word of the list.
    List(u64),
    /// An address in this page of the landing zone.
    Landing(u64),
    /// The frame of this page of the landing zone.
    LandingFrame(u64),
    /// The address of the page that Xen may write.
    Own,
    /// The frame of the page that Xen may write.
    OwnFrame,
    /// A frame of the target with its secret.
    Frame,
    /// A number with a grant reference from this bit on: that of a page that the target has granted to the
    /// rogue.
    Grant(u32, u64),
}

/// The offsets in the list of: frames of the landing zone, frames of the target, results, buffers, and text.
pub(super) const LANDING_FRAMES: u64 = 0;
pub(super) const TARGET_FRAMES: u64 = 8;
pub(super) const RESULTS: u64 = 16;
pub(super) const BUFFERS: u64 = 24;
pub(super) const TEXT: u64 = 32;
/// The text: a label of the policy.
const LABEL: &[u8] = b"system_u:system_r:driver_t\0";
/// The value of a result that Xen has not written.
pub(super) const NO_RESULT: u64 = 0x5555_5555_5555_5555;

/// The domain that a call is for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Target {
    /// Its domid.
    pub(super) domid: u16,
    /// A frame with its secret.
    pub(super) frame: u64,
    /// The reference of a page that it has granted to the rogue.
    pub(super) grant: u32,
}

impl Word {
    /// Returns the value of the word for a target.
    pub(super) fn value(self, target: &Target) -> u64 {
        let domid = u64::from(target.domid);
        match self {
            Self::Is(number) => number,
            Self::Target(shift, rest) => rest | domid << shift,
            Self::List(offset) => memory::list() + 8 * offset,
            Self::Landing(page) => memory::LANDING + (page << 12),
            Self::LandingFrame(page) => (memory::LANDING >> 12) + page,
            Self::Own => memory::own(),
            Self::OwnFrame => memory::own_frame(),
            Self::Frame => target.frame,
            Self::Grant(shift, rest) => rest | u64::from(target.grant) << shift,
        }
    }

    /// Returns the first bit of the target's domid.
    pub(super) fn domid_at(self) -> Option<u32> {
        match self {
            Self::Target(shift, _) => Some(shift),
            _ => None,
        }
    }
}

/// Returns the list for a target.
pub(super) fn list(target: &Target) -> [u64; LIST_LENGTH] {
    let mut words = [0; LIST_LENGTH];
    let mut put = |offset: u64, value| {
        if let Some(word) = usize::try_from(offset).ok().and_then(|offset| words.get_mut(offset)) {
            *word = value;
        }
    };
    for page in 0..8 {
        put(LANDING_FRAMES + page, (memory::LANDING >> 12) + page);
        put(TARGET_FRAMES + page, target.frame + page);
    }
    put(RESULTS, NO_RESULT);
    // One buffer of dm_op: the structure.
    put(BUFFERS, memory::argument());
    put(BUFFERS + 1, 64);
    for (offset, bytes) in (TEXT..).zip(LABEL.chunks(8)) {
        let mut word = [0; 8];
        for (place, &byte) in word.iter_mut().zip(bytes) {
            *place = byte;
        }
        put(offset, u64::from_le_bytes(word));
    }
    words
}
