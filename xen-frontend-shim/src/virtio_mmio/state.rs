// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state of a transport as plain data: all that the driver has written since the last reset.
//!
//! Drivers continue when a worker ends. The state is stored when a register write has changed it, and the
//! next worker restores a transport from it ([`Transport::restored`]). Kicks and acknowledged used buffers
//! are not part of it: they are as frequent as requests, and a notification may be repeated but not lost.
//!
//! The state may have been stored for another configuration, and its values came from a guest. It is checked
//! as if the driver wrote all of it again. If it is not valid, the driver still has the device: the device
//! needs a reset (virtio 1.3, 2.1.2).
//!
//! [`Transport::restored`]: crate::virtio_mmio::Transport::restored

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::memory::Ring;
use crate::virtio_mmio::device::Identity;
use crate::virtio_mmio::features::{self, Refusal};
use crate::virtio_mmio::queue::{Queue, QueueError};
use crate::virtio_mmio::status::{self, Status};

/// The state of one transport.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// DeviceID.
    pub device_id: u32,
    /// The features that the driver may choose from.
    pub device_features: u64,
    /// DeviceFeaturesSel.
    pub device_features_select: u32,
    /// DriverFeaturesSel.
    pub driver_features_select: u32,
    /// The features that the driver takes; agreed if the status has FEATURES_OK.
    pub driver_features: u64,
    /// QueueSel.
    pub queue_select: u32,
    /// Status. A device whose status is 0 is not in use.
    pub status: Status,
    /// Whether the device has been started, and so has to be stopped.
    pub is_started: bool,
    /// Each queue as the driver has described it.
    pub queues: Vec<Queue>,
    /// Whether the driver has not yet acknowledged that the configuration changed.
    pub config_change: bool,
    /// ConfigGeneration.
    pub config_generation: u32,
    /// The configuration to which the generation belongs.
    pub config: Vec<u8>,
}

/// Why a state is not valid for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The record is damaged, or of another version of this program.
    #[error("its state cannot be read")]
    Unreadable,
    /// The device has another type now.
    #[error("its driver has set up a device of type {0}, and the type is {1} now")]
    Type(u32, u32),
    /// The device has another number of queues now.
    #[error("its driver has set up a device with {0} queues, and there are {1} now")]
    Queues(usize, u16),
    /// No sequence of writes leads to this status.
    #[error("status {0}, started {1}: no driver can have set it")]
    Status(Status, bool),
    /// No driver can have negotiated these features.
    #[error(transparent)]
    Features(#[from] Refusal),
    /// The description of a ready queue is not valid.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl State {
    /// Whether the device has a driver. Linux sets ACKNOWLEDGE for a device without a driver, also after a
    /// driver was unbound.
    #[must_use]
    pub fn has_driver(&self) -> bool {
        self.status.has(status::DRIVER)
    }

    /// Whether the driver uses the device: started, and not in need of a reset.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.is_started && !self.status.has(status::NEEDS_RESET)
    }

    /// Whether a device as `identity` describes it can be in this state.
    pub fn check(&self, identity: &Identity) -> Result<(), RestoreError> {
        if self.device_id != identity.device_id {
            return Err(RestoreError::Type(self.device_id, identity.device_id));
        }
        // Without a driver, no queue is set up.
        if self.has_driver() && self.queues.len() != usize::from(identity.queues) {
            return Err(RestoreError::Queues(self.queues.len(), identity.queues));
        }
        if !self.status.is_reachable() || !self.agrees_with_status(identity) {
            return Err(RestoreError::Status(self.status, self.is_started));
        }
        // Whatever was agreed on with a device that needs a reset, it is of no use.
        if self.status.has(status::FEATURES_OK) && !self.status.has(status::NEEDS_RESET) {
            features::check(self.device_features, identity.demanded_features, self.driver_features)?;
        }
        if self.is_live() {
            rings(&self.queues, identity)?;
        }
        Ok(())
    }

    /// DRIVER_OK starts a device, and where drivers are early also a kick after FEATURES_OK.
    fn agrees_with_status(&self, identity: &Identity) -> bool {
        let Self { status, is_started, .. } = self;
        let is_early = identity.starts_by_kick && status.has(status::FEATURES_OK);
        if *is_started {
            status.has(status::DRIVER_OK) || is_early
        } else {
            !status.has(status::DRIVER_OK) || status.has(status::NEEDS_RESET)
        }
    }
}

