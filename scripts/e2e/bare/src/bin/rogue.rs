// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same image, linked for where the driver domain has its memory. For the machine that builds it, there
//! is nothing to run.

#![cfg_attr(bare_metal, no_std, no_main)]

// Its start-up code is where Xen enters.
use bare as _;

#[cfg(not(bare_metal))]
fn main() -> std::process::ExitCode {
    eprintln!("rogue: Xen runs this, see scripts/cross-build");
    std::process::ExitCode::FAILURE
}
