// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A hostile guest and `backend i2c` with the simulated board behind it.

#![no_main]

use backend_fuzz::{Input, Record, i2c, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| {
    run(&i2c::DEVICE, &input, &Record::None);
});
