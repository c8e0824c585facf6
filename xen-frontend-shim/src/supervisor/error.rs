// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors of the supervisor.

use std::io;

use shim_config::{ConfigError, PropertyError};
use thiserror::Error;

use super::backend::StartError;
use crate::control::ControlError;
use crate::handoff::HandoffError;
use crate::state::WriteError;

/// Errors that end the supervisor, or that keep it from serving a guest or a device.
#[derive(Debug, Error)]
pub enum SupervisorError {
    /// A call into Xen or its drivers failed.
    #[error("{0}")]
    Xen(#[from] xen_bindings::Error),
    /// The configuration cannot be read.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The process cannot be confined.
    #[error("{0}")]
    Confinement(#[from] confinement::Error),
    /// A message to a worker cannot be sent.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// A worker cannot be given its descriptors.
    #[error("{0}")]
    Handoff(#[from] HandoffError),
    /// The record of an ioreq server cannot be written.
    #[error("record of the ioreq server: {0}")]
    Record(#[from] WriteError),
    /// The record of the ioreq server is damaged, and several servers exist.
    #[error(
        "the record of its ioreq server is damaged, and which of the servers {0:?} is the shim's is not \
         known: restart the machine"
    )]
    UnknownServer(Vec<u16>),
    /// The configuration of a device is not valid.
    #[error("{0}")]
    Property(#[from] PropertyError),
    /// A backend cannot be started.
    #[error("{0}")]
    Backend(#[from] StartError),
    /// Guests are numbered by 16 bits.
    #[error("the configuration has more than 65535 guests")]
    TooManyGuests,
    /// Devices are numbered by 16 bits.
    #[error("the guest has more than 65535 devices")]
    TooManyDevices,
    /// No guest of the configuration is served.
    #[error("no guest can be served: see the errors above")]
    NoGuest,
}
