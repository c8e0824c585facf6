// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio GPIO device (virtio 1.3, 5.18).

pub mod chip;
pub mod controller;
pub mod policy;
pub mod request;
pub mod spec;

use clap::Args;

use crate::cli::Connection;
use crate::device::Device;

/// Arguments of `backend gpio`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
}

impl Arguments {
    /// How the frontend comes in.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Opens what the arguments name.
    ///
    /// # Errors
    /// Says what cannot be opened.
    pub fn open(&self) -> anyhow::Result<Box<dyn Device>> {
        anyhow::bail!("the GPIO device is not there yet")
    }
}
