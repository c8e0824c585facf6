// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver for tests, and a device that records the calls to it.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::memory::{GuestMemory, Ring};
use crate::virtio_mmio::Width;
use crate::virtio_mmio::features::{ACCESS_PLATFORM, RING_RESET, VERSION_1};
use crate::virtio_mmio::{Device, Identity, Lost, RestoreError, State};
use crate::window::Window;

/// The features that the device offers.
pub(crate) const FEATURES: u64 = VERSION_1 | ACCESS_PLATFORM | RING_RESET | 1 << 29 | 1;

/// The calls to the device.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) started: Vec<(u64, Vec<Ring>)>,
    pub(crate) resumed: Vec<(u64, Vec<Ring>)>,
    pub(crate) stops: usize,
    pub(crate) abandoned: usize,
    pub(crate) started_queues: Vec<Ring>,
    pub(crate) stopped_queues: Vec<u16>,
    pub(crate) kicks: Vec<u16>,
    pub(crate) interrupts: usize,
    /// The queues that the device serves.
    served: BTreeSet<u16>,
    pub(crate) used: [u16; 2],
    pub(crate) refuse_start: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Recorder(pub(crate) Rc<RefCell<Log>>);

impl Device for Recorder {
    fn start(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        let mut log = self.0.borrow_mut();
        log.started.push((features, rings.to_vec()));
        log.served = rings.iter().map(|ring| ring.index).collect();
        if log.refuse_start { Err(Lost) } else { Ok(()) }
    }

    fn resume(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        let mut log = self.0.borrow_mut();
        log.resumed.push((features, rings.to_vec()));
        log.served = rings.iter().map(|ring| ring.index).collect();
        if log.refuse_start { Err(Lost) } else { Ok(()) }
    }

    fn stop(&mut self) {
        let mut log = self.0.borrow_mut();
        log.stops += 1;
        log.served.clear();
    }

    fn clear_inflight(&mut self, _: Option<u16>) -> Result<(), Lost> {
        Ok(())
    }

    fn abandon(&mut self) -> Vec<Option<u16>> {
        let mut log = self.0.borrow_mut();
        log.abandoned += 1;
        log.used.iter().copied().map(Some).collect()
    }

    fn start_queue(&mut self, ring: &Ring) -> Result<(), Lost> {
        let mut log = self.0.borrow_mut();
        log.started_queues.push(*ring);
        log.served.insert(ring.index);
        if log.refuse_start { Err(Lost) } else { Ok(()) }
    }

    fn stop_queue(&mut self, queue: u16) -> Result<(), Lost> {
        let mut log = self.0.borrow_mut();
        log.stopped_queues.push(queue);
        log.served.remove(&queue);
        Ok(())
    }

    fn kick(&mut self, queue: u16) {
        self.0.borrow_mut().kicks.push(queue);
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        Ok((offset == 4).then(|| [&[1, 2, 3, 4], bytes].concat()))
    }

    fn used_index(&self, queue: u16) -> Option<u16> {
        let log = self.0.borrow();
        log.served.contains(&queue).then(|| log.used.get(usize::from(queue)).copied()).flatten()
    }

    fn interrupt(&mut self) {
        self.0.borrow_mut().interrupts += 1;
    }
}

/// A device of two queues.
pub(crate) fn identity() -> Identity {
    Identity {
        name: "guest/device".into(),
        device_id: 34,
        demanded_features: 1,
        starts_by_kick: false,
        queues: 2,
        queue_size_max: 256,
        memory: GuestMemory::Granted,
    }
}

/// A driver that uses 32 bit accesses, as a driver must (4.2.2.2).
pub(crate) struct Driver {
    pub(crate) window: Window<Recorder>,
    pub(crate) device: Recorder,
}

impl Driver {
    pub(crate) fn new() -> Self {
        Self::of_type(false)
    }

    pub(crate) fn of_type(starts_by_kick: bool) -> Self {
        let identity = Identity { starts_by_kick, ..identity() };
        Self::with(identity, vec![1, 2, 3, 4, 5, 6, 7, 8])
    }

    pub(crate) fn with(identity: Identity, config: Vec<u8>) -> Self {
        let device = Recorder::default();
        Self { window: Window::new(identity, FEATURES, config, device.clone(), None), device }
    }

    /// The driver continues with another worker, which restores `state`.
    pub(crate) fn restored(state: State) -> Self {
        let (driver, restored) = Self::found(Some(state), |_| {});
        assert_eq!(restored, Ok(()));
        driver
    }

    /// The driver continues with another worker that finds `state`; `prepare` changes its device first.
    pub(crate) fn found(
        state: Option<State>,
        prepare: impl FnOnce(&mut Log),
    ) -> (Self, Result<(), RestoreError>) {
        Self::found_as(identity(), state, prepare)
    }

    pub(crate) fn found_as(
        identity: Identity,
        state: Option<State>,
        prepare: impl FnOnce(&mut Log),
    ) -> (Self, Result<(), RestoreError>) {
        let device = Recorder::default();
        prepare(&mut device.0.borrow_mut());
        let (window, restored) = Window::restored(identity, state, device.clone(), None);
        (Self { window, device }, restored)
    }

    pub(crate) fn read(&mut self, offset: u64) -> u32 {
        u32::try_from(self.window.read(offset, Width::Four)).expect("32 bits")
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        self.window.write(offset, Width::Four, u64::from(value));
    }

    pub(crate) fn take_features(&mut self, features: u64) {
        // As Linux does, the upper half first.
        self.write(0x24, 1);
        self.write(0x20, u32::try_from(features >> 32).expect("32 bits"));
        self.write(0x24, 0);
        self.write(0x20, u32::try_from(features & 0xffff_ffff).expect("32 bits"));
    }

    pub(crate) fn describe_queue(&mut self, queue: u32, page: u32) {
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

    pub(crate) fn probe(&mut self) {
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

    pub(crate) fn log(&self) -> RefMut<'_, Log> {
        self.device.0.borrow_mut()
    }
}
