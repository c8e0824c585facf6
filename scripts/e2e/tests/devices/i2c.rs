// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! I2C adapter (virtio 1.3, 5.16), by the daemon of upstream, beside one of ours on the same bus.

use anyhow::{Result, ensure};
use e2e::host::machine::Machine;

use crate::LIMIT;
use crate::daemon::{self, Daemon};

pub(crate) const DAEMON: Daemon = Daemon { device: "i2c", program: "vhost-device-i2c", user: 10208 };

/// A byte is written to the EEPROM and read back, while the other guest reads its sensor by our daemon.
pub(crate) fn eeprom_is_written(machine: &Machine) -> Result<()> {
    let beside = machine.guest_b.start(&["agent", "i2c-stress", "0", "0x68", "0x10", "4", "50"])?;
    for byte in ["5a", "a5"] {
        machine.guest_a.check(&["agent", "i2c", "0", &format!("w0x50:10{byte}")], LIMIT)?;
        let read = machine.guest_a.check(&["agent", "i2c", "0", "w0x50:10", "r0x50:1"], LIMIT)?;
        ensure!(read.contains(byte), "wrote {byte}, read {read}");
    }
    let others = beside.look_until(LIMIT, |_| false)?;
    ensure!(others.text().contains("errors=0 differences=0"), "{} {}", others.text(), others.error_text());
    Ok(())
}

/// The next daemon writes used entries from the start of the ring on, where the driver does not read them.
pub(crate) fn bind_again(machine: &Machine) -> Result<()> {
    daemon::bind_again(&machine.guest_a, "i2c_virtio")
}
