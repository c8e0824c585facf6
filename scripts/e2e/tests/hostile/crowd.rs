// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest with as many adapters as it can have, all on one slow bus and all at work, beside a guest with
//! one.
//!
//! The other guest has every second turn, since there are two of them; and nobody takes a daemon that waits
//! for the bus for one that hangs. A transaction takes as long as it may take at all, so that without turns
//! each would wait for nine seconds.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::host::machine::{Machine, Place};
use serde_json::{Value, json};
use toml::{Table, Value as Toml};

use crate::shared::rebuild;

/// A transaction's time on the bus: what the backend's limit is (backend/src/i2c/time.rs).
const MILLISECONDS: u64 = 750;
/// Where the first guest has an EEPROM on each of its adapters, as many as a guest can have devices.
const ADDRESSES: std::ops::Range<u16> = 0x10..0x1b;
/// Where the other guest has its clock.
const CLOCK: u16 = 0x68;
/// How often the other guest reads it, one read after the other.
const READS: usize = 12;
/// Others that may be between two reads of it: one that was on the bus when it came, and one more, for which
/// the guest may have been away too long.
const BETWEEN: usize = 2;
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn has_one_turn() -> Result<()> {
    let machine = Machine::start(&place()?)?;
    machine.wait_for_guests()?;
    let checked = check(&machine);
    machine.split_log()?;
    checked.map_err(|error| anyhow!("{error:#}\n{}", machine.post_mortem()))
}

/// The demo's first guest with nothing but adapters, and an EEPROM on the board for each.
fn place() -> Result<Place> {
    let mut place = rebuild(Place::in_checkout("crowd"), "crowd", |manifest, _| {
        let guests = manifest.get_mut("guest").and_then(Toml::as_array_mut);
        let first = guests.and_then(|guests| guests.first_mut()?.as_table_mut()).context("no guest")?;
        first.remove("gpio");
        let adapter = |address: u16| {
            let target = Table::from_iter([("address".to_owned(), i64::from(address).into())]);
            let targets = vec![Toml::Table(target)];
            let name = format!("i2c{address:x}");
            let entries = [
                ("adapter".to_owned(), "i2c0".into()),
                ("name".to_owned(), name.into()),
                ("targets".to_owned(), targets.into()),
            ];
            Toml::Table(Table::from_iter(entries))
        };
        first.insert("i2c".to_owned(), ADDRESSES.map(adapter).collect::<Vec<_>>().into());
        Ok(())
    })?;
    let mut board = fs::read_to_string(&place.board)?;
    for address in ADDRESSES {
        write!(board, "\n[[i2c.target]]\naddress = {address}\nmodel = \"at24c02\"\n")?;
    }
    place.board = place.image.with_file_name("hardware.toml");
    // The [gpio] table of the board comes last there, and a table cannot be opened again after it.
    let (targets, rest): (Vec<_>, Vec<_>) =
        board.split("\n\n").partition(|part| part.contains("[[i2c.target]]"));
    fs::write(&place.board, [targets.join("\n\n"), rest.join("\n\n")].join("\n\n"))?;
    Ok(place)
}

fn check(machine: &Machine) -> Result<()> {
    let before = backends(machine)?;
    ensure!(before.lines().count() > ADDRESSES.len(), "the backends are {before}");
    for address in ADDRESSES.chain([CLOCK]) {
        let fault = json!({ "delay-ms": MILLISECONDS });
        machine.i2c.control(&json!({ "inject": { "address": address, "fault": fault, "count": 1000 } }))?;
    }
    let (mark, start) = (machine.i2c.mark()?, Instant::now());
    // Each in a loop of its own, and what goes wrong is told.
    let mut script = "rm -f /tmp/over;".to_owned();
    for (bus, address) in ADDRESSES.enumerate() {
        write!(
            script,
            "(n=0; while [ ! -e /tmp/over ]; do agent i2c {bus} r{address}:1 >/dev/null && n=$((n+1)); done; \
             echo {bus} has read $n) & "
        )?;
    }
    let crowd = machine.guest_a.start(&["sh", "-c", &format!("{script} wait")])?;
    let read = format!("r{CLOCK}:1");
    for _ in 0..READS {
        machine.guest_b.check(&["agent", "i2c", "0", &read], LIMIT)?;
    }
    machine.guest_a.check(&["touch", "/tmp/over"], LIMIT)?;
    let output = crowd.look_until(LIMIT, |_| false)?;
    let said = output.text();
    eprintln!("{} transactions in {:.0} s", machine.i2c.mark()? - mark, start.elapsed().as_secs_f64());
    let all_worked = said.lines().count() == ADDRESSES.len() && !said.contains("read 0");
    ensure!(all_worked && output.error_text().is_empty(), "the crowd: {said} {}", output.error_text());
    let after = backends(machine)?;
    ensure!(before == after, "backends were killed: there were\n{before}and are\n{after}");
    check_turns(&machine.i2c.since(mark)?)
}

/// The backends by process and name: one that was killed has another number.
fn backends(machine: &Machine) -> Result<String> {
    let script = "for p in /proc/[0-9]*; do c=$(tr '\\0' ' ' <$p/cmdline 2>/dev/null); \
                  case $c in guest-*:/usr/bin/backend*) echo ${p#/proc/} ${c%%:*};; esac; done";
    machine.driver_domain.check(&["sh", "-c", script], LIMIT)
}

/// Fails if others had the bus too often between two reads of the clock.
fn check_turns(journal: &[Value]) -> Result<()> {
    let is_clock = |entry: &Value| {
        let address = entry.pointer("/messages/0/address").and_then(Value::as_u64);
        address == Some(CLOCK.into())
    };
    let reads: Vec<usize> =
        (0..).zip(journal).filter(|(_, entry)| is_clock(entry)).map(|(at, _)| at).collect();
    ensure!(reads.len() == READS, "the clock was read {} times", reads.len());
    let between: Vec<usize> =
        reads.windows(2).map(|pair| pair.iter().fold(0, |from, to| to - from) - 1).collect();
    eprintln!("transactions of the other guest between two reads: {between:?}");
    let late = between.iter().filter(|others| **others > BETWEEN).count();
    ensure!(late == 0, "{late} reads waited for more than {BETWEEN} transactions of the other guest");
    Ok(())
}
