// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! GPIO lines, by version 2 of the kernel's character device.

use std::io::{Write, stdout};
use std::thread;
use std::time::{Duration, Instant};

use gpiod::{Chip, EdgeDetect, Input, Lines, Options, Output};

use super::arguments::Failure;

const CONSUMER: &str = "agent";

/// Returns the chip with this device name or label.
pub(super) fn chip(name: &str) -> Result<Chip, Failure> {
    for path in Chip::list_devices()? {
        let chip = Chip::new(&path)?;
        if chip.name() == name || chip.label() == name {
            return Ok(chip);
        }
    }
    Err(format!("no GPIO chip has the name or the label {name}").into())
}

pub(super) fn input(chip: &Chip, line: u32) -> Result<Lines<Input>, Failure> {
    Ok(chip.request_lines(Options::input([line]).consumer(CONSUMER))?)
}

pub(super) fn output(chip: &Chip, line: u32, value: bool) -> Result<Lines<Output>, Failure> {
    Ok(chip.request_lines(Options::output([line]).values([value]).consumer(CONSUMER))?)
}

/// Prints a line and flushes it: the host waits for it.
fn print_line(text: &str) -> Result<(), Failure> {
    println!("{text}");
    Ok(stdout().flush()?)
}

pub(super) fn lines(name: &str) -> Result<(), Failure> {
    let chip = chip(name)?;
    for line in 0..chip.num_lines() {
        let info = chip.line_info(line)?;
        print_line(&format!("{line} {:?} {} {:?}", info.name, info.direction, info.consumer))?;
    }
    Ok(())
}

pub(super) fn get(name: &str, line: u32) -> Result<(), Failure> {
    let [value] = input(&chip(name)?, line)?.get_values([false])?;
    print_line(if value { "1" } else { "0" })
}

pub(super) fn hold(name: &str, line: u32, value: bool) -> Result<(), Failure> {
    let _held = output(&chip(name)?, line, value)?;
    print_line("held")?;
    loop {
        thread::park();
    }
}

pub(super) fn blink(name: &str, line: u32, count: u32, milliseconds: u64) -> Result<(), Failure> {
    let line = output(&chip(name)?, line, false)?;
    for _ in 0..count {
        for value in [true, false] {
            line.set_values([value])?;
            // The duration of one state of the lamp.
            thread::sleep(Duration::from_millis(milliseconds));
        }
    }
    print_line("done")
}

pub(super) fn watch(name: &str, line: u32, edge: &str, count: u32) -> Result<(), Failure> {
    let edge = match edge {
        "rising" => EdgeDetect::Rising,
        "falling" => EdgeDetect::Falling,
        "both" => EdgeDetect::Both,
        _ => return Err(format!("an edge is rising, falling or both, not {edge}").into()),
    };
    let mut lines = chip(name)?.request_lines(Options::input([line]).edge(edge).consumer(CONSUMER))?;
    print_line("watching")?;
    for _ in 0..count {
        let event = lines.read_event()?;
        print_line(&format!("{:?}", event.edge).to_lowercase())?;
    }
    Ok(())
}

pub(super) fn stress(name: &str, out: u32, back: u32, rounds: u32) -> Result<(), Failure> {
    let chip = chip(name)?;
    let (out, back) = (output(&chip, out, false)?, input(&chip, back)?);
    let start = Instant::now();
    let (mut errors, mut differences) = (0_u32, 0_u32);
    for round in 0..rounds {
        let value = round % 2 == 0;
        match out.set_values([value]).and_then(|()| back.get_values([!value])) {
            Ok([seen]) if seen == value => {}
            Ok(_) => differences += 1,
            Err(error) => {
                errors += 1;
                if errors == 1 {
                    eprintln!("round {round}: {error}");
                }
            }
        }
    }
    let transfers = u64::from(rounds) * 2;
    let seconds = start.elapsed().as_secs_f64();
    print_line(&format!(
        "transfers={transfers} errors={errors} differences={differences} seconds={seconds:.3}"
    ))
}
