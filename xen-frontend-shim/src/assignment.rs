// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device that the supervisor assigns to a worker, in a message of [`crate::control`].
//!
//! The supervisor keeps duplicates of all descriptors, so that the next worker can be assigned the same
//! device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use shim_config::{Device, Properties, PropertyError};

/// The properties of a device that its worker needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The device's name.
    pub name: String,
    /// The virtio device ID.
    pub device_id: u32,
    /// The guest physical address of the register window.
    pub base: u64,
    /// The interrupt's number at the guest's GIC (INTID).
    pub irq: u32,
    /// What vhost-user has no message for.
    pub properties: Properties,
    /// The queues.
    pub queues: Vec<KernelPaths>,
}

/// Which notifications of a queue the kernel passes on. The worker passes on the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelPaths {
    /// Kicks, by ioeventfd.
    pub kick_by_kernel: bool,
    /// Interrupts, by irqfd.
    pub call_by_kernel: bool,
}

/// The eventfds of a queue.
#[derive(Debug)]
pub struct QueueEvents {
    /// Signalled by each kick.
    pub kick: OwnedFd,
    /// Signalled by the backend for each interrupt.
    pub call: OwnedFd,
}

/// A device with its descriptors.
#[derive(Debug)]
pub struct Assignment {
    /// The properties.
    pub description: Description,
    /// The file of the state record.
    pub state: OwnedFd,
    /// The file of the in-flight record.
    pub inflight: OwnedFd,
    /// The eventfds of each queue of the description.
    pub queues: Vec<QueueEvents>,
}

impl Description {
    /// The description of `device`.
    ///
    /// # Errors
    /// Returns an error if the configuration of the device is not valid.
    pub fn of(device: &Device, queues: Vec<KernelPaths>) -> Result<Self, PropertyError> {
        let properties = Properties::of(device)?;
        let Device { name, device_id, base, irq, .. } = device;
        Ok(Self { name: name.clone(), device_id: *device_id, base: *base, irq: *irq, properties, queues })
    }
}

impl Assignment {
    /// The descriptors in the order of [`Self::from_parts`].
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let queues = self.queues.iter().flat_map(|queue| [queue.kick.as_fd(), queue.call.as_fd()]);
        [self.state.as_fd(), self.inflight.as_fd()].into_iter().chain(queues).collect()
    }

    /// Joins a description with its descriptors. `None` if there are too few.
    pub(crate) fn from_parts(description: Description, fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let (state, inflight) = (fds.next()?, fds.next()?);
        let mut queues = Vec::new();
        for _ in &description.queues {
            queues.push(QueueEvents { kick: fds.next()?, call: fds.next()? });
        }
        Some(Self { description, state, inflight, queues })
    }
}
