// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the driver has written since the last reset, and what follows from it.

use crate::virtio_mmio::config_space::ConfigSpace;
use crate::virtio_mmio::features;
use crate::virtio_mmio::interrupt::Interrupt;
use crate::virtio_mmio::queue::Queue;
use crate::virtio_mmio::registers::Field;
use crate::virtio_mmio::state::State;
use crate::virtio_mmio::status::{self, Status};

/// What the driver has written since the last reset.
#[derive(Debug)]
pub(super) struct DriverState {
    pub(super) device_features_select: u32,
    pub(super) driver_features_select: u32,
    pub(super) driver_features: u64,
    pub(super) queue_select: u32,
    pub(super) status: Status,
    /// Whether the device has been started and not been stopped.
    pub(super) is_started: bool,
    pub(super) queues: Vec<Queue>,
    pub(super) interrupt: Interrupt,
}

impl DriverState {
    pub(super) fn new(queues: u16) -> Self {
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

    /// Takes over the state of a former transport. The device has `queues` queues; it had as many before,
    /// unless it has no driver.
    pub(super) fn restored(state: &State, queues: u16) -> Self {
        let mut interrupt = Interrupt::default();
        if state.config_change {
            interrupt.config_changed();
        }
        let mut known = state.queues.clone();
        known.resize(usize::from(queues), Queue::default());
        Self {
            device_features_select: state.device_features_select,
            driver_features_select: state.driver_features_select,
            driver_features: state.driver_features,
            queue_select: state.queue_select,
            status: state.status,
            is_started: state.is_started,
            queues: known,
            interrupt,
        }
    }

    /// Takes over a state that is not valid for the device, or is missing. Only the status remains, so that
    /// the driver finds the device as it left it, until it resets it. DEVICE_NEEDS_RESET is cleared: it is
    /// set again with a notification, as the one of the former worker is lost.
    pub(super) fn unrestorable(state: Option<&State>, queues: u16) -> Self {
        let status = state.map(|state| state.status).filter(|status| status.is_reachable());
        let status = status.unwrap_or(Status::LIVE).without(status::NEEDS_RESET);
        let mut driver = Self { status, is_started: status.has(status::DRIVER_OK), ..Self::new(queues) };
        if driver.is_started {
            // The driver may not have been notified of buffers that were used before.
            driver.interrupt.resume(driver.queues.len());
        }
        driver
    }

    /// The state as plain data, together with what the driver sees of the device.
    pub(super) fn state(&self, device_id: u32, device_features: u64, config: &ConfigSpace) -> State {
        // Without `..`, so that a new field is not forgotten.
        let Self {
            device_features_select,
            driver_features_select,
            driver_features,
            queue_select,
            status,
            is_started,
            queues,
            interrupt,
        } = self;
        State {
            device_id,
            device_features,
            device_features_select: *device_features_select,
            driver_features_select: *driver_features_select,
            driver_features: *driver_features,
            queue_select: *queue_select,
            status: *status,
            is_started: *is_started,
            queues: queues.clone(),
            config_change: interrupt.has_config_changed(),
            config_generation: config.generation(),
            config: config.bytes().to_vec(),
        }
    }

    pub(super) fn selected(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    /// The selected queue with its number.
    pub(super) fn selected_mut(&mut self) -> Option<(u16, &mut Queue)> {
        let index = u16::try_from(self.queue_select).ok()?;
        Some((index, self.queues.get_mut(usize::from(index))?))
    }

    /// Writes a register that has no effect on the device. Returns whether that changes the state.
    pub(super) fn set(&mut self, field: Field, value: u32) -> bool {
        match field {
            Field::QueueSelect => update(&mut self.queue_select, value),
            Field::QueueSize => self.update_queue(|queue| queue.set_size(value)),
            Field::QueueAddress(part, half) => {
                self.update_queue(|queue| queue.set_address(part, half, value))
            }
            Field::DeviceFeaturesSelect => update(&mut self.device_features_select, value),
            Field::DriverFeaturesSelect => update(&mut self.driver_features_select, value),
            // What is accepted stays once FEATURES_OK is set (3.1.1).
            Field::DriverFeatures if self.status.has(status::FEATURES_OK) => false,
            Field::DriverFeatures => {
                let (accepted, select) = (self.driver_features, self.driver_features_select);
                update(&mut self.driver_features, features::with_half(accepted, select, value))
            }
        }
    }

    /// Why the driver cannot continue with a backend that offers `features`, if it cannot. `is_other`: the
    /// configuration has changed.
    pub(super) fn conflict(&self, features: u64, is_other: bool) -> Option<String> {
        let accepted = if self.status.has(status::FEATURES_OK) { self.driver_features } else { 0 };
        match accepted & !features {
            _ if self.status.has(status::NEEDS_RESET) => None,
            0 if is_other && self.is_live() => Some("another configuration".to_owned()),
            0 => None,
            missing => Some(format!("not the features {missing:#x}, which the driver has accepted")),
        }
    }

    /// Changes the selected queue, if it exists. Returns whether that makes a difference.
    fn update_queue(&mut self, change: impl FnOnce(&mut Queue)) -> bool {
        let Some((_, queue)) = self.selected_mut() else { return false };
        let before = *queue;
        change(queue);
        *queue != before
    }

    /// Whether the driver has accepted a feature.
    pub(super) fn has_accepted(&self, feature: u64) -> bool {
        self.status.has(status::FEATURES_OK) && self.driver_features & feature != 0
    }

    /// Whether the device is started and does not need a reset.
    pub(super) fn is_live(&self) -> bool {
        self.is_started && !self.status.has(status::NEEDS_RESET)
    }
}

/// Sets a field. Returns whether that changes it.
fn update<T: PartialEq>(field: &mut T, value: T) -> bool {
    let is_changed = *field != value;
    *field = value;
    is_changed
}
