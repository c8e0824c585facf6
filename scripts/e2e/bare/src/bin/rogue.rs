// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same image, linked for the memory of the driver domain. Built for the host, this program only prints
//! an error.

#![cfg_attr(bare_metal, no_std, no_main)]

// The library has the start-up code at which Xen enters.
use bare as _;

#[cfg(not(bare_metal))]
fn main() -> std::process::ExitCode {
    eprintln!("rogue: this runs as the driver domain of Xen, see scripts/cross-build");
    std::process::ExitCode::FAILURE
}
