// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device in its window: the transport, the device behind it, and the store of its state.
//!
//! ```text
//!   register access ──▶ Transport: decide ──▶ Effect ──▶ store the state ──▶ Device: act
//! ```
//!
//! **What the driver has written is stored before the device acts on it**, and both before the access is
//! answered. A worker that continues after this one finds a start in the record and resumes, so that no
//! request is carried out twice. [`Window::perform`] is the only place of this rule.

use log::{debug, error, warn};

use crate::memory::Ring;
use crate::state::{Record, WriteError};
use crate::virtio_mmio::queue::QueueError;
use crate::virtio_mmio::{Device, Effect, Identity, Lost, RestoreError, State, Transport, Width};

/// Stores the state of a transport where it survives this process.
#[derive(Debug)]
pub struct StateStore(Record);

impl StateStore {
    /// Stores states in `record`.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self(record)
    }

    /// Writes `state`. If this fails the record is invalid: a worker that continued from the former state
    /// would use queues that the driver has given other memory, or carry out requests twice.
    fn store(&mut self, state: &State) -> Result<(), WriteError> {
        let written = self.0.write(state);
        if written.is_err()
            && let Err(error) = self.0.invalidate()
        {
            error!("a state record is out of date and cannot be invalidated: {error}");
        }
        written
    }
}

/// A transport with its device.
#[derive(Debug)]
pub struct Window<D> {
    transport: Transport,
    device: D,
    /// `None` in tests that need no other process.
    store: Option<StateStore>,
}

impl<D: Device> Window<D> {
    /// A device in reset that offers `features`.
    pub fn new(
        identity: Identity,
        features: u64,
        config: Vec<u8>,
        device: D,
        store: Option<StateStore>,
    ) -> Self {
        Self { transport: Transport::new(identity, features, config), device, store }
    }

    /// A device that continues from the `state` of another worker; `None` if that cannot be read. If the
    /// state is not valid for the device, it needs a reset, and the reason is returned.
    pub fn restored(
        identity: Identity,
        state: Option<State>,
        device: D,
        store: Option<StateStore>,
    ) -> (Self, Result<(), RestoreError>) {
        let (transport, effect, restored) = Transport::restored(identity, state);
        let mut window = Self { transport, device, store };
        window.perform(effect);
        (window, restored)
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// The registers.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// All that the driver has written since the last reset.
    pub fn state(&self) -> State {
        self.transport.state()
    }

    /// Reads the register or configuration at `offset`.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        let Self { transport, device, .. } = self;
        transport.read(offset, width, |queue| device.used_index(queue))
    }

