// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A model of the transport in its window, whose rules are checked after each action.
//!
//! [`Checked::act`] performs one action of a guest, a backend or the supervisor, and panics if a rule is
//! broken. Its device panics at a call that the rules do not permit.

// A model that finds a broken rule panics.
#![allow(clippy::expect_used)]

use std::cell::RefCell;
use std::fs::File;
use std::rc::Rc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::memory::address::{GRANT_SPACE, GRANT_SPACE_END};
use crate::memory::{GuestMemory, Ring};
use crate::state::Record;
use crate::virtio_mmio::Width;
use crate::virtio_mmio::registers::{CONFIG, Register};
use crate::virtio_mmio::{Device, Identity, Lost, State, features, status};
use crate::window::{StateStore, Window};

const QUEUES: u16 = 2;
const QUEUE_SIZE_MAX: u16 = 256;
const CONFIG_LENGTH: usize = 8;
const INTERRUPT_STATUS: u64 = 0x060;
pub(super) const STATUS: u64 = 0x070;
const DEMANDED: u64 = 1;

/// What can happen to a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The guest reads.
    Read(u64, Width),
    /// The guest writes.
    Write(u64, Width, u64),
    /// The driver goes on with the initialisation as it should: so that deep states are reached.
    Initialise,
    /// A kick came in that the kernel took.
    KickEarly(u16),
    /// The backend has used buffers of a queue, up to this index.
    Use(u16, u16),
    /// The backend is lost.
    Lose,
    /// The backend has another configuration, all of this byte.
    Configure(u8),
    /// Another backend comes, which has not the features of these bits, and has a configuration all of this
    /// byte.
    Backend(u64, u8),
    /// From now on the device refuses to be started, or does not.
    Refuse(bool),
    /// The process is replaced, and another transport takes up the state.
    Replace,
}

/// What the device is at, and what it was asked.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) is_running: bool,
    queues: Vec<u16>,
    used: [u16; QUEUES as usize],
    /// What drivers may choose from.
    offered: u64,
    refuses: bool,
    pub(super) interrupts: usize,
    starts: usize,
}

impl Seen {
    fn check_ring(&self, ring: &Ring) {
        assert!(
            ring.index < QUEUES && !self.queues.contains(&ring.index),
            "{ring:?} beside {:?}",
            self.queues
        );
        assert!(ring.size.is_power_of_two() && ring.size <= QUEUE_SIZE_MAX, "{ring:?}");
        for part in ring.parts() {
            let (start, end) = part.pages();
            assert!(GRANT_SPACE <= start && start < end && end <= GRANT_SPACE_END, "{ring:?}");
            assert!((start..end).contains(&part.start()), "{ring:?}");
        }
    }

    fn begin(&mut self, accepted: u64, rings: &[Ring]) -> Result<(), Lost> {
        assert!(!self.is_running, "started twice");
        assert_eq!(features::check(self.offered, DEMANDED, accepted), Ok(()));
        self.is_running = true;
        self.starts += 1;
        for ring in rings {
            self.check_ring(ring);
            self.queues.push(ring.index);
        }
        self.answer()
    }

    /// Moves a used index.
    fn advance(&mut self, queue: u16, to: u16) {
        if let Some(used) = self.used.get_mut(usize::from(queue)) {
            *used = to;
        }
    }

    fn answer(&self) -> Result<(), Lost> {
        if self.refuses { Err(Lost) } else { Ok(()) }
    }
}

/// A device that insists on being used as [`Device`] says.
#[derive(Clone, Debug, Default)]
pub(super) struct Strict(pub(super) Rc<RefCell<Seen>>);

impl Strict {
    /// A stopped device that offers `features`.
    pub(super) fn offering(features: u64) -> Self {
        Self(Rc::new(RefCell::new(Seen { offered: features, ..Seen::default() })))
    }
}

impl Device for Strict {
    fn start(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        self.0.borrow_mut().begin(features, rings)
    }

    fn resume(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        self.0.borrow_mut().begin(features, rings)
    }

    fn stop(&mut self) {
        let mut seen = self.0.borrow_mut();
        seen.is_running = false;
        seen.queues.clear();
        seen.used = Default::default();
    }

    fn clear_inflight(&mut self, queue: Option<u16>) -> Result<(), Lost> {
        let seen = self.0.borrow();
        assert_eq!(seen.is_running, queue.is_some(), "{queue:?}");
        assert!(queue.is_none_or(|queue| !seen.queues.contains(&queue)), "{queue:?}");
        Ok(())
    }

    fn abandon(&mut self) -> Vec<Option<u16>> {
        let mut seen = self.0.borrow_mut();
        let used =
            (0..QUEUES).zip(seen.used).map(|(queue, used)| seen.queues.contains(&queue).then_some(used));
        let used = used.collect();
        seen.queues.clear();
        used
    }

