// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state machine behind one register window (virtio 1.3, 3.1 and 4.2).
//!
//! What a guest writes changes state here; what must happen outside of it leaves through [`Device`]. No value that
//! a guest writes can index, allocate or fail beyond this device.

use log::{debug, warn};

use crate::ioreq::Width;
use crate::memory::Ring;
use crate::virtio_mmio::config_space::ConfigSpace;
use crate::virtio_mmio::features;
use crate::virtio_mmio::interrupt::Interrupt;
use crate::virtio_mmio::queue::{Queue, QueueError};
use crate::virtio_mmio::registers::{CONFIG, MAGIC, Readable, VENDOR, VERSION, Writable};
use crate::virtio_mmio::status::{self, Status, Wish};

/// How often a guest's mistakes are reported as warnings: it can repeat them as fast as it likes.
const WARNINGS: u8 = 10;

/// The device cannot go on until it is reset, for a reason that has been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// What stands behind the registers.
///
/// None of the methods may wait for longer than a vCPU can be held up.
pub trait Device {
    /// The driver is ready: serve `rings` with the accepted `features`.
    fn start(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost>;

    /// Reset: when this returns, nothing of the guest's memory is mapped or used any more. A device that cannot
    /// stop by agreement has to be stopped by force.
    fn stop(&mut self);

    /// Stops one queue and leaves the others running.
    fn stop_queue(&mut self, queue: u16) -> Result<(), Lost>;

    /// The driver has made buffers available, and the kernel did not take notice.
    fn kick(&mut self, queue: u16);

    /// The driver writes to the configuration. The answer is the configuration as it is now, if it may have changed.
    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost>;

    /// How far the device has come with a queue that it serves: the used index.
    fn used_index(&self, queue: u16) -> Option<u16>;

    /// Sends the guest an interrupt on the device's own behalf.
    fn interrupt(&mut self);
}

/// What does not change in a device's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// For the log: the guest's and the device's name.
    pub name: String,
    /// The virtio device ID (virtio 1.3, section 5).
    pub device_id: u32,
    /// The features that the driver may choose from.
    pub features: u64,
    /// Those among them that it cannot leave out.
    pub demanded_features: u64,
    /// Whether a kick starts the device as DRIVER_OK does, for the sake of drivers that are early.
    pub starts_by_kick: bool,
    /// How many queues there are.
    pub queues: u16,
    /// The size of the largest queue.
    pub queue_size_max: u16,
}

/// What the driver has said since the last reset.
#[derive(Debug)]
struct Session {
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    status: Status,
    /// Whether the device has been started, and so has to be stopped.
    is_started: bool,
    queues: Vec<Queue>,
    interrupt: Interrupt,
}

impl Session {
    fn new(queues: u16) -> Self {
        Self {
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            status: Status::default(),
            is_started: false,
            queues: vec![Queue::default(); usize::from(queues)],
            interrupt: Interrupt::default(),
        }
    }

    fn selected(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    fn selected_mut(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::try_from(self.queue_select).ok()?)
    }

    fn is_live(&self) -> bool {
        self.is_started && !self.status.has(status::NEEDS_RESET)
    }
}

/// One virtio-mmio device.
#[derive(Debug)]
pub struct Transport<D> {
    identity: Identity,
    config: ConfigSpace,
    session: Session,
    warnings_left: u8,
    device: D,
}

impl<D: Device> Transport<D> {
    /// A device in reset.
    pub fn new(identity: Identity, config: Vec<u8>, device: D) -> Self {
        let session = Session::new(identity.queues);
        Self { identity, config: ConfigSpace::new(config), session, warnings_left: WARNINGS, device }
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
        match Readable::at(offset) {
            Some(register) if width == Width::Four => u64::from(self.read_register(register)),
            _ => 0,
        }
    }

