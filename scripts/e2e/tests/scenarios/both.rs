// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Both guests use their devices at once: each transfer succeeds, is on the bus once, and has its own data.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use e2e::host::channel::Channel;
use e2e::host::machine::Machine;
use serde_json::Value;

use crate::i2c::{is_about, succeeded};

/// The number of rounds. Each has two transfers: one that writes, and one that reads.
const ROUNDS: usize = 1500;
const LIMIT: Duration = Duration::from_secs(600);

pub(crate) fn both_guests_at_once(machine: &Machine) -> Result<()> {
    let mark = machine.i2c.mark()?;
    let rounds = ROUNDS.to_string();
    // Eight bytes of the EEPROM, and of the clock's memory.
    let eeprom = ["agent", "i2c-stress", "0", "0x50", "0x20", "8", &rounds];
    let clock = ["agent", "i2c-stress", "0", "0x68", "0x10", "8", &rounds];
    let lines = ["agent", "gpio-stress", "gpiochip0", "2", "3", &rounds];
    let clean = |guest: &Channel, command: &[&str]| -> Result<()> {
        let output = guest.run(command, LIMIT)?;
        let (text, errors) = (output.text(), output.error_text());
        let expected = format!("transfers={} errors=0 differences=0 ", 2 * ROUNDS);
        ensure!(output.succeeded() && text.starts_with(&expected), "{}: {text} {errors}", command.join(" "));
        eprintln!("{}: {text}", command.join(" "));
        Ok(())
    };
    thread::scope(|scope| {
        let a = scope.spawn(|| clean(&machine.guest_a, &eeprom));
        let b =
            scope.spawn(|| clean(&machine.guest_b, &clock).and_then(|()| clean(&machine.guest_b, &lines)));
        [a, b]
            .into_iter()
            .try_for_each(|guest| guest.join().map_err(|_| anyhow!("the thread of a guest has panicked"))?)
    })?;
    let entries = machine.i2c.since(mark)?;
    for address in [0x50, 0x68] {
        let own: Vec<&Value> = entries.iter().filter(|entry| is_about(entry, address)).collect();
        let good = own.iter().filter(|entry| succeeded(entry)).count();
        ensure!(
            good == 2 * ROUNDS && own.len() == good,
            "{good} of {} requests to {address:#x} in the journal",
            own.len()
        );
    }
    ensure!(entries.len() == 4 * ROUNDS, "{} requests in the journal", entries.len());
    Ok(())
}
