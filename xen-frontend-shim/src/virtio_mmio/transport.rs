// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state machine behind one register window (virtio 1.3, 3.1 and 4.2).
//!
//! A register access changes the state here and nothing else. What the device has to do is returned as an
//! [`Effect`], so that the state can be stored first. No value that a guest writes can index, allocate or
//! fail beyond this device.

use log::{debug, error, warn};

use super::config_space::ConfigSpace;
use super::device::Identity;
use super::driver_state::DriverState;
use super::effect::Effect;
use super::features;
use super::queue::{Queue, QueueError};
use super::registers::{CONFIG, MAGIC, Readable, Register, VENDOR, VERSION, Writable};
use super::state::{self, RestoreError, State};
use super::status::{self, StatusWrite};
use super::width::Width;
use crate::memory::Ring;

/// The registers and the state of one virtio-mmio device.
#[derive(Debug)]
pub struct Transport {
    identity: Identity,
    /// The features that the driver may accept: those of the present backend, or of the last one.
    features: u64,
    config: ConfigSpace,
    driver: DriverState,
    /// Whether the state has changed since [`Self::take_changed`].
    is_changed: bool,
}

impl Transport {
    /// A device in reset that offers `features`.
    #[must_use]
    pub fn new(identity: Identity, features: u64, config: Vec<u8>) -> Self {
        let driver = DriverState::new(identity.queues);
        Self { identity, features, config: ConfigSpace::new(config), driver, is_changed: false }
    }

    /// A device that continues from the `state` of another transport; `None` if that cannot be read. If the
    /// state is not valid for the device, it needs a reset, and the reason is returned.
    pub fn restored(identity: Identity, state: Option<State>) -> (Self, Effect, Result<(), RestoreError>) {
        let checked = state.as_ref().map_or(Err(RestoreError::Unreadable), |state| state.check(&identity));
        let driver = match (&state, checked) {
            (Some(state), Ok(())) => DriverState::restored(state, identity.queues),
            (state, _) => DriverState::unrestorable(state.as_ref(), identity.queues),
        };
        let State { device_features: features, config, config_generation, .. } = state.unwrap_or_default();
        let config = ConfigSpace::restored(config, config_generation);
        let mut transport = Self { identity, features, config, driver, is_changed: false };
        let effect = match checked {
            Err(_) => transport.lose(),
            Ok(()) if transport.is_live() => {
                transport.driver.interrupt.resume(transport.driver.queues.len());
                Effect::Resume
            }
            Ok(()) => Effect::None,
        };
        (transport, effect, checked)
    }

    /// All that the driver has written since the last reset, for [`Self::restored`].
    #[must_use]
    pub fn state(&self) -> State {
        self.driver.state(self.identity.device_id, self.features, &self.config)
    }

    /// Whether [`Self::state`] may have changed since the last call. Kicks and acknowledgements of used
    /// buffers do not change it.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Makes the next [`Self::take_changed`] true, since the state could not be stored.
    pub fn set_changed(&mut self) {
        self.is_changed = true;
    }

    /// The name of the device in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// The features that the driver has accepted.
    #[must_use]
    pub fn driver_features(&self) -> u64 {
        self.driver.driver_features
    }

