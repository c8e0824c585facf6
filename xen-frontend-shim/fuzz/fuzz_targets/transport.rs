// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers as a state machine: whatever a guest, a backend and the supervisor do, in whatever order,
//! the rules of `model::transport` hold after each step.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use xen_frontend_shim::model::transport::{Action, Checked};
use xen_frontend_shim::virtio_mmio::Width;
use xen_frontend_shim::virtio_mmio::registers::TABLE;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A register, by its place in the table, in the width that it wants.
    Read(u8),
    Write(u8, u32),
    ReadAt(u16, u8),
    WriteAt(u16, u8, u64),
    Anywhere(u64, u8, Option<u64>),
    Initialise,
    KickEarly(u8),
    Use(u8, u16),
    Lose,
    Configure(u8),
    Backend(u64, u8),
    Refuse(bool),
    Replace,
}

impl Step {
    fn action(&self) -> Action {
        let register = |index: u8| TABLE[usize::from(index) % TABLE.len()].offset;
        match *self {
            Self::Read(index) => Action::Read(register(index), Width::Four),
            Self::Write(index, value) => Action::Write(register(index), Width::Four, value.into()),
            Self::ReadAt(offset, size) => Action::Read(u64::from(offset % 0x1000), width(size)),
            Self::WriteAt(offset, size, value) => {
                Action::Write(u64::from(offset % 0x1000), width(size), value)
            }
            Self::Anywhere(offset, size, None) => Action::Read(offset, width(size)),
            Self::Anywhere(offset, size, Some(value)) => Action::Write(offset, width(size), value),
            Self::Initialise => Action::Initialise,
            Self::KickEarly(queue) => Action::KickEarly(queue.into()),
            Self::Use(queue, used) => Action::Use(queue.into(), used),
            Self::Lose => Action::Lose,
            Self::Configure(byte) => Action::Configure(byte),
            Self::Backend(lacks, byte) => Action::Backend(lacks, byte),
            Self::Refuse(refuses) => Action::Refuse(refuses),
            Self::Replace => Action::Replace,
        }
    }
}

fn width(size: u8) -> Width {
    [Width::One, Width::Two, Width::Four, Width::Eight][usize::from(size % 4)]
}

fuzz_target!(|input: (bool, Vec<Step>)| {
    let (starts_by_kick, steps) = input;
    let mut checked = Checked::new(starts_by_kick);
    steps.iter().for_each(|step| checked.act(&step.action()));
});
