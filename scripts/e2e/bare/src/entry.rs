// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Entry points from machine/start.s: the start of a CPU, exceptions, and the panic handler.
//!
//! They are above all other modules: they call the interrupt handler, the main loops of the CPUs and the
//! agent.

#![allow(unsafe_code)]

use core::panic::PanicInfo;

use crate::machine::{self, Registers};
use crate::{agent, cpus, interrupts, uart, xen};

/// The entry point of the first CPU, with the address of the device tree.
#[unsafe(no_mangle)]
extern "C" fn first_main(device_tree: u64) -> ! {
    // SAFETY: start.s passes x0 of the boot protocol, which is the address of a device tree, and calls this
    // once.
    unsafe { machine::initialise(device_tree) };
    interrupts::enable_distributor();
    interrupts::enable_this_cpu();
    cpus::start_others();
    agent::serve()
}

/// The entry point of every other CPU.
#[unsafe(no_mangle)]
extern "C" fn another_main() -> ! {
    cpus::serve_for_ever()
}

/// Handles an exception, given its index in the vector table and the saved registers.
#[unsafe(no_mangle)]
extern "C" fn exception(index: u64, registers: &mut Registers) {
    if index == machine::INTERRUPT {
        interrupts::handle();
    } else {
        machine::handle_abort(index, registers);
    }
}

/// Prints the reason and crashes the domain, which the host notices.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    uart::print(format_args!("bare {info}\n"));
    xen::crash()
}
