// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state of a transport as it may be found after a crash: it is refused, or it is one that a driver can have
//! brought about, and then it is taken up as it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_frontend_shim::virtio_mmio::State;
use xen_frontend_shim::virtio_mmio::model::take_up;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = postcard::from_bytes::<State>(bytes) {
        take_up(&state);
    }
});
