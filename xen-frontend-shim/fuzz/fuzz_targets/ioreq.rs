// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests as Xen could write them into its page: each is answered exactly once, except the kicks that are
//! the kernel's, and a write is answered with nothing.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shim_config::WINDOW_SIZE;
use xen_bindings::{Direction, Kind, RawRequest};
use xen_frontend_shim::model::bus::{BASE, serve};

/// How far below the first window and above the last addresses go.
const AROUND: u64 = 0x100;

#[derive(Arbitrary, Debug)]
struct Raw {
    address: u16,
    elsewhere: Option<u64>,
    data: u64,
    size: Size,
    count: Option<u32>,
    reads: bool,
    pointer: bool,
    kind: Option<u8>,
    /// The vCPU asks for something else before it is served: the kernel was faster.
    overtaken: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Size {
    Four,
    One,
    Two,
    Eight,
    Odd(u32),
}

impl Raw {
    fn request(&self) -> RawRequest {
        let near = BASE - AROUND + u64::from(self.address) % (2 * WINDOW_SIZE + 2 * AROUND);
        RawRequest {
            kind: self.kind.map_or(Kind::Copy, Kind::from_wire),
            direction: if self.reads { Direction::Read } else { Direction::Write },
            addr: self.elsewhere.unwrap_or(near),
            data: self.data,
            size: match self.size {
                Size::One => 1,
                Size::Two => 2,
                Size::Four => 4,
                Size::Eight => 8,
                Size::Odd(size) => size,
            },
            count: self.count.unwrap_or(1),
            data_is_ptr: self.pointer,
        }
    }
}

fuzz_target!(|raws: Vec<Raw>| {
    serve(raws.windows(2).map(|pair| (pair[0].request(), pair[0].overtaken.then(|| pair[1].request()))));
});
