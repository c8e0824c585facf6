// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The real daemon, as a process, over a real vhost-user frontend: what a guest sees, and what it cannot break.

// With the feature, guest memory is Xen's.
#![cfg(not(feature = "xen"))]
// A test that cannot go on ends; the exceptions for tests do not reach what they call.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod board;
mod confined;
mod gpio;
mod guest;
mod i2c;
mod inflight;
mod program;
mod refusals;
mod rings;
mod uml;
