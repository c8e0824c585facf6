// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same transfer again and again, for its cost: how long all of them took by the clock of the domain.
//!
//! The board is not looked at and nothing is compared; that is what the stress tools are for. A transfer that fails
//! is counted, since it costs something else than one that succeeds.

use std::time::Instant;

use super::{Failure, gpio, i2c};

/// One transfer, which says whether it succeeded.
type Transfer<'a> = Box<dyn FnMut() -> bool + 'a>;

/// Writes the number of a register and reads `length` bytes of it, with a repeated start.
pub(super) fn i2c_read(bus: u32, address: u16, register: u8, length: u8, count: u32) -> Result<(), Failure> {
    let mut bus = i2c::open(bus)?;
    let mut bytes = vec![0; length.into()];
    report(count, Box::new(|| i2c::read_register(&mut bus, address, register, &mut bytes).is_ok()))
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

fn report(count: u32, mut transfer: Transfer<'_>) -> Result<(), Failure> {
    let mut latencies = Vec::with_capacity(count.try_into()?);
    let mut errors = 0_u32;
    let start = Instant::now();
    for _ in 0..count {
        let begin = Instant::now();
        errors += u32::from(!transfer());
        latencies.push(begin.elapsed());
    }
    let nanoseconds = start.elapsed().as_nanos();
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len().saturating_sub(1) * share / 1000);
    let [median, late] = [500, 990].map(|share| at(share).map_or(0, |latency| latency.as_nanos()));
    println!("transfers={count} errors={errors} nanoseconds={nanoseconds} median={median} p99={late}");
    Ok(())
}
