// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The letter of virtio 1.3, one test for each row of the register table and each statement about the device,
//! named after the clause: `s4_2_2_1_…` shows what section 4.2.2.1 demands. `CONFORMANCE.md` lists them by
//! statement, and a test here keeps that list true.

mod access;
mod configuration;
mod document;
mod features;
mod queues;
mod registers;
mod reset;
mod status;

use super::test_driver::{Driver, FEATURES};
use crate::virtio_mmio::State;

/// The steps of an initialisation, after each of which a driver may do anything.
const STEPS: [fn(&mut Driver); 7] = [
    |driver| driver.write(0x70, 0),
    |driver| driver.write(0x70, 1),
    |driver| driver.write(0x70, 3),
    |driver| driver.take_features(FEATURES),
    |driver| driver.write(0x70, 0xb),
    |driver| {
        driver.describe_queue(0, 8);
        driver.describe_queue(1, 16);
    },
    |driver| driver.write(0x70, 0xf),
];

/// A driver that has done the first `steps` of its initialisation.
fn after(steps: usize) -> Driver {
    after_of_type(false, steps)
}

fn after_of_type(starts_by_kick: bool, steps: usize) -> Driver {
    let mut driver = Driver::of_type(starts_by_kick);
    STEPS.iter().take(steps).for_each(|step| step(&mut driver));
    driver
}

/// A driver in each state of its initialisation, and in each of these with a broken device and with one given
/// up.
fn everywhere() -> impl Iterator<Item = Driver> {
    let ways = (0..=STEPS.len()).flat_map(|steps| (0..4).map(move |more| (steps, more)));
    ways.map(|(steps, more)| {
        let mut driver = after(steps);
        if more & 1 != 0 {
            driver.window.device_lost();
        }
        if more & 2 != 0 {
            let status = driver.read(0x70);
            driver.write(0x70, status | 0x80);
        }
        driver
    })
}

/// A driver that uses the device.
fn live() -> Driver {
    after(STEPS.len())
}

/// The state of the transport, and the calls to its device.
fn everything(driver: &Driver) -> (State, String) {
    (driver.window.state(), format!("{:?}", driver.log()))
}
