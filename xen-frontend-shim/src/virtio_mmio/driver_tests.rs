// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The transport as a driver sees it: Linux's probe sequence step by step, and the rules that a driver may break.

use std::cell::RefCell;
use std::rc::Rc;

use super::features::{ACCESS_PLATFORM, VERSION_1};
use super::interrupt::{CONFIG_CHANGE, USED_BUFFER};
use super::{Device, Identity, Lost, Transport};
use crate::ioreq::Width;
use crate::memory::Ring;

const FEATURES: u64 = VERSION_1 | ACCESS_PLATFORM | 1 << 29 | 1;

/// What the transport asked of its device.
#[derive(Debug, Default)]
struct Log {
    started: Vec<(u64, Vec<Ring>)>,
    stops: usize,
    stopped_queues: Vec<u16>,
    kicks: Vec<u16>,
    interrupts: usize,
    used: [u16; 2],
    refuse_start: bool,
}

#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Log>>);

impl Device for Recorder {
    fn start(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        let mut log = self.0.borrow_mut();
        log.started.push((features, rings.to_vec()));
        if log.refuse_start { Err(Lost) } else { Ok(()) }
    }

    fn stop(&mut self) {
        self.0.borrow_mut().stops += 1;
    }

    fn stop_queue(&mut self, queue: u16) -> Result<(), Lost> {
        self.0.borrow_mut().stopped_queues.push(queue);
        Ok(())
    }

    fn kick(&mut self, queue: u16) {
        self.0.borrow_mut().kicks.push(queue);
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        Ok((offset == 4).then(|| [&[1, 2, 3, 4], bytes].concat()))
    }

    fn used_index(&self, queue: u16) -> Option<u16> {
        self.0.borrow().used.get(usize::from(queue)).copied()
    }

    fn interrupt(&mut self) {
        self.0.borrow_mut().interrupts += 1;
    }
}

/// A driver that uses 32 bit accesses, as drivers must.
struct Driver {
    transport: Transport<Recorder>,
    device: Recorder,
}

impl Driver {
    fn new() -> Self {
        Self::of_type(false)
    }

    fn of_type(starts_by_kick: bool) -> Self {
        let device = Recorder::default();
        let identity = Identity {
            name: "guest/device".into(),
            device_id: 34,
            features: FEATURES,
            demanded_features: 1,
            starts_by_kick,
            queues: 2,
            queue_size_max: 256,
        };
        let transport = Transport::new(identity, vec![1, 2, 3, 4, 5, 6, 7, 8], device.clone());
        Self { transport, device }
    }

    fn read(&mut self, offset: u64) -> u32 {
        u32::try_from(self.transport.read(offset, Width::Four)).expect("32 bits")
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, Width::Four, u64::from(value));
    }

    fn take_features(&mut self, features: u64) {
        // As Linux does, the upper half first.
        self.write(0x24, 1);
        self.write(0x20, u32::try_from(features >> 32).expect("32 bits"));
        self.write(0x24, 0);
        self.write(0x20, u32::try_from(features & 0xffff_ffff).expect("32 bits"));
    }

    fn describe_queue(&mut self, queue: u32, page: u32) {
        self.write(0x30, queue);
        assert_eq!(self.read(0x44), 0, "the queue must not be in use");
        assert_eq!(self.read(0x34), 256);
        self.write(0x38, 64);
        for (low, offset) in [(0x80, 0), (0x90, 0x400), (0xa0, 0x1000)] {
            self.write(low, page * 4096 + offset);
            self.write(low + 4, 0x8000_0000);
        }
        self.write(0x44, 1);
    }

    fn probe(&mut self) {
        self.write(0x70, 0);
        assert_eq!(self.read(0x70), 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        self.write(0x14, 1);
        let high = self.read(0x10);
        self.write(0x14, 0);
        let low = self.read(0x10);
        self.take_features(u64::from(high) << 32 | u64::from(low));
        self.write(0x70, 0xb);
        assert_eq!(self.read(0x70), 0xb);
        self.describe_queue(0, 8);
        self.describe_queue(1, 16);
        self.write(0x70, 0xf);
        assert_eq!(self.read(0x70), 0xf);
    }

    fn log(&self) -> std::cell::RefMut<'_, Log> {
        self.device.0.borrow_mut()
    }
}

