// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Eleven adapters of one guest and one adapter of another guest use the same slow bus.
//!
//! The bus alternates between the two guests, independent of the number of their adapters, and the shim does
//! not kill a backend that waits for the bus. Each transaction takes the longest time that the backend
//! allows: without turns, a read of the second guest would wait for eleven transactions, which take eight
//! seconds.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::host::machine::{Machine, Place};
use serde_json::{Value, json};
use toml::{Table, Value as Toml};

use crate::shared::rebuild;

/// The duration of each transaction on the bus: the backend's limit (backend/src/i2c/time.rs).
const MILLISECONDS: u64 = 750;
/// The addresses of the first guest's EEPROMs, one on each of its adapters. A guest has at most eleven
/// devices.
const ADDRESSES: std::ops::Range<u16> = 0x10..0x1b;
/// The address of the second guest's clock.
const CLOCK: u16 = 0x68;
/// The number of reads of the clock that `agent time-i2c` measures, one after the other.
const MEASURED: usize = 4;
/// The number of all reads of the clock, with the eight of the warm-up.
const READS: usize = MEASURED + 8;
/// The maximum of the median number of the first guest's transactions between two reads of the clock: the one
/// that has the bus when the read is submitted.
const MAX_MEDIAN: usize = 1;
/// The maximum of that number. On a slow host, the second guest can be late by several transactions. Without
/// turns, it would be eleven each time.
const MAX_BETWEEN: usize = 5;
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn has_one_turn() -> Result<()> {
    let machine = Machine::start(&place()?)?;
    machine.wait_for_guests()?;
    let checked = check(&machine);
    machine.split_log()?;
    checked.map_err(|error| anyhow!("{error:#}\n{}", machine.post_mortem()))
}

/// Builds the demo's image with eleven adapters and no GPIO for the first guest, and an EEPROM for each
/// adapter.
fn place() -> Result<Place> {
    let mut place = rebuild(Place::in_checkout("crowd"), "crowd", |manifest, _| {
        let guests = manifest.get_mut("guest").and_then(Toml::as_array_mut);
        let first = guests
            .and_then(|guests| guests.first_mut()?.as_table_mut())
            .context("the manifest has no guest")?;
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
    // The targets have to come before the table [gpio], which is last in the file.
    let (targets, rest): (Vec<_>, Vec<_>) =
        board.split("\n\n").partition(|part| part.contains("[[i2c.target]]"));
    fs::write(&place.board, [targets.join("\n\n"), rest.join("\n\n")].join("\n\n"))?;
    Ok(place)
}

fn check(machine: &Machine) -> Result<()> {
    let before = backends(machine)?;
    ensure!(before.lines().count() > ADDRESSES.len(), "fewer backends than expected: {before}");
    for address in ADDRESSES.chain([CLOCK]) {
        let fault = json!({ "delay-ms": MILLISECONDS });
        machine.i2c.control(&json!({ "inject": { "address": address, "fault": fault, "count": 1000 } }))?;
    }
    let (mark, start) = (machine.i2c.mark()?, Instant::now());
    // Each adapter reads in a loop of its own. Errors are printed.
    let mut script = "rm -f /tmp/over;".to_owned();
    for (bus, address) in ADDRESSES.enumerate() {
        write!(
            script,
            "(n=0; while [ ! -e /tmp/over ]; do agent i2c {bus} r{address}:1 >/dev/null && n=$((n+1)); done; \
             echo {bus} has read $n) & "
        )?;
    }
    let crowd = machine.guest_a.start(&["sh", "-c", &format!("{script} wait")])?;
    // One process makes all reads: on a slow host, its start takes longer than a transaction.
    let (clock, count) = (CLOCK.to_string(), MEASURED.to_string());
    let report = machine.guest_b.check(&["agent", "time-i2c", "0", &clock, "0", "1", &count], LIMIT)?;
    ensure!(report.contains("errors=0"), "the reads of the clock: {report}");
    machine.guest_a.check(&["touch", "/tmp/over"], LIMIT)?;
    let output = crowd.look_until(LIMIT, |_| false)?;
    let counts = output.text();
    eprintln!("{} transactions in {:.0} s", machine.i2c.mark()? - mark, start.elapsed().as_secs_f64());
    let all_worked = counts.lines().count() == ADDRESSES.len() && !counts.contains("read 0");
    ensure!(
        all_worked && output.error_text().is_empty(),
        "the adapters of the first guest: {counts} {}",
        output.error_text()
    );
    let after = backends(machine)?;
    ensure!(before == after, "backends were replaced: before\n{before}after\n{after}");
    check_turns(&machine.i2c.since(mark)?)
}

/// Returns a line for each backend, with its process ID and its device. A replaced backend has another
/// process ID.
fn backends(machine: &Machine) -> Result<String> {
    let script = "for p in /proc/[0-9]*; do c=$(tr '\\0' ' ' <$p/cmdline 2>/dev/null); \
                  case $c in guest-*:/usr/bin/backend*) echo ${p#/proc/} ${c%%:*};; esac; done";
    machine.driver_domain.check(&["sh", "-c", script], LIMIT)
}

/// Checks how many transactions the first guest had between two reads of the clock.
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
    let is_fair =
        median.is_some_and(|count| *count <= MAX_MEDIAN) && most.is_some_and(|count| *count <= MAX_BETWEEN);
    ensure!(is_fair, "between two reads of the clock, the first guest has the bus {between:?} times");
    Ok(())
}