    fn start_queue(&mut self, ring: &Ring) -> Result<(), Lost> {
        let mut seen = self.0.borrow_mut();
        assert!(seen.is_running, "{ring:?} of a device that does not run");
        seen.check_ring(ring);
        seen.queues.push(ring.index);
        seen.answer()
    }

    fn stop_queue(&mut self, queue: u16) -> Result<(), Lost> {
        let mut seen = self.0.borrow_mut();
        assert!(seen.queues.contains(&queue), "queue {queue} does not run");
        seen.queues.retain(|&running| running != queue);
        if let Some(used) = seen.used.get_mut(usize::from(queue)) {
            *used = 0;
        }
        Ok(())
    }

    fn kick(&mut self, queue: u16) {
        let seen = self.0.borrow();
        assert!(seen.is_running && queue < QUEUES, "kick of queue {queue}: {seen:?}");
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        let end = usize::try_from(offset).ok().and_then(|start| start.checked_add(bytes.len()));
        assert!(end.is_some_and(|end| end <= CONFIG_LENGTH), "{} bytes at {offset}", bytes.len());
        self.0.borrow().answer()?;
        Ok(bytes.first().map(|&byte| vec![byte; CONFIG_LENGTH]))
    }

    fn used_index(&self, queue: u16) -> Option<u16> {
        let seen = self.0.borrow();
        seen.queues.contains(&queue).then(|| seen.used.get(usize::from(queue)).copied()).flatten()
    }

    fn interrupt(&mut self) {
        self.0.borrow_mut().interrupts += 1;
    }
}

/// What the device offers with a backend that lacks nothing.
fn all_features() -> u64 {
    features::offered(1 | features::EVENT_IDX, 1, &GuestMemory::Granted)
}

pub(super) fn identity(starts_by_kick: bool) -> Identity {
    Identity {
        name: "model".into(),
        device_id: 34,
        demanded_features: DEMANDED,
        starts_by_kick,
        queues: QUEUES,
        queue_size_max: QUEUE_SIZE_MAX,
        memory: GuestMemory::Granted,
    }
}

/// An empty record, and a store for it.
fn record() -> (File, StateStore) {
    let file = File::from(memfd_create("state", MemfdFlags::empty()).expect("a memfd"));
    let (record, _) = Record::open::<State>(file.try_clone().expect("a file")).expect("a file");
    (file, StateStore::new(record))
}

/// A window that is checked.
#[derive(Debug)]
pub struct Checked {
    starts_by_kick: bool,
    window: Window<Strict>,
    device: Strict,
    /// The state record.
    record: File,
    fresh: State,
    /// How often its device was started, to see whether a test comes that far.
    pub starts: usize,
}

impl Checked {
    /// One in reset, of a type whose drivers kick early or not.
    #[must_use]
    pub fn new(starts_by_kick: bool) -> Self {
        let device = Strict::offering(all_features());
        let (record, store) = record();
        let config = vec![0; CONFIG_LENGTH];
        let window =
            Window::new(identity(starts_by_kick), all_features(), config, device.clone(), Some(store));
        let fresh = window.state();
        Self { starts_by_kick, window, device, record, fresh, starts: 0 }
    }

    /// Lets `action` happen, and checks what became of it.
    pub fn act(&mut self, action: &Action) {
        let (state, interrupts) = (self.window.state(), self.device.0.borrow().interrupts);
        match *action {
            Action::Read(offset, width) => self.read(offset, width, &state),
            Action::Write(offset, width, value) => self.write(offset, width, value, &state),
            Action::Initialise => self.initialise(),
            Action::KickEarly(queue) => self.window.kicked_early(queue),
            Action::Use(queue, used) => self.device.0.borrow_mut().advance(queue, used),
            Action::Lose => self.window.device_lost(),
            Action::Configure(byte) => self.window.config_changed(vec![byte; CONFIG_LENGTH]),
            Action::Backend(lacks, byte) => {
                let offered = features::offered((1 | features::EVENT_IDX) & !lacks, 1, &GuestMemory::Granted);
                self.device.0.borrow_mut().offered = offered;
                self.window.backend_replaced(offered, vec![byte; CONFIG_LENGTH]);
            }
            Action::Refuse(refuses) => self.device.0.borrow_mut().refuses = refuses,
            Action::Replace => return self.replace(),
        }
        let after = self.window.state();
        let stored = Record::peek::<State>(&self.record).expect("a file").value();
        assert!(after == stored.unwrap_or_else(|| self.fresh.clone()), "the state is not stored");
        let has_notified = self.device.0.borrow().interrupts != interrupts;
        assert!(!has_notified || after.status.has(status::DRIVER_OK), "notified before DRIVER_OK");
        // To initialise is to reset first.
        if *action != Action::Initialise {
            let must_know = status::DRIVER_OK.with(status::NEEDS_RESET);
            let is_news = after.status.has(must_know) && !state.status.has(must_know);
            assert!(!is_news || has_notified, "a driver that is not told: {state:?}, {after:?}");
            let keeps_bits = after.status.has(state.status) || after == self.reset(&after);
            assert!(keeps_bits, "{state:?}, {after:?}");
        }
        self.check();
    }

