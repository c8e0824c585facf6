// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! GPIO (virtio 1.3, 5.18), by the daemon of upstream, with the chip of the power button.

use anyhow::{Result, ensure};
use e2e::host::machine::Machine;

use crate::LIMIT;
use crate::daemon::{self, Daemon, script};

pub(crate) const DAEMON: Daemon = Daemon { device: "gpio", program: "vhost-device-gpio", user: 10209 };

/// The edge of the power button is an interrupt in the guest.
pub(crate) fn button_is_seen(machine: &Machine) -> Result<()> {
    let watch = machine.guest_a.start(&["agent", "gpio-watch", "gpiochip0", "3", "rising", "1"])?;
    watch.look_until(LIMIT, |output| output.text().contains("watching"))?;
    machine.press_power_button()?;
    let output = watch.look_until(LIMIT, |_| false)?;
    ensure!(output.succeeded(), "{:?}: {} {}", output.end, output.text(), output.error_text());
    Ok(())
}

/// A daemon that hangs while it has a request is killed, although its user is not that of the worker, and
/// replaced. To be the last use of the device: the request has no answer, and Linux waits for one.
pub(crate) fn hang_is_ended(machine: &Machine) -> Result<()> {
    let former = DAEMON.pid(machine)?;
    script(&machine.driver_domain, &format!("kill -STOP {former}"))?;
    let _read = machine.guest_a.start(&["agent", "gpio-get", "gpiochip0", "3"])?;
    DAEMON.wait_for_another(machine, &former)
}

/// The types of interrupts have ended with the daemon.
pub(crate) fn bind_again(machine: &Machine) -> Result<()> {
    daemon::bind_again(&machine.guest_a, "gpio_virtio")
}
