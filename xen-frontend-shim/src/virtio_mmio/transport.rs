// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state machine behind one register window (virtio 1.3, 3.1 and 4.2).
//!
//! What a guest writes changes state here; what must happen outside of it leaves through [`Device`]. No value that
//! a guest writes can index, allocate or fail beyond this device.

use log::{debug, error, warn};

use crate::ioreq::Width;
use crate::virtio_mmio::config_space::ConfigSpace;
use crate::virtio_mmio::device::{Device, Identity, Lost};
use crate::virtio_mmio::features;
use crate::virtio_mmio::queue::Queue;
use crate::virtio_mmio::registers::{CONFIG, MAGIC, Readable, Register, VENDOR, VERSION, Writable};
use crate::virtio_mmio::session::Session;
use crate::virtio_mmio::state::{self, RestoreError, State};
use crate::virtio_mmio::status::{self, Wish};

/// One virtio-mmio device.
#[derive(Debug)]
pub struct Transport<D> {
    identity: Identity,
    /// The features that the driver may choose from: as the present backend offers them, or the last one did.
    features: u64,
    config: ConfigSpace,
    session: Session,
    revision: u64,
    due: Option<Due>,
    device: D,
}

/// What the driver has started, and the device not yet: see [`Transport::carry_out`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The device, by a kick of a queue if there was one.
    Device(Option<u16>),
    /// A queue, after its reset.
    Queue(u16),
}

impl<D: Device> Transport<D> {
    /// A device in reset, which offers `features`.
    pub fn new(identity: Identity, features: u64, config: Vec<u8>, device: D) -> Self {
        let session = Session::new(identity.queues);
        let config = ConfigSpace::new(config);
        Self { identity, features, config, session, revision: 0, due: None, device }
    }

    /// A device that goes on where another transport was, whose `state` this is, if it could be read. One that cannot needs a
    /// reset; if that is the state's fault, the reason is returned. The driver sees the status that it knows, and the
    /// notification that 2.1.2 demands.
    pub fn restored(identity: Identity, state: Option<State>, device: D) -> (Self, Result<(), RestoreError>) {
        let checked = state.as_ref().map_or(Err(RestoreError::Unreadable), |state| state.check(&identity));
        let session = match (&state, checked) {
            (Some(state), Ok(())) => Session::restored(state, identity.queues),
            (state, _) => Session::unrestorable(state.as_ref(), identity.queues),
        };
        let State { device_features, config, config_generation, .. } = state.unwrap_or_default();
        let mut transport = Self::new(identity, device_features, Vec::new(), device);
        (transport.session, transport.config) = (session, ConfigSpace::restored(config, config_generation));
        if checked.is_err() {
            transport.device_lost();
        } else if transport.session.is_live() {
            transport.change(Self::resume);
        }
        (transport, checked)
    }

    fn resume(&mut self) {
        let Session { queues, interrupt, driver_features, .. } = &mut self.session;
        let Ok(rings) = state::rings(queues, self.identity.queue_size_max) else { return self.device_lost() };
        interrupt.resume(queues.len());
        if self.device.resume(*driver_features, &rings).is_err() {
            return self.device_lost();
        }
        debug!("{}: resumed with features {:#x}", self.identity.name, self.session.driver_features);
        self.device.interrupt();
    }

    /// All that the driver has said since the last reset, for [`Self::restored`].
    pub fn state(&self) -> State {
        self.session.state(self.identity.device_id, self.features, &self.config)
    }

