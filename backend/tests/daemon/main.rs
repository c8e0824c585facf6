// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of the daemon as a process, with a vhost-user frontend and a guest.

// With the feature, guest memory is Xen's.
#![cfg(not(feature = "xen"))]
// A failed step ends the test; clippy's exceptions for tests do not apply to helper functions.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod board;
mod confined;
mod console;
mod gpio;
mod guest;
mod i2c;
mod inflight;
mod program;
mod refusals;
mod rings;
mod uml;