    /// Whether the device is started and does not need a reset.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.driver.is_live()
    }

    /// The rings of the queues that are ready. The error of the first that is not sound.
    pub fn rings(&self) -> Result<Vec<Ring>, QueueError> {
        state::rings(&self.driver.queues, &self.identity)
    }

    /// The ring of one queue.
    pub fn ring(&self, index: u16) -> Result<Ring, QueueError> {
        let queue = self.driver.queues.get(usize::from(index)).copied().unwrap_or_default();
        queue.ring(index, self.identity.queue_size_max, &self.identity.memory)
    }

    /// A guest reads a register or the configuration. `used` is the used index of a queue, if it runs.
    pub fn read(&mut self, offset: u64, width: Width, used: impl Fn(u16) -> Option<u16>) -> u64 {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.config.read(offset, width);
        }
        // 4.2.2.2: the driver must use 32 bit wide and aligned accesses.
        let register = Register::at(offset).filter(|_| width == Width::Four);
        let register = register.and_then(|register| register.readable);
        register.map_or(0, |register| u64::from(self.read_register(register, used)))
    }

    /// A guest writes a register or the configuration.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Effect {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.write_config(offset, width, value);
        }
        let register = Register::at(offset).filter(|_| width == Width::Four);
        let register = register.and_then(|register| register.writable);
        match (register, u32::try_from(value & u64::from(u32::MAX))) {
            (Some(register), Ok(value)) => self.write_register(register, value),
            _ => Effect::None,
        }
    }

    /// The device cannot continue: it needs a reset (2.1.2). What it has used before stays to be
    /// acknowledged.
    pub fn lose(&mut self) -> Effect {
        if self.driver.status.has(status::NEEDS_RESET) {
            return Effect::None;
        }
        self.is_changed = true;
        self.driver.status = self.driver.status.with(status::NEEDS_RESET);
        Effect::Abandon { notify: self.notify() == Effect::Notify }
    }

    /// The device has stopped a queue, with this used index. The queue may start again.
    pub fn queue_stopped(&mut self, index: u16, used: Option<u16>) {
        self.driver.interrupt.stop(usize::from(index), used);
    }

    /// The guest has ended, which resets the device.
    pub fn guest_gone(&mut self) -> Effect {
        self.reset()
    }

    /// Another backend offers `features` and has the configuration `config`. A driver that continues without
    /// a reset must find the features that it has accepted and, if it uses the device, the configuration. A
    /// driver that comes later finds what there is now.
    pub fn backend_replaced(&mut self, features: u64, config: Vec<u8>) -> Effect {
        self.is_changed = true;
        self.features = features;
        let is_other = self.config.replace(config);
        if let Some(reason) = self.driver.conflict(features, is_other) {
            error!("{}: the new backend has {reason}; the device needs a reset", self.name());
            self.lose()
        } else if is_other {
            self.notify()
        } else {
            Effect::None
        }
    }

    /// The backend has a new configuration.
    pub fn config_changed(&mut self, bytes: Vec<u8>) -> Effect {
        if self.config.replace(bytes) {
            self.is_changed = true;
            self.notify()
        } else {
            Effect::None
        }
    }

    /// The backend has the configuration `bytes` after a write of the driver, which needs no notification.
    pub fn config_written(&mut self, bytes: Vec<u8>) {
        self.is_changed |= self.config.replace(bytes);
    }

    /// The configuration change notification (2.3), if the driver has set DRIVER_OK.
    fn notify(&mut self) -> Effect {
        if !self.driver.status.has(status::DRIVER_OK) {
            return Effect::None;
        }
        self.is_changed = true;
        self.driver.interrupt.config_changed();
        Effect::Notify
    }

    fn read_register(&mut self, register: Readable, used: impl Fn(u16) -> Option<u16>) -> u32 {
        let Self { identity, features, config, driver, .. } = self;
        match register {
            Readable::Magic => MAGIC,
            Readable::Version => VERSION,
            Readable::DeviceId => identity.device_id,
            Readable::VendorId => VENDOR,
            Readable::DeviceFeatures => features::half(*features, driver.device_features_select),
            Readable::QueueSizeMax => driver.selected().map_or(0, |_| u32::from(identity.queue_size_max)),
            Readable::QueueReady => driver.selected().map_or(0, |queue| u32::from(queue.is_ready())),
            // A queue is reset when the write returns, so that no driver can see the reset in progress
            // (2.6.1).
            Readable::QueueReset => 0,
            Readable::InterruptStatus => {
                driver.interrupt.status(|queue| u16::try_from(queue).ok().and_then(&used))
            }
            Readable::Status => driver.status.bits(),
            // 4.2.2.1: a region that does not exist has a length and a base of all ones.
            Readable::SharedMemory => u32::MAX,
            Readable::ConfigGeneration => config.generation(),
        }
    }

    fn write_register(&mut self, register: Writable, value: u32) -> Effect {
        match register {
            Writable::QueueNotify => return self.kick(value),
            Writable::InterruptAcknowledge => self.acknowledge(value),
            Writable::Status => return self.set_status(value),
            Writable::QueueReady => return self.set_queue_ready(value),
            Writable::QueueReset => return self.reset_queue(value),
            Writable::SharedMemorySelect => {}
            Writable::Field(field) => self.is_changed |= self.driver.set(field, value),
        }
        Effect::None
    }

    fn acknowledge(&mut self, bits: u32) {
        let interrupt = &mut self.driver.interrupt;
        let was_pending = interrupt.has_config_changed();
        interrupt.acknowledge(bits);
        self.is_changed |= was_pending != interrupt.has_config_changed();
    }

    fn set_queue_ready(&mut self, value: u32) -> Effect {
        let is_started = self.driver.is_started;
        let may_restart = self.is_live() && self.driver.has_accepted(features::RING_RESET);
        let Some((index, queue)) = self.driver.selected_mut() else { return Effect::None };
        let effect = match (value, queue.is_ready()) {
            (1, false) if !is_started => {
                queue.set_ready(true);
                Effect::None
            }
            // 3.1.1 sets queues up before DRIVER_OK; after it, only a queue that has been reset (2.6.1.2).
            (1, false) if may_restart && !queue.is_spent() => {
                queue.set_ready(true);
                Effect::StartQueue(index)
            }
            (0, true) if is_started => {
                queue.spend();
                self.stop_queue(index)
            }
            (0, true) => {
                queue.set_ready(false);
                Effect::None
            }
            _ => return Effect::None,
        };
        self.is_changed = true;
        effect
    }

    /// QueueReset (2.6.1.1): the queue loses its place in the ring and its description.
    fn reset_queue(&mut self, value: u32) -> Effect {
        if value != 1 || !self.driver.has_accepted(features::RING_RESET) {
            return Effect::None;
        }
        let is_started = self.driver.is_started;
        self.is_changed = true;
        let Some((index, queue)) = self.driver.selected_mut() else { return Effect::None };
        let was_ready = std::mem::take(queue).is_ready();
        if was_ready && is_started { self.stop_queue(index) } else { Effect::None }
    }

    /// The queue is not ready any more: the device must not access it (4.2.2.1).
    fn stop_queue(&self, index: u16) -> Effect {
        if self.is_live() { Effect::StopQueue(index) } else { Effect::None }
    }

    /// QueueNotify.
    fn kick(&mut self, value: u32) -> Effect {
        let Ok(queue) = u16::try_from(value) else { return Effect::None };
        match self.start_by_kick(queue, Some(queue)) {
            Effect::None if self.is_live() && queue < self.identity.queues => Effect::Kick(queue),
            effect => effect,
        }
    }

    /// Whether a kick can start the device at any time.
    #[must_use]
    pub fn starts_by_kick(&self) -> bool {
        self.identity.starts_by_kick
    }

    /// Whether a kick would start the device now.
    #[must_use]
    pub fn awaits_early_kick(&self) -> bool {
        let DriverState { status, is_started, .. } = &self.driver;
        let is_over = status.has(status::FAILED) || status.has(status::NEEDS_RESET);
        self.identity.starts_by_kick && status.has(status::FEATURES_OK) && !is_over && !is_started
    }

    /// The driver has kicked `queue` by its eventfd, perhaps before DRIVER_OK. The backend reads the eventfd,
    /// so it needs no other kick.
    pub fn kicked_early(&mut self, queue: u16) -> Effect {
        self.start_by_kick(queue, None)
    }

    fn start_by_kick(&mut self, queue: u16, kick: Option<u16>) -> Effect {
        let is_ready = self.driver.queues.get(usize::from(queue)).is_some_and(Queue::is_ready);
        if !self.awaits_early_kick() || !is_ready {
            return Effect::None;
        }
        debug!("{}: kicked before DRIVER_OK", self.name());
        self.start(kick)
    }

    fn set_status(&mut self, value: u32) -> Effect {
        let wanted = match StatusWrite::from(value) {
            StatusWrite::Reset => return self.reset(),
            StatusWrite::Set(wanted) => wanted,
        };
        let mut effect = Effect::None;
        while let Some(step) = self.driver.status.next_step(wanted) {
            if step == status::FEATURES_OK && !self.accepts_features() {
                break;
            }
            self.driver.status = self.driver.status.with(step);
            self.is_changed = true;
            if step == status::DRIVER_OK {
                effect = self.driver_ok();
            }
        }
        effect
    }

    /// DRIVER_OK starts the device. A driver whose device failed before is notified now.
    fn driver_ok(&mut self) -> Effect {
        if self.driver.status.has(status::NEEDS_RESET) { self.notify() } else { self.start(None) }
    }

    fn accepts_features(&mut self) -> bool {
        let demanded = self.identity.demanded_features;
        let check = features::check(self.features, demanded, self.driver.driver_features);
        if let Err(refusal) = check {
            warn!("{}: {refusal}", self.name());
        }
        check.is_ok()
    }

    fn start(&mut self, kick: Option<u16>) -> Effect {
        let driver = &mut self.driver;
        if driver.is_started || driver.status.has(status::NEEDS_RESET) {
            return Effect::None;
        }
        self.is_changed = true;
        driver.is_started = true;
        driver.interrupt.start(driver.queues.len());
        Effect::Start { kick }
    }

    /// Virtio 1.3, 2.4. The status reads 0 only when the device has stopped, which is before the write
    /// returns.
    fn reset(&mut self) -> Effect {
        self.is_changed = true;
        let former = std::mem::replace(&mut self.driver, DriverState::new(self.identity.queues));
        if former.is_started { Effect::Stop } else { Effect::None }
    }

    fn write_config(&mut self, offset: u64, width: Width, value: u64) -> Effect {
        // 3.1.1: a driver may read the configuration before the features are negotiated, and must not write
        // it.
        match u32::try_from(offset) {
            Ok(start)
                if self.driver.status.has(status::FEATURES_OK) && self.config.contains(offset, width) =>
            {
                Effect::WriteConfig { offset: start, value, width }
            }
            _ => Effect::None,
        }
    }
}
