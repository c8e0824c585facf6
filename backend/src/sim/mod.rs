// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A model of a board in place of hardware: for unit tests, for the demo, and behind QEMU's own virtio devices.
//!
//! The board is described by a TOML file for both kinds of bus ([`board`]); what happens on it is written to a
//! [`journal`]; faults and inputs come in by a [`control`] socket. The models are with their devices.

pub mod board;
pub mod control;
pub mod journal;