    /// A number that changes whenever [`Self::state`] does. Kicks and the acknowledgement of used buffers leave it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Does what may change the state, and counts it if it did.
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.state();
        change(self);
        if self.state() != before {
            self.revision = self.revision.wrapping_add(1);
        }
    }

    /// What stands behind the registers.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// What stands behind the registers.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// A guest reads.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.config.read(offset, width);
        }
        // 4.2.2.2: the driver must use 32 bit wide and aligned accesses.
        let register = Register::at(offset).filter(|_| width == Width::Four);
        register
            .and_then(|register| register.readable)
            .map_or(0, |register| u64::from(self.read_register(register)))
    }

    /// A guest writes, and nobody has to keep in between what it has started.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.begin_write(offset, width, value);
        self.carry_out();
    }

    /// A guest writes. What it starts by that is decided when this returns, and is left to [`Self::carry_out`]: a device that
    /// works on requests of which a later transport does not know that they were begun would be started anew, and would do them
    /// twice. So the state is to be kept first.
    pub fn begin_write(&mut self, offset: u64, width: Width, value: u64) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.change(|transport| transport.write_config(offset, width, value));
        }
        let register = Register::at(offset).filter(|_| width == Width::Four);
        let register = register.and_then(|register| register.writable);
        if let (Some(register), Ok(value)) = (register, u32::try_from(value & u64::from(u32::MAX))) {
            match register {
                Writable::QueueNotify => self.notify(value),
                Writable::InterruptAcknowledge => self.acknowledge(value),
                _ => self.change(|transport| transport.write_register(register, value)),
            }
        }
    }

    /// Starts what the driver has started, if anything. (It may be lost by that, which changes the state.)
    pub fn carry_out(&mut self) {
        match self.due.take() {
            Some(Due::Device(kick)) => self.start_device(kick),
            Some(Due::Queue(index)) => self.start_queue(index),
            None => {}
        }
    }

    /// The device cannot go on. The driver learns of it by status and interrupt (2.1.2), and keeps what was used before.
    pub fn device_lost(&mut self) {
        self.change(|transport| {
            if !transport.session.status.has(status::NEEDS_RESET) {
                for (queue, used) in transport.device.abandon().into_iter().enumerate() {
                    transport.session.interrupt.stop(queue, used);
                }
                transport.session.status = transport.session.status.with(status::NEEDS_RESET);
                transport.notify_of_change();
            }
        });
    }

    /// The guest has ended, and lets go of the device as by a reset.
    pub fn guest_gone(&mut self) {
        self.change(Self::reset);
    }

    /// There is another backend, which offers `features` and has the configuration `config`. A driver that goes on without a reset
    /// must find what it knows: the features that it agreed on, and, if it uses the device, the configuration. A driver that
    /// comes later finds what there is now.
    pub fn backend_replaced(&mut self, features: u64, config: Vec<u8>) {
        self.change(|transport| {
            transport.features = features;
            let is_other = transport.config.replace(config);
            let Session { status, driver_features, .. } = &transport.session;
            let missing = if status.has(status::FEATURES_OK) { driver_features & !features } else { 0 };
            let reason = match missing {
                _ if status.has(status::NEEDS_RESET) => None,
                0 if is_other && transport.session.is_live() => Some("another configuration".to_owned()),
                0 => None,
                missing => Some(format!("not the features {missing:#x}, which its driver has agreed on")),
            };
            if let Some(reason) = reason {
                error!("{}: its new backend has {reason}; the device needs a reset", transport.identity.name);
                transport.device_lost();
            } else if is_other {
                transport.notify_of_change();
            }
        });
    }

    /// The backend has a new configuration.
    pub fn config_changed(&mut self, bytes: Vec<u8>) {
        self.change(|transport| {
            if transport.config.replace(bytes) {
                transport.notify_of_change();
            }
        });
    }

    /// The configuration change notification (2.3), which a driver gets that is ready for it.
    fn notify_of_change(&mut self) {
        if self.session.status.has(status::DRIVER_OK) {
            self.session.interrupt.config_changed();
            self.device.interrupt();
        }
    }

    fn read_register(&mut self, register: Readable) -> u32 {
        let Self { identity, features, config, session, device, .. } = self;
        match register {
            Readable::Magic => MAGIC,
            Readable::Version => VERSION,
            Readable::DeviceId => identity.device_id,
            Readable::VendorId => VENDOR,
            Readable::DeviceFeatures => features::half(*features, session.device_features_select),
            Readable::QueueSizeMax => session.selected().map_or(0, |_| u32::from(identity.queue_size_max)),
            Readable::QueueReady => session.selected().map_or(0, |queue| u32::from(queue.is_ready())),
            // A queue is reset by the time that the write returns, so that no driver can see it happen (2.6.1).
            Readable::QueueReset => 0,
            Readable::InterruptStatus => session.interrupt.status(|queue| used_index(device, queue)),
            Readable::Status => session.status.bits(),
            // 4.2.2.1: a region that does not exist has a length and a base of all ones.
            Readable::SharedMemory => u32::MAX,
            Readable::ConfigGeneration => config.generation(),
        }
    }

    fn write_register(&mut self, register: Writable, value: u32) {
        let session = &mut self.session;
        match register {
            Writable::DeviceFeaturesSelect => session.device_features_select = value,
            Writable::DriverFeaturesSelect => session.driver_features_select = value,
            Writable::DriverFeatures => self.set_driver_features(value),
            Writable::QueueSelect => session.queue_select = value,
            Writable::QueueSize => {
                session.selected_mut().into_iter().for_each(|(_, queue)| queue.set_size(value))
            }
            Writable::QueueAddress(part, half) => {
                session
                    .selected_mut()
                    .into_iter()
                    .for_each(|(_, queue)| queue.set_address(part, half, value));
            }
            Writable::SharedMemorySelect => {}
            Writable::QueueReady => self.set_queue_ready(value),
            Writable::QueueReset => self.reset_queue(value),
            Writable::QueueNotify => self.notify(value),
            Writable::InterruptAcknowledge => self.acknowledge(value),
            Writable::Status => self.set_status(value),
        }
    }

    fn acknowledge(&mut self, bits: u32) {
        let interrupt = &mut self.session.interrupt;
        if interrupt.has_config_changed() {
            self.change(|transport| transport.session.interrupt.acknowledge(bits));
        } else {
            interrupt.acknowledge(bits);
        }
    }

    /// The set stands once FEATURES_OK is set (3.1.1).
    fn set_driver_features(&mut self, value: u32) {
        let session = &mut self.session;
        if !session.status.has(status::FEATURES_OK) {
            session.driver_features =
                features::with_half(session.driver_features, session.driver_features_select, value);
        }
    }

    fn set_queue_ready(&mut self, value: u32) {
        let is_started = self.session.is_started;
        let may_restart = self.session.is_live() && self.session.has_agreed_on(features::RING_RESET);
        let Some((index, queue)) = self.session.selected_mut() else { return };
        match (value, queue.is_ready()) {
            (1, false) if !is_started => queue.set_ready(true),
            // 3.1.1 sets queues up before DRIVER_OK; after it, only a queue that has been reset (2.6.1.2).
            (1, false) if may_restart && !queue.is_spent() => {
                queue.set_ready(true);
                if self.device.clear_inflight(Some(index)).is_err() {
                    return self.device_lost();
                }
                self.due = Some(Due::Queue(index));
            }
            (0, true) if is_started => {
                queue.spend();
                self.stop_queue(index);
            }
            (0, true) => queue.set_ready(false),
            _ => {}
        }
    }

    /// QueueReset (2.6.1.1): nothing of the queue is left, neither its place in the ring nor its description.
    fn reset_queue(&mut self, value: u32) {
        if value != 1 || !self.session.has_agreed_on(features::RING_RESET) {
            return;
        }
        let Some((index, queue)) = self.session.selected_mut() else { return };
        let was_ready = std::mem::take(queue).is_ready();
        if was_ready && self.session.is_started {
            self.stop_queue(index);
        }
    }

    fn start_queue(&mut self, index: u16) {
        let queue = self.session.queues.get(usize::from(index));
        let ring = queue.map(|queue| queue.ring(index, self.identity.queue_size_max));
        let started = match ring {
            Some(Ok(ring)) => self.device.start_queue(&ring),
            Some(Err(error)) => {
                warn!("{}: {error}", self.identity.name);
                Err(Lost)
            }
            None => Ok(()),
        };
        if started.is_err() {
            self.device_lost();
        }
    }

    /// The queue is not ready any more: the device must not touch it (4.2.2.1).
    fn stop_queue(&mut self, index: u16) {
        if self.session.is_live() {
            self.session.interrupt.stop(usize::from(index), self.device.used_index(index));
            if self.device.stop_queue(index).is_err() {
                self.device_lost();
            }
        }
    }

    fn notify(&mut self, value: u32) {
        let Ok(queue) = u16::try_from(value) else { return };
        self.begin_early(queue, Some(queue));
        if self.due.is_none() && self.session.is_live() && queue < self.identity.queues {
            self.device.kick(queue);
        }
    }

    /// Whether there is a time when a kick starts the device.
    pub fn starts_by_kick(&self) -> bool {
        self.identity.starts_by_kick
    }

    /// Whether a kick would start the device now.
    pub fn awaits_early_kick(&self) -> bool {
        let Session { status, is_started, .. } = &self.session;
        let is_over = status.has(status::FAILED) || status.has(status::NEEDS_RESET);
        self.identity.starts_by_kick && status.has(status::FEATURES_OK) && !is_over && !is_started
    }

    /// The driver has kicked `queue`, and the backend will see that; perhaps it was too early. What it starts by that is left
    /// to [`Self::carry_out`].
    pub fn kicked_early(&mut self, queue: u16) {
        self.begin_early(queue, None);
    }

    fn begin_early(&mut self, queue: u16, kick: Option<u16>) {
        let is_ready = self.session.queues.get(usize::from(queue)).is_some_and(Queue::is_ready);
        if self.awaits_early_kick() && is_ready {
            debug!("{}: used before DRIVER_OK", self.identity.name);
            self.change(|transport| transport.start(kick));
        }
    }

    fn set_status(&mut self, value: u32) {
        let wanted = match Wish::from(value) {
            Wish::Reset => return self.reset(),
            Wish::Set(wanted) => wanted,
        };
        while let Some(step) = self.session.status.next_step(wanted) {
            if step == status::FEATURES_OK && !self.accepts_features() {
                return;
            }
            self.session.status = self.session.status.with(step);
            if step == status::DRIVER_OK {
                self.start_at_last();
            }
        }
    }

    /// DRIVER_OK: the device is live. If it broke before, the driver learns only now.
    fn start_at_last(&mut self) {
        if self.session.status.has(status::NEEDS_RESET) {
            self.notify_of_change();
        } else {
            self.start(None);
        }
    }

    fn accepts_features(&mut self) -> bool {
        let demanded = self.identity.demanded_features;
        let check = features::check(self.features, demanded, self.session.driver_features);
        if let Err(refusal) = check {
            warn!("{}: {refusal}", self.identity.name);
        }
        check.is_ok()
    }

    /// DRIVER_OK makes the device live (and, where the type has early drivers, their first kick).
    fn start(&mut self, kick: Option<u16>) {
        if self.session.is_started || self.session.status.has(status::NEEDS_RESET) {
            return;
        }
        self.session.is_started = true;
        self.session.interrupt.start(self.session.queues.len());
        if self.device.clear_inflight(None).is_err() {
            return self.device_lost();
        }
        self.due = Some(Due::Device(kick));
    }

    fn start_device(&mut self, kick: Option<u16>) {
        let started = match state::rings(&self.session.queues, self.identity.queue_size_max) {
            Ok(rings) => self.device.start(self.session.driver_features, &rings),
            Err(error) => {
                warn!("{}: {error}", self.identity.name);
                Err(Lost)
            }
        };
        if started.is_err() {
            return self.device_lost();
        }
        debug!("{}: started with features {:#x}", self.identity.name, self.session.driver_features);
        kick.into_iter().for_each(|queue| self.device.kick(queue));
    }

    /// Virtio 1.3, 2.4: whatever the driver has said is forgotten, and the status reads 0 only when this is done.
    fn reset(&mut self) {
        // Named one by one, so that a new field has to be decided on.
        let Self { identity, features: _, config: _, session, revision: _, due, device } = self;
        *due = None;
        if session.is_started {
            device.stop();
            debug!("{}: stopped", identity.name);
        }
        *session = Session::new(identity.queues);
    }

    fn write_config(&mut self, offset: u64, width: Width, value: u64) {
        let Ok(start) = u32::try_from(offset) else { return };
        // 3.1.1: a driver may read the configuration before the features are agreed, and must not write it.
        if !self.session.status.has(status::FEATURES_OK) || !self.config.contains(offset, width) {
            return;
        }
        let bytes = value.to_le_bytes();
        let Some(bytes) = bytes.get(..width.bytes()) else { return };
        match self.device.write_config(start, bytes) {
            Ok(Some(config)) => drop(self.config.replace(config)),
            Ok(None) => {}
            Err(Lost) => self.device_lost(),
        }
    }
}

fn used_index<D: Device>(device: &D, queue: usize) -> Option<u16> {
    device.used_index(u16::try_from(queue).ok()?)
}
