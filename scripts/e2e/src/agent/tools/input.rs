// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A keyboard of Linux's uinput, and a reader of the keys of an input device.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use evdev::uinput::VirtualDevice;
use evdev::{AttributeSet, Device, EventType, InputEvent, KeyCode};
use rustix::fs::{CWD, Mode, mkfifoat};

use super::arguments::{Failure, number};

/// Creates a keyboard of this name, and presses and releases the keys whose codes are written to `fifo`, one
/// in each line. Runs until it is killed.
pub(super) fn keyboard(name: &str, fifo: &str) -> Result<(), Failure> {
    if !Path::new(fifo).exists() {
        mkfifoat(CWD, fifo, Mode::from_raw_mode(0o600))?;
    }
    // The codes of the keys that a keyboard of a PC has.
    let keys: AttributeSet<KeyCode> = (1..=88).map(KeyCode::new).collect();
    let mut device = VirtualDevice::builder()?.name(name).with_keys(&keys)?.build()?;
    loop {
        for line in BufReader::new(fs::File::open(fifo)?).lines() {
            let code = number(line?.trim())?;
            for value in [1, 0] {
                // `emit` adds the SYN_REPORT that completes the event.
                device.emit(&[InputEvent::new(EventType::KEY.0, code, value)])?;
            }
        }
    }
}

/// Prints the next `count` presses and releases of keys of the input device of this name, as `CODE=VALUE`.
pub(super) fn keys(name: &str, count: usize) -> Result<(), Failure> {
    let named = |(_, device): &(_, Device)| device.name() == Some(name);
    let (_, mut device) =
        evdev::enumerate().find(named).ok_or_else(|| format!("there is no input device {name}"))?;
    eprintln!("waiting");
    let mut left = count;
    while left > 0 {
        let events: Vec<InputEvent> = device.fetch_events()?.collect();
        for event in events.into_iter().filter(|event| event.event_type() == EventType::KEY) {
            println!("{}={}", event.code(), event.value());
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}