    /// Writes the register or configuration at `offset`.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) {
        let effect = self.transport.write(offset, width, value);
        self.perform(effect);
    }

    /// The driver has kicked `queue` by its eventfd, which starts a device of some types.
    pub fn kicked_early(&mut self, queue: u16) {
        let effect = self.transport.kicked_early(queue);
        self.perform(effect);
    }

    /// The backend has a new configuration.
    pub fn config_changed(&mut self, config: Vec<u8>) {
        let effect = self.transport.config_changed(config);
        self.perform(effect);
    }

    /// There is another backend, which offers `features` and has the configuration `config`.
    pub fn backend_replaced(&mut self, features: u64, config: Vec<u8>) {
        let effect = self.transport.backend_replaced(features, config);
        self.perform(effect);
    }

    /// The guest has ended, which resets the device.
    pub fn guest_gone(&mut self) {
        let effect = self.transport.guest_gone();
        self.perform(effect);
    }

    /// The device cannot continue: its driver has to reset it.
    pub fn device_lost(&mut self) {
        let effect = self.transport.lose();
        // If the state cannot be stored either, it is stored with the next change.
        let _ = self.store();
        // Effects of a lost device do not fail.
        let _ = self.apply(effect);
    }

    /// Stores what has been decided, then has the device act on it. A device that cannot do so is lost.
    fn perform(&mut self, effect: Effect) {
        let stored = self.prepare(effect).and_then(|()| self.store());
        // The guest takes its memory back after a stop, so a stop does not depend on the store.
        let is_stop = matches!(effect, Effect::Stop | Effect::StopQueue(_) | Effect::Abandon { .. });
        let applied = if stored.is_ok() || is_stop { self.apply(effect) } else { Ok(()) };
        if stored.and(applied).and_then(|()| self.store()) == Err(Lost) {
            self.device_lost();
        }
    }

    /// Clears the in-flight record of what starts from the beginning. This precedes the store: a stored start
    /// may have been carried out, and its in-flight record counts.
    fn prepare(&mut self, effect: Effect) -> Result<(), Lost> {
        match effect {
            Effect::Start { .. } => self.device.clear_inflight(None),
            Effect::StartQueue(queue) => self.device.clear_inflight(Some(queue)),
            _ => Ok(()),
        }
    }

    /// Stores the state if it has changed. A device whose state cannot be stored must not act on it: another
    /// worker would continue from an older state.
    fn store(&mut self) -> Result<(), Lost> {
        if !self.transport.take_changed() {
            return Ok(());
        }
        let Some(store) = &mut self.store else { return Ok(()) };
        store.store(&self.transport.state()).map_err(|error| {
            self.transport.set_changed();
            error!("{}: the state record cannot be written: {error}", self.transport.name());
            Lost
        })
    }

    fn apply(&mut self, effect: Effect) -> Result<(), Lost> {
        match effect {
            Effect::None => {}
            Effect::Start { kick } => self.start(kick)?,
            Effect::Resume => {
                let rings = self.valid_rings(Transport::rings)?;
                self.device.resume(self.transport.driver_features(), &rings)?;
                debug!("{}: resumed", self.transport.name());
                self.device.interrupt();
            }
            Effect::Stop => {
                self.device.stop();
                debug!("{}: stopped", self.transport.name());
            }
            Effect::StartQueue(queue) => {
                let ring = self.valid_rings(|transport| transport.ring(queue))?;
                self.device.start_queue(&ring)?;
            }
            Effect::StopQueue(queue) => {
                self.transport.queue_stopped(queue, self.device.used_index(queue));
                self.device.stop_queue(queue)?;
            }
            Effect::Kick(queue) => self.device.kick(queue),
            Effect::WriteConfig { offset, value, width } => self.write_config(offset, value, width)?,
            Effect::Notify => self.device.interrupt(),
            Effect::Abandon { notify } => self.abandon(notify),
        }
        Ok(())
    }

    fn start(&mut self, kick: Option<u16>) -> Result<(), Lost> {
        let rings: Vec<Ring> = self.valid_rings(Transport::rings)?;
        let features = self.transport.driver_features();
        self.device.start(features, &rings)?;
        debug!("{}: started with features {features:#x}", self.transport.name());
        kick.into_iter().for_each(|queue| self.device.kick(queue));
        Ok(())
    }

    fn write_config(&mut self, offset: u32, value: u64, width: Width) -> Result<(), Lost> {
        let bytes = value.to_le_bytes();
        if let Some(config) =
            self.device.write_config(offset, bytes.get(..width.bytes()).unwrap_or_default())?
        {
            self.transport.config_written(config);
        }
        Ok(())
    }

    fn abandon(&mut self, notify: bool) {
        for (queue, used) in (0..).zip(self.device.abandon()) {
            self.transport.queue_stopped(queue, used);
        }
        if notify {
            self.device.interrupt();
        }
    }

    /// The rings of the transport. Fails if the driver has described them wrongly.
    fn valid_rings<T>(&self, rings: impl FnOnce(&Transport) -> Result<T, QueueError>) -> Result<T, Lost> {
        rings(&self.transport).map_err(|error| {
            warn!("{}: {error}", self.transport.name());
            Lost
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;
    use crate::state::Found;
    use crate::virtio_mmio::tests::test_driver::{Driver, FEATURES, Recorder, identity};

    const STATUS: u64 = 0x70;

    #[test]
    fn device_whose_state_cannot_be_stored_is_not_started() {
        let file = File::from(memfd_create("state", MemfdFlags::ALLOW_SEALING).unwrap());
        let (record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        let (device, store) = (Recorder::default(), Some(StateStore::new(record)));
        let mut window = Window::new(identity(), FEATURES, Vec::new(), device.clone(), store);
        let mut write = |offset, value| {
            window.write(offset, Width::Four, value);
            window.read(STATUS, Width::Four)
        };
        write(STATUS, 3);
        write(0x24, 1);
        write(0x20, FEATURES >> 32);
        write(0x24, 0);
        write(0x20, FEATURES & 0xffff_ffff);
        assert_eq!(write(STATUS, 0xb), 0xb);
        fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
        assert_eq!(write(STATUS, 0xf), 0x4f, "DEVICE_NEEDS_RESET");
        assert!(device.0.borrow().started.is_empty());
        // The record cannot even be invalidated. It has the state before that access.
        let stored = Record::peek::<State>(&file).unwrap().value();
        assert_eq!(stored.map(|state| state.status.bits()), Some(0xb));
    }

    /// The guest takes its memory back after a reset.
    #[test]
    fn device_whose_reset_cannot_be_stored_is_stopped() {
        let file = File::from(memfd_create("state", MemfdFlags::ALLOW_SEALING).unwrap());
        let (record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        let mut driver = Driver::new();
        driver.window.store = Some(StateStore::new(record));
        driver.probe();
        fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
        driver.write(0x70, 0);
        assert_eq!(driver.log().stops, 1);
        assert_eq!(driver.read(0x70), 0x40, "DEVICE_NEEDS_RESET");
    }

    #[test]
    fn device_lost_without_a_stored_state_is_abandoned() {
        let file = File::from(memfd_create("state", MemfdFlags::ALLOW_SEALING).unwrap());
        let (record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        let mut driver = Driver::new();
        driver.window.store = Some(StateStore::new(record));
        driver.probe();
        fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
        driver.window.backend_replaced(0, vec![0; 8]);
        let log = driver.log();
        assert_eq!((log.abandoned, log.interrupts), (1, 1));
    }

    #[test]
    fn acknowledgement_of_used_buffers_stores_nothing() {
        let file = tempfile::tempfile().unwrap();
        let (record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        let mut driver = Driver::new();
        driver.window.store = Some(StateStore::new(record));
        driver.probe();
        driver.window.config_changed(vec![0; 8]);
        let content = || {
            let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let before = content();
        driver.write(0x64, 1);
        assert!(content() == before, "a configuration change is still pending");
        driver.write(0x64, 2);
        assert!(content() != before);
    }

    #[test]
    fn state_that_cannot_be_stored_leaves_no_older_record() {
        let file = tempfile::tempfile().unwrap();
        let (record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        let store = Some(StateStore::new(record));
        let mut window = Window::new(identity(), FEATURES, vec![0; 8], Recorder::default(), store);
        window.write(STATUS, Width::Four, 1);
        assert!(matches!(Record::peek::<State>(&file).unwrap(), Found::Value(_)));
        // A state of more bytes than a record holds.
        window.backend_replaced(FEATURES, vec![0; 5000]);
        window.write(STATUS, Width::Four, 3);
        assert_eq!(window.read(STATUS, Width::Four), 0x43, "DEVICE_NEEDS_RESET");
        assert_eq!(Record::peek::<State>(&file).unwrap(), Found::Damaged);
    }
}
