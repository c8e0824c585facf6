// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! GPIO (virtio 1.3, 5.18), by the daemon of upstream, with the chip of the power button.

use anyhow::{Result, ensure};
use e2e::host::machine::Machine;

use crate::LIMIT;
use crate::daemon::{self, Daemon};

pub(crate) const DAEMON: Daemon = Daemon { device: "gpio", program: "vhost-device-gpio" };

/// The edge of the power button is an interrupt in the guest.
pub(crate) fn button_is_seen(machine: &Machine) -> Result<()> {
    let watch = machine.guest_a.start(&["agent", "gpio-watch", "gpiochip0", "3", "rising", "1"])?;
    watch.look_until(LIMIT, |output| output.text().contains("watching"))?;
    machine.press_power_button()?;
    let output = watch.look_until(LIMIT, |_| false)?;
    ensure!(output.succeeded(), "{:?}: {} {}", output.end, output.text(), output.error_text());
    Ok(())
}

/// The types of interrupts have ended with the daemon.
pub(crate) fn bind_again(machine: &Machine) -> Result<()> {
    daemon::bind_again(&machine.guest_a, "gpio_virtio")
}
