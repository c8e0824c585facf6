// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What one driver has said, from reset to reset, and what follows from it.

use crate::virtio_mmio::config_space::ConfigSpace;
use crate::virtio_mmio::interrupt::Interrupt;
use crate::virtio_mmio::queue::Queue;
use crate::virtio_mmio::state::State;
use crate::virtio_mmio::status::{self, Status};

/// What the driver has said since the last reset.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) device_features_select: u32,
    pub(super) driver_features_select: u32,
    pub(super) driver_features: u64,
    pub(super) queue_select: u32,
    pub(super) status: Status,
    /// Whether the device has been started, and so has to be stopped.
    pub(super) is_started: bool,
    pub(super) queues: Vec<Queue>,
    pub(super) interrupt: Interrupt,
}

impl Session {
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

    /// What a former one was, of a device that has `queues` now, as it had unless there is no driver.
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

    /// That of a driver of which no more is left than a state that cannot be taken up, or nothing at all. It may go on with a
    /// device that it has started.
    pub(super) fn unrestorable(state: Option<&State>, queues: u16) -> Self {
        let status = state.map(|state| state.status).filter(|status| status.is_reachable());
        let status = status.unwrap_or(Status::LIVE);
        let mut session = Self { status, is_started: status.has(status::DRIVER_OK), ..Self::new(queues) };
        if session.is_started {
            // What was used before, its driver may not have been told of.
            session.interrupt.resume(session.queues.len());
        }
        session
    }

    /// As plain data, with what the driver sees of the device.
    pub(super) fn state(&self, device_id: u32, device_features: u64, config: &ConfigSpace) -> State {
        // Named one by one, so that a new field has to be decided on.
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

    /// The selected queue and its number.
    pub(super) fn selected_mut(&mut self) -> Option<(u16, &mut Queue)> {
        let index = u16::try_from(self.queue_select).ok()?;
        Some((index, self.queues.get_mut(usize::from(index))?))
    }

    /// Whether the driver has a feature, and can rely on it.
    pub(super) fn has_agreed_on(&self, feature: u64) -> bool {
        self.status.has(status::FEATURES_OK) && self.driver_features & feature != 0
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_started && !self.status.has(status::NEEDS_RESET)
    }
}
