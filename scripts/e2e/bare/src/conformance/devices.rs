// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the tests do with a device of either kind.

use alloc::vec::Vec;

use anyhow::{Context, Result};

use super::{gpio, i2c};
use crate::grants::Granted;
use crate::virtio::device::{Device, Kind};

/// Tries the same with a device of each kind, from a reset on, and makes sure that it can be driven after it.
pub(super) fn each(attempt: impl Fn(&mut Device) -> Result<()>) -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        attempt(&mut device).with_context(|| alloc::format!("{kind:?}"))?;
        device.reset()?;
        works(&mut device, kind).with_context(|| alloc::format!("{kind:?}, driven as usual after it"))?;
    }
    Ok(())
}

/// Drives the device as a driver does: one request, and its answer.
pub(super) fn works(device: &mut Device, kind: Kind) -> Result<()> {
    match kind {
        Kind::I2c => i2c::works(device),
        Kind::Gpio => gpio::works(device),
    }
}

/// Offers requests that change nothing, without a kick; returns the pages that they are in.
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
