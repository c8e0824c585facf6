// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a structure of a hypercall consists of, before it is known which domain the call is about: words of
//! 64 bits.

use super::memory::{self, LIST_LENGTH};

/// One word of a structure.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    /// A number.
    Is(u64),
    /// A number, with the domid of the target in it from this bit on.
    Target(u32, u64),
    /// The address of the second page, so many words from its beginning.
    List(u64),
    /// The address of a page where pages of others may be put.
    Landing(u64),
    /// Its frame.
    LandingFrame(u64),
    /// The address of a page of the rogue's that Xen may use as it likes.
    Own,
    /// Its frame.
    OwnFrame,
    /// A frame of the target's in which its secret is.
    Frame,
    /// A number, with the reference of a page that the target has granted to the rogue from this bit on.
    Grant(u32, u64),
}

/// The second page: frames of the landing zone, frames of the target, results, and text, at these words.
pub(super) const LANDING_FRAMES: u64 = 0;
pub(super) const TARGET_FRAMES: u64 = 8;
pub(super) const RESULTS: u64 = 16;
pub(super) const BUFFERS: u64 = 24;
pub(super) const TEXT: u64 = 32;
/// A string for calls that want one: a label of the policy.
const LABEL: &[u8] = b"system_u:system_r:driver_t\0";
/// What a result is before Xen has written one.
pub(super) const NO_RESULT: u64 = 0x5555_5555_5555_5555;

/// What is known of the domain that a call is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Target {
    /// Its domid.
    pub(super) domid: u16,
    /// A frame in which its secret is.
    pub(super) frame: u64,
    /// The reference of a page that it has granted to the rogue.
    pub(super) grant: u32,
}

impl Word {
    /// Its value for a target.
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

    /// From which bit on it has the target's domid.
    pub(super) fn domid_at(self) -> Option<u32> {
        match self {
            Self::Target(shift, _) => Some(shift),
            _ => None,
        }
    }
}

/// The second page for a target.
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
    // One buffer, of dm_op: the first page.
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
