// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The well-behaved guest: at work as long as an attack lasts, and every transfer checked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::channel::Channel;

/// How long a round may take beside an attack.
const LIMIT: Duration = Duration::from_secs(120);

/// Repeats some transfers of both kinds, and prints errors and the number of rounds. It needs no request for
/// each and seldom a new process: both take the processors' time.
const WORK: &str = "\
    n=0; rm -f /tmp/over; while [ ! -e /tmp/over ]; do \
    agent i2c-stress 0 0x68 0x10 8 50 | grep -v ' errors=0 differences=0 '; \
    agent time-gpio-get gpiochip0 3 50 | grep -v ' errors=0 '; \
    n=$((n+1)); done; echo rounds=$n";

/// Runs `attack` while the guest works.
pub(crate) fn beside(guest: &Channel, attack: impl FnOnce() -> Result<()>) -> Result<()> {
    let work = guest.start(&["sh", "-c", WORK])?;
    let attacked = attack();
    guest.check(&["touch", "/tmp/over"], LIMIT)?;
    // What began beside the attack comes to its end.
    let output = work.look_until(LIMIT, |_| false)?;
    attacked?;
    // Anything else that it says is of a transfer that went wrong.
    let (said, error) = (output.text(), output.error_text());
    let rounds = said.strip_prefix("rounds=").and_then(|rounds| rounds.parse::<u32>().ok());
    let rounds = rounds.filter(|_| error.is_empty());
    let rounds = rounds.with_context(|| format!("the well-behaved guest: {said} {error}"))?;
    ensure!(rounds > 0, "the well-behaved guest has done nothing");
    eprintln!("the well-behaved guest beside it: {rounds} rounds without an error");
    Ok(())
}