/// The rings of the `queues` that are ready, all of which must be sound.
pub(super) fn rings(queues: &[Queue], identity: &Identity) -> Result<Vec<Ring>, QueueError> {
    let ready = (0..).zip(queues).filter(|(_, queue)| queue.is_ready());
    ready.map(|(index, queue)| queue.ring(index, identity.queue_size_max, &identity.memory)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio_mmio::interrupt::{CONFIG_CHANGE, USED_BUFFER};
    use crate::virtio_mmio::tests::test_driver::{Driver, FEATURES, identity};
    use crate::virtio_mmio::{Effect, Transport, Width};

    fn probed() -> Driver {
        let mut driver = Driver::new();
        driver.probe();
        driver
    }

    #[test]
    fn a_driver_goes_on_with_a_restored_transport() {
        let before = probed();
        let state = before.window.state();
        let mut after = Driver::restored(state.clone());
        assert_eq!(after.window.state(), state);
        {
            let log = after.log();
            assert_eq!(log.resumed, before.log().started);
            assert_eq!((log.started.len(), log.interrupts), (0, 1));
        }
        assert_eq!((after.read(0x70), after.read(0x44), after.read(0x60)), (0xf, 1, USED_BUFFER));
        after.write(0x64, USED_BUFFER);
        assert_eq!(after.read(0x60), 0);
        after.write(0x50, 1);
        assert_eq!(after.log().kicks, [1]);
        after.write(0x70, 0);
        assert_eq!((after.read(0x70), after.log().stops), (0, 1));
        after.probe();
    }

    #[test]
    fn a_device_that_is_only_acknowledged_has_no_driver() {
        let mut driver = Driver::new();
        for (status, has_driver) in [(0, false), (1, false), (3, true), (0, false)] {
            driver.write(0x70, status);
            assert_eq!(driver.window.state().has_driver(), has_driver, "status {status}");
        }
    }

    #[test]
    fn a_driver_may_be_interrupted_at_any_step_of_its_probe() {
        let mut script =
            vec![(0x70, 0), (0x70, 1), (0x70, 3), (0x24, 1), (0x20, 0x103), (0x24, 0), (0x20, 0x2000_0001)];
        script.extend([(0x70, 0xb), (0x30, 1), (0x38, 64), (0x80, 0x8000), (0x84, 1 << 31), (0x90, 0x9000)]);
        script.extend([(0x94, 1 << 31), (0xa0, 0xa000), (0xa4, 1 << 31), (0x44, 1), (0x70, 0xf)]);
        for interrupted in 0..=script.len() {
            let mut driver = Driver::new();
            for (step, &(offset, value)) in script.iter().enumerate() {
                if step == interrupted {
                    driver = Driver::restored(driver.window.state());
                }
                driver.write(offset, value);
            }
            let state = driver.window.state();
            assert_eq!((driver.read(0x70), state.driver_features), (0xf, FEATURES), "step {interrupted}");
            let rings = rings(&state.queues, &identity()).expect("sound");
            assert_eq!((rings.len(), rings[0].index, rings[0].size), (1, 1, 64), "step {interrupted}");
            assert_eq!(driver.log().started.len(), 1);
        }
    }

    #[test]
    fn write_that_changes_nothing_is_not_stored() {
        let state = probed().window.state();
        let (mut transport, effect, _) = Transport::restored(identity(), Some(state));
        assert_eq!((effect, transport.take_changed()), (Effect::Resume, false));
        let mut is_changed = |offset, value: u64| {
            transport.read(0x60, Width::Four, |_| Some(1));
            transport.write(offset, Width::Four, value);
            transport.take_changed()
        };
        for (offset, value) in [(0x64, 1), (0x50, 0), (0x50, 1), (0x30, 1), (0x70, 0xf), (0x44, 1), (0x38, 8)]
        {
            assert!(!is_changed(offset, value), "{offset:#x} := {value}");
        }
        for (offset, value) in
            [(0x30, 0), (0x14, 1), (0x24, 1), (0x44, 0), (0x70, 0x8f), (0x70, 0), (0x70, 1)]
        {
            assert!(is_changed(offset, value), "{offset:#x} := {value}");
        }
        transport.lose();
        assert!(transport.take_changed());
        transport.config_changed(vec![1]);
        assert!(transport.take_changed());
    }

    #[test]
    fn an_acknowledged_change_of_the_configuration_stays_acknowledged() {
        let mut driver = probed();
        driver.window.config_changed(vec![7; 8]);
        let state = driver.window.state();
        driver.write(0x64, CONFIG_CHANGE);
        assert_ne!(driver.window.state(), state);
        for (state, pending) in [(state, CONFIG_CHANGE), (driver.window.state(), 0)] {
            let mut driver = Driver::restored(state);
            assert_eq!((driver.read(0x60) & CONFIG_CHANGE, driver.read(0xfc)), (pending, 1));
        }
    }

    #[test]
    fn a_device_that_needs_a_reset_still_does_and_is_not_touched_before() {
        let mut driver = probed();
        driver.window.device_lost();
        let mut driver = Driver::restored(driver.window.state());
        assert_eq!((driver.read(0x70), driver.read(0x60)), (0x4f, CONFIG_CHANGE));
        assert!(driver.log().resumed.is_empty());
        driver.write(0x70, 0);
        assert_eq!((driver.read(0x70), driver.log().stops), (0, 1));
        driver.probe();
    }

    #[test]
    fn a_device_that_cannot_go_on_is_lost_to_the_driver_and_the_state_is_taken_up() {
        let state = probed().window.state();
        let (mut driver, restored) = Driver::found(Some(state), |log| log.refuse_start = true);
        assert_eq!(restored, Ok(()));
        assert_eq!((driver.read(0x70), driver.log().interrupts), (0x4f, 1));
        assert_ne!(driver.read(0x60) & CONFIG_CHANGE, 0);
    }

    /// The driver may wait for a request, so it is notified (2.1.2; see `conformance`).
    #[test]
    fn state_that_is_not_valid_costs_one_reset() {
        let good = probed().window.state();
        let fewer = State { queues: good.queues[..1].to_vec(), ..good.clone() };
        let mut unsized_queue = good.clone();
        unsized_queue.queues[1] = Queue::default();
        unsized_queue.queues[1].set_ready(true);
        for (bad, word) in [
            (None, "cannot be read"),
            (Some(State { device_id: 41, ..good.clone() }), "type 41"),
            (Some(fewer), "1 queues"),
            (Some(State { status: status_from_file(0x10), ..good.clone() }), "status 0x10"),
            (Some(State { status: status_from_file(7), ..good.clone() }), "status 0x7"),
            (Some(State { is_started: false, ..good.clone() }), "started false"),
            (Some(State { driver_features: FEATURES | 2, ..good.clone() }), "not offered"),
            (Some(State { driver_features: 0, ..good.clone() }), "VERSION_1"),
            (Some(unsized_queue), "queue 1: size 0"),
        ] {
            let (mut driver, restored) = Driver::found(bad.clone(), |_| {});
            let error = restored.expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
            assert_eq!(
                (driver.read(0x70), driver.read(0x60), driver.log().interrupts),
                (0x4f, 3, 1),
                "{word}"
            );
            assert!(driver.log().resumed.is_empty());
            // It stays so, whichever process comes next, until the driver resets it.
            let mut driver = Driver::restored(driver.window.state());
            assert_eq!((driver.read(0x70), driver.log().resumed.len()), (0x4f, 0));
            driver.window.backend_replaced(FEATURES, vec![1; 8]);
            driver.write(0x70, 0);
            assert_eq!((driver.read(0x70), driver.log().stops), (0, 1));
            driver.probe();
        }
    }

    /// As after a reload: Linux acknowledges a device when it finds it, and not again when a driver comes.
    #[test]
    fn a_device_that_is_acknowledged_may_become_another_one_of_its_type() {
        let mut driver = Driver::new();
        driver.write(0x70, 1);
        let identity = Identity { queues: 5, ..identity() };
        let (mut driver, restored) = Driver::found_as(identity, Some(driver.window.state()), |_| {});
        assert_eq!((restored, driver.read(0x70)), (Ok(()), 1));
        assert_eq!(driver.window.state().queues.len(), 5);
        driver.window.backend_replaced(FEATURES & !(1 << 29), vec![1; 8]);
        assert_eq!((driver.read(0x70), driver.read(0x10)), (1, 1));
        driver.write(0x70, 3);
        assert_eq!(driver.read(0x70), 3);
    }

    #[test]
    fn a_larger_or_smaller_limit_of_queues_is_noticed() {
        let state = probed().window.state();
        for (queue_size_max, status) in [(512, 0xf), (64, 0xf), (32, 0x4f)] {
            let identity = Identity { queue_size_max, ..identity() };
            let (mut driver, restored) = Driver::found_as(identity, Some(state.clone()), |_| {});
            assert_eq!((driver.read(0x70), restored.is_ok()), (status, status == 0xf));
        }
    }

    /// A status that is read from a file can be any.
    fn status_from_file(bits: u8) -> Status {
        postcard::from_bytes(&[bits]).expect("a byte")
    }

    #[test]
    fn early_drivers_may_be_started_before_driver_ok() {
        let mut early = Driver::of_type(true);
        for (offset, value) in [(0x70, 3), (0x24, 1), (0x20, 3), (0x24, 0), (0x20, 1), (0x70, 0xb)] {
            early.write(offset, value);
        }
        early.describe_queue(0, 8);
        early.write(0x50, 0);
        let state = early.window.state();
        assert!(state.is_started);
        assert!(matches!(Driver::found(Some(state.clone()), |_| {}).1, Err(RestoreError::Status(..))));
        let identity = Identity { starts_by_kick: true, ..identity() };
        let (driver, restored) = Driver::found_as(identity, Some(state), |_| {});
        assert_eq!((restored, driver.log().resumed.len()), (Ok(()), 1));
        assert!(!driver.window.transport().awaits_early_kick());
    }

    #[test]
    fn a_state_survives_being_written_and_read() {
        let state = probed().window.state();
        let bytes = postcard::to_allocvec(&state).expect("plain data");
        assert_eq!(postcard::from_bytes::<State>(&bytes).expect("the same"), state);
    }
}
