// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's image. All of it is in the library; for the machine that builds it, there is nothing to run.

#![cfg_attr(bare_metal, no_std, no_main)]

#[cfg(bare_metal)]
mod guest {
    use core::panic::PanicInfo;

    // Its start-up code is where Xen enters.
    use bare as _;

    /// Says why, and crashes: Xen takes the domain off the machine, and whoever waits for it sees that.
    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        bare::console::print(format_args!("bare {info}\n"));
        bare::xen::crash()
    }
}

#[cfg(not(bare_metal))]
fn main() -> std::process::ExitCode {
    eprintln!("bare: Xen runs this, see scripts/cross-build");
    std::process::ExitCode::FAILURE
}
