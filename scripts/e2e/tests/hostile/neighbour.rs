// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The well-behaved guest: it uses its devices for as long as an attack lasts, and checks each transfer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;

/// The limit for a round beside an attack.
const LIMIT: Duration = Duration::from_secs(120);

/// Repeats transfers of both devices, and prints errors and the number of rounds. One request runs all of it,
/// and each process makes many transfers: requests and process starts use processor time.
const WORK: &str = "\
    n=0; rm -f /tmp/over; while [ ! -e /tmp/over ]; do \
    agent i2c-stress 0 0x68 0x10 8 50 | grep -v ' errors=0 differences=0 '; \
    agent time-gpio-get gpiochip0 3 50 | grep -v ' errors=0 '; \
    n=$((n+1)); done; echo rounds=$n";

/// Runs `attack` while the guest uses its devices.
pub(crate) fn beside(guest: &Channel, attack: impl FnOnce() -> Result<()>) -> Result<()> {
    let work = guest.start(&["sh", "-c", WORK])?;
    let attacked = attack();
    guest.check(&["touch", "/tmp/over"], LIMIT)?;
    // The round that began during the attack completes.
    let output = work.look_until(LIMIT, |_| false)?;
    attacked?;
    // Any other output is that of a failed transfer.
    let (text, error) = (output.text(), output.error_text());
    let rounds = text.strip_prefix("rounds=").and_then(|rounds| rounds.parse::<u32>().ok());
    let rounds = rounds.filter(|_| error.is_empty());
    let rounds = rounds.with_context(|| format!("the well-behaved guest: {text} {error}"))?;
    ensure!(rounds > 0, "the well-behaved guest has completed no round");
    eprintln!("the well-behaved guest beside it: {rounds} rounds without an error");
    Ok(())
}
