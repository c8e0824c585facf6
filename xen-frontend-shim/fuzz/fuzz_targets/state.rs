// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state of a transport as it may be found after a crash: one that a driver can have brought about is
//! taken up as it is, and any other costs the driver a reset.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_frontend_shim::model::state::restore;
use xen_frontend_shim::virtio_mmio::State;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = postcard::from_bytes::<State>(bytes) {
        restore(&state);
    }
});
