// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Daemons that die and are replaced, with a record of what was in flight that is theirs, or of anybody's making.

#![no_main]

use arbitrary::Arbitrary;
use backend_fuzz::{Input, Region, gpio, i2c, run};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Case {
    gpio: bool,
    region: Option<Vec<u8>>,
    input: Input,
}

fuzz_target!(|case: Case| {
    let device = if case.gpio { &gpio::DEVICE } else { &i2c::DEVICE };
    let region = case.region.map_or(Region::Fresh, Region::Found);
    run(device, &case.input, &region);
});
