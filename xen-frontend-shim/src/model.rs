// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Models for property tests and fuzzing: each performs an action and panics if a rule is broken.

pub mod bus;
pub mod state;
pub mod transport;
