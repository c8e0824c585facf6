// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device without queues for tests of the core.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{Device, Disconnect, Persistence, QueueLimits};
use crate::chain::Chain;
use crate::inflight::DeviceRecord;

/// A device that has the deadline and the persistence that the test sets, and records how its frontend
/// disconnects.
#[derive(Default)]
pub(crate) struct FakeDevice {
    pub(crate) deadline: Option<Instant>,
    pub(crate) keeps_hardware: bool,
    pub(crate) disconnect: Arc<Mutex<Option<Disconnect>>>,
}

impl Device for FakeDevice {
    fn queues(&self) -> &'static [QueueLimits] {
        &[]
    }

    fn process(&mut self, _: usize, _: &mut Vec<Chain>, _: &mut Vec<Chain>) {}

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn persistence(&mut self) -> Option<&mut dyn Persistence> {
        Some(self)
    }
}

impl Persistence for FakeDevice {
    fn record_bytes(&self) -> usize {
        0
    }

    fn restore(&mut self, _: DeviceRecord) {}

    fn keeps_hardware(&self) -> bool {
        self.keeps_hardware
    }

    fn disconnect(&mut self, disconnect: Disconnect) {
        *self.disconnect.lock().expect("a lock") = Some(disconnect);
    }
}