    /// A guest writes.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.write_config(offset, width, value);
        }
        let register = Writable::at(offset).filter(|_| width == Width::Four);
        if let (Some(register), Ok(value)) = (register, u32::try_from(value & u64::from(u32::MAX))) {
            self.write_register(register, value);
        }
    }

    /// The backend is gone. The driver learns of it by status and interrupt (2.1.2).
    pub fn device_lost(&mut self) {
        if self.session.status.has(status::NEEDS_RESET) {
            return;
        }
        self.session.status = self.session.status.with(status::NEEDS_RESET);
        if self.session.status.has(status::DRIVER_OK) {
            self.session.interrupt.config_changed();
            self.device.interrupt();
        }
    }

    /// The backend has a new configuration.
    pub fn config_changed(&mut self, bytes: Vec<u8>) {
        if self.config.replace(bytes) && self.session.status.has(status::DRIVER_OK) {
            self.session.interrupt.config_changed();
            self.device.interrupt();
        }
    }

    fn read_register(&mut self, register: Readable) -> u32 {
        let Self { identity, config, session, device, .. } = self;
        match register {
            Readable::Magic => MAGIC,
            Readable::Version => VERSION,
            Readable::DeviceId => identity.device_id,
            Readable::VendorId => VENDOR,
            Readable::DeviceFeatures => features::half(identity.features, session.device_features_select),
            Readable::QueueSizeMax => session.selected().map_or(0, |_| u32::from(identity.queue_size_max)),
            Readable::QueueReady => session.selected().map_or(0, |queue| u32::from(queue.is_ready())),
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
            Writable::QueueSize => session.selected_mut().into_iter().for_each(|queue| queue.set_size(value)),
            Writable::QueueAddress(part, half) => {
                session.selected_mut().into_iter().for_each(|queue| queue.set_address(part, half, value));
            }
            Writable::QueueReady => self.set_queue_ready(value),
            Writable::QueueNotify => self.notify(value),
            Writable::InterruptAcknowledge => session.interrupt.acknowledge(value),
            Writable::Status => self.set_status(value),
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
        let is_live = self.session.is_live();
        let is_started = self.session.is_started;
        let Ok(index) = u16::try_from(self.session.queue_select) else { return };
        let Some(queue) = self.session.selected_mut() else { return };
        match (value, queue.is_ready()) {
            // 3.1.1 sets queues up before DRIVER_OK; only a device with RING_RESET takes one later.
            (1, false) if !is_started => queue.set_ready(true),
            (0, true) => {
                queue.set_ready(false);
                if is_live && self.device.stop_queue(index).is_err() {
                    self.device_lost();
                }
            }
            _ => {}
        }
    }

    fn notify(&mut self, value: u32) {
        let Ok(queue) = u16::try_from(value) else { return };
        self.kicked_early(queue);
        if self.session.is_live() && queue < self.identity.queues {
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
        self.identity.starts_by_kick && status.has(status::FEATURES_OK) && !is_started
    }

    /// The driver has kicked `queue`, whoever noticed it, perhaps too early.
    pub fn kicked_early(&mut self, queue: u16) {
        let is_ready = self.session.queues.get(usize::from(queue)).is_some_and(Queue::is_ready);
        if self.awaits_early_kick() && is_ready {
            debug!("{}: used before DRIVER_OK", self.identity.name);
            self.start();
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
                self.start();
            }
        }
    }

    fn accepts_features(&mut self) -> bool {
        let Identity { features, demanded_features, .. } = self.identity;
        let check = features::check(features, demanded_features, self.session.driver_features);
        if let Err(refusal) = check {
            self.complain(&refusal.to_string());
        }
        check.is_ok()
    }

    /// DRIVER_OK makes the device live (and, where the type has early drivers, their first kick).
    fn start(&mut self) {
        if self.session.is_started || self.session.status.has(status::NEEDS_RESET) {
            return;
        }
        self.session.is_started = true;
        self.session.interrupt.start(self.session.queues.len());
        let started = match self.rings() {
            Ok(rings) => self.device.start(self.session.driver_features, &rings),
            Err(error) => {
                self.complain(&error.to_string());
                Err(Lost)
            }
        };
        if started.is_err() {
            return self.device_lost();
        }
        debug!("{}: started with features {:#x}", self.identity.name, self.session.driver_features);
    }

    /// The rings of the queues that are ready, all of which must be sound.
    fn rings(&self) -> Result<Vec<Ring>, QueueError> {
        let numbered = (0..).zip(&self.session.queues);
        numbered
            .filter(|(_, queue)| queue.is_ready())
            .map(|(index, queue)| queue.ring(index, self.identity.queue_size_max))
            .collect()
    }

    /// Virtio 1.3, 2.4: whatever the driver has said is forgotten, and the status reads 0 only when this is done.
    fn reset(&mut self) {
        // Named one by one, so that a new field has to be decided on.
        let Self { identity, config: _, session, warnings_left: _, device } = self;
        if session.is_started {
            device.stop();
            debug!("{}: stopped", identity.name);
        }
        *session = Session::new(identity.queues);
    }

    fn write_config(&mut self, offset: u64, width: Width, value: u64) {
        let Ok(start) = u32::try_from(offset) else { return };
        if !self.config.contains(offset, width) {
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

    /// Reports a mistake of the guest.
    fn complain(&mut self, mistake: &str) {
        if let Some(left) = self.warnings_left.checked_sub(1) {
            self.warnings_left = left;
            warn!("{}: {mistake}", self.identity.name);
        } else {
            debug!("{}: {mistake}", self.identity.name);
        }
    }
}

fn used_index<D: Device>(device: &D, queue: usize) -> Option<u16> {
    device.used_index(u16::try_from(queue).ok()?)
}
