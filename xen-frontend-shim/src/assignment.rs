// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device that a supervisor gives a worker to serve, in a message of [`crate::control`]: at the start of the worker, and when
//! the configuration has been read again.
//!
//! What must outlive a worker is in here, so that the next worker can be given the same.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use shim_config::Device;

/// What a worker has to know of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The device's name.
    pub name: String,
    /// The virtio device ID.
    pub device_id: u32,
    /// The address of the register window.
    pub base: u64,
    /// The interrupt's number at the guest's GIC.
    pub irq: u32,
    /// Its queues.
    pub queues: Vec<Carriers>,
}

/// What the kernel does for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carriers {
    /// Whether it signals the eventfd of kicks.
    pub kick_by_kernel: bool,
    /// Whether it turns the eventfd of calls into interrupts.
    pub call_by_kernel: bool,
}

/// The event descriptors of a queue.
#[derive(Debug)]
pub struct QueueEvents {
    /// The eventfd by which the backend learns of new buffers.
    pub kick: OwnedFd,
    /// The eventfd by which the backend tells of used buffers.
    pub call: OwnedFd,
}

/// A device to serve.
#[derive(Debug)]
pub struct Assignment {
    /// What it is.
    pub description: Description,
    /// The file of what the device's driver has said.
    pub state: OwnedFd,
    /// The file in which its backends record which requests they have taken.
    pub inflight: OwnedFd,
    /// Its queues, as many as described.
    pub queues: Vec<QueueEvents>,
}

impl Description {
    /// What is to be known of `device`.
    #[must_use]
    pub fn of(device: &Device, queues: Vec<Carriers>) -> Self {
        let Device { name, device_id, base, irq, .. } = device;
        Self { name: name.clone(), device_id: *device_id, base: *base, irq: *irq, queues }
    }
}

impl Assignment {
    /// Its descriptors, in an order that [`Self::from_parts`] knows.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let queues = self.queues.iter().flat_map(|queue| [queue.kick.as_fd(), queue.call.as_fd()]);
        [self.state.as_fd(), self.inflight.as_fd()].into_iter().chain(queues).collect()
    }

    /// The assignment of the device of a `description`, with these descriptors.
    pub fn from_parts(description: Description, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or(io::ErrorKind::InvalidData);
        let (state, inflight) = (next()?, next()?);
        let mut queues = Vec::new();
        for _ in &description.queues {
            queues.push(QueueEvents { kick: next()?, call: next()? });
        }
        Ok(Self { description, state, inflight, queues })
    }
}
