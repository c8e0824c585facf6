// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a backend reports of its own accord, as it reaches the window.

use log::warn;

use super::BackedDevice;
use crate::hypervisor::Hypervisor;
use crate::vhost_user::Session;
use crate::virtio_mmio::Lost;
use crate::window::Window;

/// Reads the backend's channel, and the configuration if it has changed.
pub fn config_changed<H: Hypervisor>(window: &mut Window<BackedDevice<H>>) {
    match window.device_mut().changed_config() {
        Ok(Some(config)) => window.config_changed(config),
        Ok(None) => {}
        Err(Lost) => window.device_lost(),
    }
}

/// The backend has reported that it cannot use `queue` any more: the device is lost to its driver. The
/// backend works, so it is kept, and stops as for a reset.
pub fn queue_failed<H: Hypervisor>(window: &mut Window<BackedDevice<H>>, queue: u16) {
    let device = window.device_mut();
    if device.take_queue_failure(queue) && device.is_in_use() {
        warn!("{}: the driver has made queue {queue} unusable; the device needs a reset", device.name);
        window.device_lost();
    }
}

impl<H: Hypervisor> BackedDevice<H> {
    fn changed_config(&mut self) -> Result<Option<Vec<u8>>, Lost> {
        let changed = self.link.session_mut().map(Session::changed_config);
        self.handle_or_lose(changed)
    }
}