#[test]
fn linux_probes_and_uses_the_device() {
    let mut driver = Driver::new();
    assert_eq!(driver.read(0), 0x7472_6976);
    assert_eq!(driver.read(4), 2);
    assert_eq!(driver.read(8), 34);
    driver.probe();
    {
        let log = driver.log();
        let (features, rings) = &log.started[0];
        assert_eq!((*features, rings.len(), log.started.len()), (FEATURES, 2, 1));
        assert_eq!(rings[1].descriptors.first().0, 16);
        assert_eq!(rings[1].used.first().0, 17);
    }
    driver.write(0x50, 1);
    assert_eq!(driver.log().kicks, [1]);
    driver.log().used = [0, 1];
    assert_eq!(driver.read(0x60), USED_BUFFER);
    driver.write(0x64, USED_BUFFER);
    assert_eq!(driver.read(0x60), 0);
}

#[test]
fn it_can_be_unbound_and_bound_again() {
    let mut driver = Driver::new();
    for round in 1..=10 {
        driver.probe();
        assert_eq!(driver.log().started.len(), round);
        driver.write(0x70, 0);
        assert_eq!(driver.log().stops, round);
        assert_eq!(driver.read(0x70), 0);
        for queue in 0..2 {
            driver.write(0x30, queue);
            driver.write(0x44, 0);
            assert_eq!(driver.read(0x44), 0);
        }
    }
}

#[test]
fn features_ok_is_refused_and_can_be_tried_again() {
    let mut driver = Driver::new();
    driver.write(0x70, 3);
    for wrong in
        [FEATURES | 2, FEATURES & !1, FEATURES & !VERSION_1, FEATURES & !ACCESS_PLATFORM, 0, u64::MAX]
    {
        driver.take_features(wrong);
        driver.write(0x70, 0xb);
        assert_eq!(driver.read(0x70), 3, "{wrong:#x}");
    }
    driver.take_features(FEATURES);
    driver.write(0x70, 0xb);
    assert_eq!(driver.read(0x70), 0xb);
    // What was agreed stands.
    driver.take_features(0);
    driver.write(0x70, 0xf);
    assert_eq!(driver.log().started[0].0, FEATURES);
}

#[test]
fn queues_that_are_not_ready_are_left_out_and_a_broken_one_breaks_the_device() {
    let mut driver = Driver::new();
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x70, 0xb);
    driver.describe_queue(1, 16);
    driver.write(0x70, 0xf);
    assert_eq!(driver.log().started[0].1.iter().map(|ring| ring.index).collect::<Vec<_>>(), [1]);

    driver.write(0x70, 0);
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x70, 0xb);
    driver.write(0x30, 0);
    driver.write(0x44, 1);
    driver.write(0x70, 0xf);
    assert_eq!(driver.read(0x70), 0x4f, "DEVICE_NEEDS_RESET");
    assert_eq!(driver.log().started.len(), 1);
    assert_eq!(driver.read(0x60), CONFIG_CHANGE);
    driver.write(0x70, 0);
    driver.probe();
    assert_eq!(driver.log().started.len(), 2);
}

#[test]
fn a_lost_backend_shows_in_the_status_until_reset() {
    let mut driver = Driver::new();
    driver.transport.device_lost();
    assert_eq!((driver.read(0x70), driver.log().interrupts), (0x40, 0));
    driver.write(0x70, 0);
    driver.probe();
    driver.transport.device_lost();
    driver.transport.device_lost();
    assert_eq!((driver.read(0x70), driver.log().interrupts), (0x4f, 1));
    assert_eq!(driver.read(0x60), CONFIG_CHANGE);
    driver.write(0x50, 0);
    assert!(driver.log().kicks.is_empty());
    driver.write(0x70, 0);
    assert_eq!((driver.read(0x70), driver.log().stops), (0, 1));
    driver.log().refuse_start = true;
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x70, 0xf);
    assert_eq!(driver.read(0x70), 0x4f);
}

#[test]
fn queue_registers_follow_the_selection_and_answer_nothing_beyond_the_last() {
    let mut driver = Driver::new();
    for beyond in [2, 0xffff, 0x1_0000, u32::MAX] {
        driver.write(0x30, beyond);
        for offset in [0x38, 0x44, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4] {
            driver.write(offset, 1);
        }
        assert_eq!((driver.read(0x34), driver.read(0x44)), (0, 0), "queue {beyond}");
    }
    driver.probe();
    for beyond in [2, 0x1_0000, u32::MAX] {
        driver.write(0x50, beyond);
    }
    assert!(driver.log().kicks.is_empty());
    driver.write(0x30, 1);
    driver.write(0x44, 0);
    assert_eq!((driver.read(0x44), driver.log().stopped_queues.clone()), (0, vec![1]));
    driver.write(0x44, 1);
    assert_eq!(driver.read(0x44), 0, "no queue starts after DRIVER_OK");
}

