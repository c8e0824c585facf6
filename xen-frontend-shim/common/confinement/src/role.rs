// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kinds of processes in the driver domain, and what each of them may do.

pub mod backend;
pub mod supervisor;
pub mod worker;
