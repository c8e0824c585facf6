// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! vhost-user device daemons for I2C, GPIO and a console, one multi-call binary.
//!
//! ```text
//!  frontend (xen-frontend-shim, QEMU)                          hardware (or sim), text
//!     │ vhost-user socket                                          ▲
//!     ▼                                                            │
//!  session ── state of one frontend: features, memory, rings       │
//!     │                                                            │
//!  kick ─▶ queue ─▶ chain ─▶ Device::process ─▶ i2c | gpio | console
//!           │  take all,     (a batch of       request → policy → device → bus | lines
//!           │  copy in        requests)                             │
//!  call ◀── queue ◀─ chain ◀─ finished chains ◀─────────────────────┘
//!              complete all, copy out, notify once
//! ```
//!
//! One process serves one device. [`daemon`] has a thread for the frontend and a worker for the queues and
//! the device, with one lock around the session. Transfers that may block are [`device::BlockingWork`]
//! outside of the lock, so that the frontend always gets its replies.
//!
//! Trust: the guest is hostile, and all of its bytes reach a device through [`chain`]. The frontend is not
//! hostile, but may die at any time. The operator's arguments may be wrong, and are answered with an
//! explanation.
//!
//! `README.md` describes the behaviour of the devices, and the way of a request through these files.

pub mod arguments;
pub mod chain;
pub mod cli;
pub mod confine;
pub mod console;
pub mod daemon;
pub mod device;
pub mod gpio;
pub mod i2c;
pub mod inflight;
mod inherited;
pub mod memory;
pub mod queue;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sysfs;
pub mod watch;
