// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interrupts. Each is counted, and code that waits for one waits for its count to change.
//!
//! The controller is the GICv3 that Xen emulates. Its registers are those of Arm's GIC architecture
//! specification (IHI 0069), chapter 12.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::clock::Moment;
use crate::machine::{self, Width};
use crate::platform::places;
use crate::uart;

/// Each CPU has two frames of 64 KiB.
const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;
/// The second frame of a redistributor, for software and private interrupts.
const PRIVATE: u64 = 0x1_0000;

/// GICD_CTLR, and in it: interrupts of group 1 are delivered, and addressed by affinity.
const CONTROL: u64 = 0x0000;
const ENABLED: u64 = 1 << 1 | 1 << 4;
/// GICR_WAKER.
const WAKER: u64 = 0x0014;
/// GICx_IGROUPR, one bit for each interrupt.
const GROUP: u64 = 0x0080;
/// GICx_ISENABLER, likewise.
const ENABLE: u64 = 0x0100;
/// GICx_IPRIORITYR, a byte for each.
const PRIORITY: u64 = 0x0400;
/// GICx_ICFGR, two bits for each: 2 is an edge.
const CONFIGURATION: u64 = 0x0c00;
/// All have this one.
const PRIORITIES: u64 = 0xa0a0_a0a0;

/// Software interrupt 0 wakes a CPU that has been given something to do.
pub const WAKE: usize = 0;
/// The virtual timer (GUEST_TIMER_VIRT_PPI).
const TIMER: usize = 27;
/// What the guest has: the first 32 are of each CPU, the others of all.
const COUNT: usize = 64;
/// From this number on there is none to handle.
const NONE: u64 = 1020;

static COUNTS: [AtomicU32; COUNT] = [const { AtomicU32::new(0) }; COUNT];

fn write(address: u64, value: u64) {
    // The controller is there: Xen makes it for every guest. If it is not, nothing works and the host sees
    // that.
    let _ = machine::store(address, Width::Word, value);
}

/// Enables the interrupts of all CPUs: the console's is a level, the devices' are edges as their nodes say.
pub fn enable_distributor() {
    let distributor = places().distributor;
    write(distributor + CONTROL, ENABLED);
    write(distributor + GROUP + 4, 0xffff_ffff);
    for word in 8..16 {
        write(distributor + PRIORITY + 4 * word, PRIORITIES);
    }
    let console = places().console_interrupt;
    for (word, first) in [(2, 32), (3, 48)] {
        let edges = (0..16)
            .filter(|number| first + number != console)
            .fold(0, |edges, number| edges | 2 << (2 * number));
        write(distributor + CONFIGURATION + 4 * word, edges);
    }
    write(distributor + ENABLE + 4, 0xffff_ffff);
}

/// Enables the interrupts of the CPU that calls this.
pub fn enable_this_cpu() {
    let number = u64::try_from(machine::cpu()).unwrap_or(0);
    let redistributor = places().redistributors + REDISTRIBUTOR_SIZE * number;
    write(redistributor + WAKER, 0);
    let private = redistributor + PRIVATE;
    write(private + GROUP, 0xffff_ffff);
    for word in 0..8 {
        write(private + PRIORITY + 4 * word, PRIORITIES);
    }
    write(private + ENABLE, 1 << WAKE | 1 << TIMER);
    machine::enable_cpu_interface();
}

/// Handles what is pending; called with interrupts masked.
pub fn handle() {
    loop {
        let number = machine::acknowledge_interrupt();
        if number >= NONE {
            return;
        }
        match usize::try_from(number) {
            Ok(TIMER) => machine::set_timer(None),
            Ok(number) if number == places().console_interrupt => uart::mask_interrupt(),
            _ => {}
        }
        if let Some(count) = usize::try_from(number).ok().and_then(|number| COUNTS.get(number)) {
            count.fetch_add(1, Ordering::Release);
        }
        machine::end_of_interrupt(number);
    }
}

/// How often an interrupt has come so far.
#[must_use]
pub fn count(number: usize) -> u32 {
    COUNTS.get(number).map_or(0, |count| count.load(Ordering::Acquire))
}

/// Waits until `ready` says so, which is asked again after every interrupt, or until `end`. Returns whether
/// it is.
///
/// With `ready` that nothing interrupts for, ask with an `end` that is near, and again.
pub fn wait(end: Option<Moment>, mut ready: impl FnMut() -> bool) -> bool {
    loop {
        // What comes between the question and the wait ends the wait.
        machine::mask_interrupts();
        let is_ready = ready();
        let is_over = end.is_some_and(Moment::has_come);
        if !is_ready && !is_over {
            machine::set_timer(end.map(|end| end.0));
            machine::wait_for_interrupt();
        }
        machine::unmask_interrupts();
        if is_ready || is_over {
            machine::set_timer(None);
            return is_ready;
        }
    }
}
