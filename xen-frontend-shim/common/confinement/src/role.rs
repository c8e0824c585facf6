// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kinds of processes of the driver domain, and the rights of each.

pub mod backend;
pub mod program;
pub mod supervisor;
pub mod worker;
