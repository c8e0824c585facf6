// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Daemons that die and are replaced, with an in-flight record that is valid or forged.

#![no_main]

use arbitrary::Arbitrary;
use backend_fuzz::{Input, Record, gpio, i2c, run};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Case {
    gpio: bool,
    record: Option<Vec<u8>>,
    input: Input,
}

fuzz_target!(|case: Case| {
    let device = if case.gpio { &gpio::DEVICE } else { &i2c::DEVICE };
    let record = case.record.map_or(Record::Fresh, Record::Found);
    run(device, &case.input, &record);
});
