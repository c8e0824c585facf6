// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One device of a guest with its backend.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use log::warn;

use super::SupervisorError;
use super::backend::ManagedBackend;
use super::claim::ClaimedDevice;
use super::memory::MemoryAccess;
use super::watch::{Subject, Watch};
use crate::control::{Connection, Control};

/// The time that a backend has to end after its connection has ended.
const EXIT_LIMIT: Duration = Duration::from_secs(1);

/// The stages of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The worker serves it.
    Served,
    /// The worker has been asked to release it, and is to answer until this time. `None` if the time has
    /// passed and the worker is being replaced.
    Releasing(Option<Instant>),
    /// The worker has released it. Its backend may still run.
    Released,
}

/// One device with its backend.
pub(super) struct ManagedDevice {
    pub(super) claimed: ClaimedDevice,
    pub(super) backend: ManagedBackend,
    pub(super) stage: Stage,
    /// Until when the guest waits for the device, if that is limited and it does.
    pub(super) waited_until: Option<Instant>,
}

impl ManagedDevice {
    /// Starts the backend if it is due, or connects to its program if that is awaited.
    pub(super) fn start_backend(
        &mut self,
        memory: MemoryAccess,
        watch: &Watch,
        subject: Subject,
        now: Instant,
    ) -> Result<Option<Connection>, SupervisorError> {
        let backend = &mut self.backend;
        if !backend.is_due(now) {
            return Ok(backend.connect(now)?);
        }
        let connection = backend.start(memory.open()?, now)?;
        if let Some(process) = backend.process() {
            watch.add(&process.as_fd(), subject)?;
        }
        Ok(connection)
    }

    /// Delivers a backend to the worker, or the message that there is none for now.
    pub(super) fn deliver(&self, number: u16, worker: &Control, connection: Option<&Connection>) {
        if let Err(error) = worker.deliver(number, connection) {
            warn!("{}: backend not delivered to the worker: {error}", self.backend.name());
        }
    }

    /// Has the guest start without a device that it does not wait for any longer.
    pub(super) fn stop_waiting(&mut self, number: u16, worker: Option<&Control>) {
        if self.waited_until.take().is_some()
            && let Some(worker) = worker
        {
            self.deliver(number, worker, None);
        }
    }

    /// Records that no worker has the device any more.
    pub(super) fn released(&mut self, now: Instant) {
        self.stage = Stage::Released;
        self.disconnected(now);
    }

    /// Records the end of the connection to the backend. The backend has to end as well.
    pub(super) fn disconnected(&mut self, now: Instant) {
        self.backend.connection_closed(true);
        if let Some(process) = self.backend.process() {
            process.expect_end(now + EXIT_LIMIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use confinement::Enforcement;
    use shim_config::{Backend, Device, Program};

    use super::*;
    use crate::control::{Delivery, Order};

    #[test]
    fn guest_stops_waiting_for_an_optional_device_once() {
        let (supervisor, worker) = Control::pair().unwrap();
        let now = Instant::now();
        let backend = Backend::Program(Program::new(vec!["backend".into()]));
        let device = Device::new("i2c".into(), 34, 0, 0x200_0000, 33, backend.clone());
        let mut device = ManagedDevice {
            claimed: ClaimedDevice::without_queues(device),
            backend: ManagedBackend::new("guest-a/i2c".into(), backend, "/run/s".into(), Enforcement::On),
            stage: Stage::Served,
            waited_until: None,
        };
        // It waits for a device that is not optional.
        device.stop_waiting(7, Some(&supervisor));
        device.waited_until = Some(now);
        device.stop_waiting(7, Some(&supervisor));
        device.stop_waiting(7, Some(&supervisor));
        drop(supervisor);
        let order = worker.receive_order().unwrap();
        assert!(matches!(order, Some(Order::Deliver(Delivery { device: 7, backend: None }))), "{order:?}");
        assert!(worker.receive_order().unwrap().is_none());
    }
}
