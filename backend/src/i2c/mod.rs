// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio I2C adapter device (virtio 1.3, 5.16).

use clap::Args;

use crate::cli::Connection;
use crate::device::Device;

/// Arguments of `backend i2c`.
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
        anyhow::bail!("the I2C device is not there yet")
    }
}
