// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whatever a guest does, in whatever order: the rules of [`model`](crate::model) hold after each step.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use crate::model::transport::{Action, Checked};
use crate::virtio_mmio::Width;
use crate::virtio_mmio::registers::{CONFIG, TABLE};

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![
        8 => Just(Width::Four),
        1 => select(&[Width::One, Width::Two, Width::Eight]),
    ]
}

fn offsets() -> impl Strategy<Value = u64> {
    let registers: Vec<_> = TABLE.iter().map(|register| register.offset).collect();
    prop_oneof![
        16 => select(registers),
        2 => CONFIG..CONFIG + 16,
        1 => 0..0x1000_u64,
        1 => any::<u64>(),
    ]
}

/// Values that mean something to one register or the other, and such that do not.
fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..3_u64,
        4 => select(&[3, 0xb, 0xf, 0x4f, 0x80, 0x83, 0x8b, 0x8f]),
        2 => (0..17_u32).prop_map(|bit| 1 << bit),
        2 => select(&[0x103, 0x3, 0x2000_0001, 1 << 31, 0x7ff_f000, 0x800_0000]),
        1 => any::<u32>().prop_map(u64::from),
        1 => any::<u64>(),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        24 => (offsets(), widths(), values()).prop_map(|(at, width, value)| Action::Write(at, width, value)),
        8 => (offsets(), widths()).prop_map(|(offset, width)| Action::Read(offset, width)),
        3 => Just(Action::Initialise),
        2 => (0..4_u16).prop_map(Action::KickEarly),
        2 => (0..3_u16, any::<u16>()).prop_map(|(queue, used)| Action::Use(queue, used)),
        1 => Just(Action::Lose),
        1 => (0..3_u8).prop_map(Action::Configure),
        1 => (select(&[0, 1, 1 << 29]), 0..2_u8).prop_map(|(lacks, byte)| Action::Backend(lacks, byte)),
        1 => any::<bool>().prop_map(Action::Refuse),
        2 => Just(Action::Replace),
    ]
}

#[test]
fn no_sequence_of_accesses_panics_or_breaks_a_rule() {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(300));
    let starts = std::cell::Cell::new(0);
    let sequences = (any::<bool>(), prop::collection::vec(actions(), 1..200));
    let result = runner.run(&sequences, |(starts_by_kick, sequence)| {
        let mut checked = Checked::new(starts_by_kick);
        sequence.iter().for_each(|action| checked.act(action));
        starts.set(starts.get() + checked.starts);
        Ok(())
    });
    assert_eq!(result, Ok(()));
    assert!(starts.get() > 300, "devices were started {} times: the sequences say little", starts.get());
}

/// Every order of four of these steps, from where the features are agreed.
#[test]
fn no_order_of_initialisation_steps_breaks_a_rule() {
    let four = |offset, value| Action::Write(offset, Width::Four, value);
    let steps = [
        vec![four(0x70, 0)],
        vec![four(0x70, 3)],
        vec![four(0x24, 0), four(0x20, 1), four(0x24, 1), four(0x20, 0x103)],
        vec![four(0x70, 0xb)],
        vec![four(0x38, 64), four(0x84, 1 << 31), four(0x94, 1 << 31), four(0xa4, 1 << 31), four(0x44, 1)],
        vec![four(0x70, 0xf)],
        vec![four(0xc0, 1)],
        vec![four(0x50, 0)],
    ];
    for starts_by_kick in [false, true] {
        for order in 0..steps.len().pow(4) {
            let mut checked = Checked::new(starts_by_kick);
            steps[1..4].iter().flatten().for_each(|action| checked.act(action));
            let digits = (0..4).map(|place| order / steps.len().pow(place) % steps.len());
            digits.flat_map(|step| &steps[step]).for_each(|action| checked.act(action));
        }
    }
}
