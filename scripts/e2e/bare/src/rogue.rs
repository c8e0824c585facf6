// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver domain under the control of an attacker: it makes every hypercall on every domain, and runs
//! sequences that have succeeded on some system.
//!
//! ```text
//!  commands ─▶ every (the tables, call by call) ─┐
//!             attacks (sequences, by name) ──────┼─▶ ledger ─▶ attempt ─▶ Xen
//!             chance (the tables, changed) ──────┘     │
//!                                                      └─▶ memory: does it contain a secret?
//! ```
//!
//! Each guest ([`witness`](crate::witness)) watches its own memory, and gives the host the targets: the place
//! of its secret, and the pages that it has granted. The host (scripts/e2e/tests/rogue) compares the calls
//! that succeed with a list.

mod attacks;
mod attempt;
mod chance;
mod every;
mod hypercall;
mod known;
mod ledger;
mod memory;
mod tables;
mod words;

use alloc::vec::Vec;

use anyhow::{Context, Result, bail, ensure};
use spin::Mutex;

use crate::jobs::Job;
use crate::number::number;
use attempt::Attempt;
use known::Known;
use ledger::Ledger;
use words::Target;

static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// Runs a command.
///
/// # Errors
/// Returns an error if the command is unknown or fails. A hypercall that Xen refuses is not an error.
pub fn run(job: &Job, command: &[&str]) -> Result<()> {
    match *command {
        ["unpause", domid] => unpause(job, domid),
        ["know", domid, frame, control, read_only, neighbour, secret] => {
            know(domid, frame, [control, read_only, neighbour], secret)
        }
        ["control"] => with_ledger(job, attacks::control),
        ["every"] => with_ledger(job, every::run),
        ["attacks"] => with_ledger(job, attacks::run),
        ["chance", seed, count] => {
            let (seed, count) = (number(seed)?, number(count)?);
            with_ledger(job, |ledger, known| chance::run(ledger, known, seed, count))
        }
        _ => bail!("unknown command of the rogue: {}", command.join(" ")),
    }
}

/// Unpauses a guest, as a driver domain does when its devices answer.
fn unpause(job: &Job, domid: &str) -> Result<()> {
    let target = Target { domid: number(domid)?, ..Target::default() };
    let attempt = Attempt::named(hypercall::DOMCTL, "unpausedomain", &target).context("unknown hypercall")?;
    let mut ledger = Ledger::default();
    ensure!(ledger.make(&attempt, false), "domain {domid} cannot be unpaused");
    ledger.report(job);
    Ok(())
}

fn know(domid: &str, frame: &str, references: [&str; 3], secret: &str) -> Result<()> {
    let [control, read_only, neighbour] = references;
    KNOWN.lock().push(Known {
        domid: number(domid)?,
        frame: number(frame)?,
        control: number(control)?,
        read_only: number(read_only)?,
        neighbour: number(neighbour)?,
        secret: number(secret)?,
    });
    Ok(())
}

fn with_ledger(job: &Job, perform: impl FnOnce(&mut Ledger, &[Known; 2]) -> Result<()>) -> Result<()> {
    let known = KNOWN.lock().clone();
    let known: [Known; 2] = known.try_into().ok().context("run `rogue know` for two guests first")?;
    let mut ledger = Ledger::new(known.map(|guest| guest.secret));
    memory::clear();
    perform(&mut ledger, &known)?;
    ledger.report(job);
    Ok(())
}