#[test]
fn kicks_before_driver_ok_are_dropped() {
    let mut driver = Driver::new();
    driver.write(0x50, 0);
    driver.write(0x70, 3);
    driver.write(0x50, 0);
    assert!(driver.log().kicks.is_empty());
}

#[test]
fn registers_want_32_bit_aligned_accesses() {
    let mut driver = Driver::new();
    for width in [Width::One, Width::Two, Width::Eight] {
        assert_eq!(driver.transport.read(0, width), 0);
        driver.transport.write(0x70, width, 1);
    }
    for offset in 1..4 {
        assert_eq!(driver.read(offset), 0);
        driver.write(0x70 + offset, 1);
    }
    assert_eq!(driver.read(0x70), 0);
}

#[test]
fn write_only_and_reserved_registers_read_zero_and_writing_read_only_ones_changes_nothing() {
    let mut driver = Driver::new();
    let readable = [0, 4, 8, 0xc, 0x10, 0x34, 0x44, 0x60, 0x70, 0xb0, 0xb4, 0xb8, 0xbc, 0xfc];
    for offset in (0..0x100).step_by(4).filter(|offset| !readable.contains(offset)) {
        assert_eq!(driver.read(offset), 0, "{offset:#x}");
    }
    let before = readable.map(|offset| driver.read(offset));
    for offset in [0, 4, 8, 0xc, 0x10, 0x34, 0x60, 0xb0, 0xfc, 0xc0, 0x2c, 0x5c] {
        driver.write(offset, 0xffff_ffff);
    }
    assert_eq!(readable.map(|offset| driver.read(offset)), before);
}

#[test]
fn configuration_is_read_in_any_width_and_written_where_the_device_lets() {
    let mut driver = Driver::new();
    assert_eq!(driver.transport.read(0x101, Width::Two), 0x0302);
    assert_eq!(driver.transport.read(0x100, Width::Eight), 0x0807_0605_0403_0201);
    driver.transport.write(0x100, Width::Four, 0);
    assert_eq!((driver.read(0x100), driver.read(0xfc)), (0x0403_0201, 0));
    driver.transport.write(0x104, Width::Four, 0xaabb_ccdd);
    assert_eq!((driver.read(0x104), driver.read(0xfc)), (0xaabb_ccdd, 1));
    driver.transport.write(0x106, Width::Four, 0);
    assert_eq!(driver.read(0x104), 0xaabb_ccdd);
}

#[test]
fn a_changed_configuration_interrupts_a_live_driver() {
    let mut driver = Driver::new();
    driver.transport.config_changed(vec![9; 8]);
    assert_eq!((driver.read(0xfc), driver.log().interrupts), (1, 0));
    driver.probe();
    driver.transport.config_changed(vec![9; 8]);
    assert_eq!((driver.read(0xfc), driver.log().interrupts), (1, 0));
    driver.transport.config_changed(vec![7; 8]);
    assert_eq!((driver.read(0xfc), driver.read(0x60), driver.log().interrupts), (2, CONFIG_CHANGE, 1));
}

#[test]
fn where_drivers_are_early_a_kick_starts_the_device_once() {
    let mut driver = Driver::of_type(true);
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x50, 0);
    driver.write(0x70, 0xb);
    // Nothing is ready to be started.
    driver.write(0x50, 0);
    assert!(driver.log().started.is_empty());
    assert!(driver.log().kicks.is_empty());
    driver.describe_queue(0, 8);
    driver.write(0x50, 1);
    assert!(driver.log().started.is_empty());
    assert!(driver.transport.awaits_early_kick());
    driver.write(0x50, 0);
    assert_eq!(driver.log().started.len(), 1);
    assert_eq!(driver.log().kicks, [0]);
    assert_eq!(driver.read(0x70), 0xb);
    driver.transport.kicked_early(0);
    driver.write(0x70, 0xf);
    assert_eq!((driver.read(0x70), driver.log().started.len()), (0xf, 1));
    driver.write(0x70, 0);
    assert_eq!((driver.log().stops, driver.transport.awaits_early_kick()), (1, false));
}

#[test]
fn an_early_driver_that_resets_before_driver_ok_leaves_nothing_running() {
    let mut driver = Driver::of_type(true);
    driver.write(0x70, 3);
    driver.take_features(FEATURES);
    driver.write(0x70, 0xb);
    driver.describe_queue(0, 8);
    driver.transport.kicked_early(0);
    assert_eq!(driver.log().started.len(), 1);
    driver.write(0x70, 0);
    assert_eq!(driver.log().stops, 1);
}
