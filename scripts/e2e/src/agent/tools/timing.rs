// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Measures repeated transfers by the clock of the domain.
//!
//! Data is not compared: the stress tools do that. Failed transfers are counted, since their cost differs.

use std::fs::write;
use std::io::{Write, stdout};
use std::thread;
use std::time::{Duration, Instant};

use gpiod::{EdgeDetect, Options};
use ledger::Mark;

use super::arguments::Failure;
use super::{gpio, i2c};
use crate::agent::mark::mark;

/// The number of transfers before those that are measured.
const WARM_UP: u32 = 8;

/// Makes one transfer, and returns whether it succeeded.
type Transfer<'a> = Box<dyn FnMut() -> bool + 'a>;

/// Writes the number of a register and reads `length` bytes of it, with a repeated start.
pub(super) fn i2c_read(bus: u32, address: u16, register: u8, length: u8, count: u32) -> Result<(), Failure> {
    let mut bus = i2c::open(bus)?;
    let mut bytes = vec![0; length.into()];
    report(count, Box::new(|| i2c::read_register(&mut bus, address, register, &mut bytes).is_ok()))
}

/// Reads two bytes in each of `messages` messages of one transfer, all of which a virtio driver has in flight
/// at once.
pub(super) fn i2c_flight(bus: u32, address: u16, messages: usize, count: u32) -> Result<(), Failure> {
    let mut bus = i2c::open(bus)?;
    report(count, Box::new(|| i2c::read_messages(&mut bus, address, messages).is_ok()))
}

/// Reads an input.
pub(super) fn gpio_get(chip: &str, line: u32, count: u32) -> Result<(), Failure> {
    let line = gpio::input(&gpio::chip(chip)?, line)?;
    report(count, Box::new(|| line.get_values([false]).is_ok()))
}

/// Drives an output, 0 and 1 in turn.
pub(super) fn gpio_set(chip: &str, line: u32, count: u32) -> Result<(), Failure> {
    let line = gpio::output(&gpio::chip(chip)?, line, false)?;
    let mut value = false;
    report(
        count,
        Box::new(|| {
            value = !value;
            line.set_values([value]).is_ok()
        }),
    )
}

/// Waits for rising edges: one that is not measured, then `count` that are.
pub(super) fn edges(chip: &str, line: u32, count: u32) -> Result<(), Failure> {
    let options = Options::input([line]).edge(EdgeDetect::Rising).consumer("agent");
    let mut lines = gpio::chip(chip)?.request_lines(options)?;
    println!("watching");
    stdout().flush()?;
    lines.read_event()?;
    mark(Mark::Begin);
    for _ in 0..count {
        lines.read_event()?;
        mark(Mark::Event);
    }
    mark(Mark::Finish);
    println!("transfers={count} errors=0");
    Ok(())
}

/// Makes edges on the line of Linux's gpio-sim whose file `pull` is named. `milliseconds` is long enough that
/// all processes sleep when an edge comes.
pub(super) fn make_edges(pull: &str, count: u32, milliseconds: u64) -> Result<(), Failure> {
    let pause = Duration::from_millis(milliseconds);
    for _ in 0..count {
        write(pull, "pull-down")?;
        thread::sleep(pause);
        mark(Mark::Edge);
        write(pull, "pull-up")?;
        thread::sleep(pause);
    }
    println!("transfers={count} errors=0");
    Ok(())
}

/// Sleeps between two marks.
pub(super) fn idle(milliseconds: u64) {
    // The program's start is not measured.
    thread::sleep(Duration::from_millis(50));
    mark(Mark::Begin);
    thread::sleep(Duration::from_millis(milliseconds));
    mark(Mark::Finish);
    println!("transfers=1 errors=0");
}

/// Makes `count` transfers after [`WARM_UP`] others, and prints errors and latencies.
fn report(count: u32, mut transfer: Transfer<'_>) -> Result<(), Failure> {
    let mut latencies = Vec::with_capacity(count.try_into()?);
    let mut errors = 0_u32;
    // The first transfers cause page faults. If one fails here, a later one fails and is counted.
    for _ in 0..WARM_UP {
        transfer();
    }
    let start = Instant::now();
    mark(Mark::Begin);
    for _ in 0..count {
        let begin = Instant::now();
        mark(Mark::Start);
        errors += u32::from(!transfer());
        mark(Mark::End);
        latencies.push(begin.elapsed());
    }
    mark(Mark::Finish);
    let nanoseconds = start.elapsed().as_nanos();
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len().saturating_sub(1) * share / 1000);
    let [median, p99] = [500, 990].map(|share| at(share).map_or(0, |latency| latency.as_nanos()));
    println!("transfers={count} errors={errors} nanoseconds={nanoseconds} median={median} p99={p99}");
    Ok(())
}
