// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! vhost-user device daemons for I2C and GPIO, one multi-call binary.
//!
//! ```text
//!  frontend (xen-frontend-shim, QEMU)                         hardware (or sim)
//!     │ control socket                                             ▲
//!     ▼                                                            │
//!  session ── what one frontend negotiated: features, memory, rings│
//!     │                                                            │
//!  kick ─▶ queue ─▶ chain ─▶ Device::process ─▶ i2c | gpio ────────┘
//!           ▲  take all,     (a batch of       spec → request → policy → device → bus | chip
//!           │  copy in        requests)                                          │
//!  call ◀── queue ◀─ chain ◀─ finished chains ◀──────────────────────────────────┘
//!              complete all, copy out, notify once
//! ```
//!
//! One process serves one device: [`daemon`] has a thread that answers the frontend and one that works on
//! what the guest and the device bring, and one lock between them, around all of the session. What a bus may
//! keep waiting is done outside of it ([`device::Work`]), so that the frontend has its answers all the while.
//!
//! Who trusts whom: the guest is hostile, and everything it wrote reaches a device only through [`chain`]. The
//! frontend is trusted not to attack, but may die at any moment. The operator's arguments may be wrong, and are
//! answered in words.

pub mod chain;
pub mod cli;
pub mod confine;
pub mod daemon;
pub mod device;
pub mod gpio;
pub mod i2c;
pub mod inflight;
mod inherited;
pub mod memory;
pub mod queue;
pub mod session;
pub mod sim;
pub mod sysfs;
pub mod watch;
