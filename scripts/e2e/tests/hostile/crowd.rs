// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One guest has as many adapters as possible and another has one, all on the same bus, which is slow.
//!
//! The bus alternates between the two guests, however many adapters each has, and the shim does not kill a
//! backend that waits for the bus. Each transaction takes the longest time that the backend allows: without
//! turns, a read of the second guest would wait for eleven of them, which is eight seconds.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::host::machine::{Machine, Place};
use serde_json::{Value, json};
use toml::{Table, Value as Toml};

use crate::shared::rebuild;

/// How long each transaction takes on the bus: the backend's limit (backend/src/i2c/time.rs).
const MILLISECONDS: u64 = 750;
/// Addresses of the first guest's EEPROMs, one on each of its adapters; a guest can have eleven devices.
const ADDRESSES: std::ops::Range<u16> = 0x10..0x1b;
/// Address of the second guest's clock.
const CLOCK: u16 = 0x68;
/// Reads of the clock that `agent time-i2c` makes, one after the other, after its warm-up.
const MEASURED: usize = 4;
/// All reads of the clock, with the eight of the warm-up.
const READS: usize = MEASURED + 8;
/// Transactions of the first guest that usually pass between two reads of the clock, at most: the one that
/// has the bus when the read is submitted.
const USUALLY: usize = 1;
/// The same in the worst case. On a slow host, the second guest can be late by several transactions; without
/// turns, it would be all eleven every time.
const RARELY: usize = 5;
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
    // One process makes all reads: to start one for each takes longer than a transaction on a slow host.
    let (clock, count) = (CLOCK.to_string(), MEASURED.to_string());
    let report = machine.guest_b.check(&["agent", "time-i2c", "0", &clock, "0", "1", &count], LIMIT)?;
    ensure!(report.contains("errors=0"), "the reads of the clock: {report}");
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

/// Fails if the first guest had the bus too often between two reads of the clock.
fn check_turns(journal: &[Value]) -> Result<()> {
    let is_clock = |entry: &Value| {
        let address = entry.pointer("/messages/0/address").and_then(Value::as_u64);
        address == Some(CLOCK.into())
    };
    let reads: Vec<usize> =
        (0..).zip(journal).filter(|(_, entry)| is_clock(entry)).map(|(at, _)| at).collect();
    ensure!(reads.len() == READS, "the clock was read {} times", reads.len());
    let mut between: Vec<usize> =
        reads.windows(2).map(|pair| pair.iter().fold(0, |from, to| to - from) - 1).collect();
    eprintln!("transactions of the first guest between two reads of the clock: {between:?}");
    between.sort_unstable();
    let (median, most) = (between.get(between.len() / 2), between.last());
    let is_fair = median.is_some_and(|count| *count <= USUALLY) && most.is_some_and(|count| *count <= RARELY);
    ensure!(is_fair, "between two reads of the clock, the first guest has the bus {between:?} times");
    Ok(())
}