    fn check(&mut self) {
        let state = self.window.state();
        assert_eq!(state.check(&identity(self.starts_by_kick)), Ok(()), "{state:?}");
        let mut seen = self.device.0.borrow_mut();
        assert_eq!(state.is_started, seen.is_running, "{state:?}");
        let is_due = state.status.has(status::DRIVER_OK)
            || self.starts_by_kick && state.status.has(status::FEATURES_OK);
        assert!(!seen.is_running || is_due, "{state:?}");
        self.starts += std::mem::take(&mut seen.starts);
    }

    fn read(&mut self, offset: u64, width: Width, before: &State) {
        let value = self.window.read(offset, width);
        if offset == INTERRUPT_STATUS {
            assert!(value <= 3 && (value == 0 || before.is_started || before.config_change), "{value:#x}");
        }
        assert_eq!(self.window.state(), *before, "reading changes nothing");
        let is_register = offset < CONFIG;
        if is_register
            && (width != Width::Four || Register::at(offset).is_none_or(|row| row.readable.is_none()))
        {
            assert_eq!(value, 0, "{width:?} at {offset:#x}");
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64, before: &State) {
        self.window.write(offset, width, value);
        let after = self.window.state();
        let is_register = offset < CONFIG;
        if is_register
            && (width != Width::Four || Register::at(offset).is_none_or(|row| row.writable.is_none()))
        {
            assert_eq!(after, *before, "{width:?} at {offset:#x}");
        }
        if offset == STATUS && width == Width::Four && value & u64::from(u32::MAX) == 0 {
            assert_eq!(after, self.reset(&after), "after a reset");
            assert_eq!(self.window.read(INTERRUPT_STATUS, Width::Four), 0, "after a reset");
            assert!(!self.device.0.borrow().is_running, "after a reset");
        }
    }

    /// How a device is after a reset, of whose backend `state` tells.
    fn reset(&self, state: &State) -> State {
        let State { device_features, config_generation, config, .. } = state.clone();
        State { device_features, config_generation, config, ..self.fresh.clone() }
    }

    fn initialise(&mut self) {
        let offered = self.window.state().device_features;
        let low = features::half(offered, 0);
        let high = features::half(offered, 1);
        let page = u32::try_from(GRANT_SPACE >> 32).unwrap_or_default();
        let mut script = vec![
            (STATUS, 0),
            (STATUS, 3),
            (0x024, 0),
            (0x020, low),
            (0x024, 1),
            (0x020, high),
            (STATUS, 0xb),
        ];
        for queue in 0..u32::from(QUEUES) {
            script.extend([(0x030, queue), (0x038, 64)]);
            for (register, offset) in [(0x080, 0), (0x090, 0x1000), (0x0a0, 0x2000)] {
                script.extend([(register, 0x4000 * queue + offset), (register + 4, page)]);
            }
            script.push((0x044, 1));
        }
        script.push((STATUS, 0xf));
        for (offset, value) in script {
            self.window.write(offset, Width::Four, u64::from(value));
        }
        let is_started = self.window.state().is_started;
        assert_eq!(
            is_started,
            offered & DEMANDED == DEMANDED,
            "a driver that keeps the rules has its device"
        );
    }

    /// Whatever state can be reached can be taken up.
    fn replace(&mut self) {
        let state = self.window.state();
        let former = self.device.0.borrow();
        let seen = Seen {
            used: former.used,
            offered: former.offered,
            refuses: former.refuses,
            // What needs a reset is not resumed: it is stopped when the reset comes.
            is_running: state.is_started && !state.is_live(),
            ..Seen::default()
        };
        drop(former);
        self.device = Strict(Rc::new(RefCell::new(seen)));
        let identity = identity(self.starts_by_kick);
        let (record, found) =
            Record::open::<State>(self.record.try_clone().expect("a file")).expect("a file");
        let store = Some(StateStore::new(record));
        assert_eq!(found.value().unwrap_or_else(|| self.fresh.clone()), state);
        let (window, restored) = Window::restored(identity, Some(state.clone()), self.device.clone(), store);
        self.window = window;
        assert_eq!(restored, Ok(()), "{state:?}");
        let refuses = self.device.0.borrow().refuses;
        assert!(refuses && state.is_live() || self.window.state() == state, "{state:?}");
        self.check();
    }
}
