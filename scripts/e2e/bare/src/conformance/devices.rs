// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Operations on a device of either type.

use alloc::vec::Vec;

use anyhow::{Context, Result};

use super::{gpio, i2c};
use crate::grants::Granted;
use crate::virtio::device::{Device, Kind};

/// Runs `attempt` on a device of each type after a reset, and checks that the device works afterwards.
pub(super) fn each(attempt: impl Fn(&mut Device) -> Result<()>) -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        attempt(&mut device).with_context(|| alloc::format!("{kind:?}"))?;
        device.reset()?;
        works(&mut device, kind).with_context(|| alloc::format!("{kind:?}, one request after the test"))?;
    }
    Ok(())
}

/// Starts the device and sends one request, as a driver does.
pub(super) fn works(device: &mut Device, kind: Kind) -> Result<()> {
    match kind {
        Kind::I2c => i2c::works(device),
        Kind::Gpio => gpio::works(device),
    }
}

/// Offers requests without effect, and does not kick. Returns the pages of the requests.
pub(super) fn offer_many(device: &mut Device, kind: Kind, count: usize) -> Result<Vec<Granted>> {
    let mut pages = Vec::new();
    for _ in 0..count {
        let page = Granted::new()?;
        let chain = match kind {
            Kind::I2c => i2c::harmless(page)?,
            Kind::Gpio => gpio::harmless(page)?,
        };
        device.queue(0)?.offer(&chain.buffers)?;
        pages.push(chain.page);
    }
    Ok(pages)
}
