// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interrupts. Each is counted; code that waits for an interrupt waits for a change of its count.
//!
//! The controller is the GICv3 that Xen emulates. Its registers are those of Arm's GIC architecture
//! specification (IHI 0069), chapter 12.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::clock::Moment;
use crate::machine::{self, Width};
use crate::platform::places;
use crate::uart;

/// The size of a redistributor: two frames of 64 KiB for each CPU.
const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;
/// The second frame of a redistributor, for software-generated and private interrupts.
const PRIVATE: u64 = 0x1_0000;

/// GICD_CTLR, and its bits EnableGrp1 and ARE.
const CONTROL: u64 = 0x0000;
const ENABLED: u64 = 1 << 1 | 1 << 4;
/// GICR_WAKER.
const WAKER: u64 = 0x0014;
/// GICx_IGROUPR, one bit for each interrupt.
const GROUP: u64 = 0x0080;
/// GICx_ISENABLER, likewise.
const ENABLE: u64 = 0x0100;
/// GICx_IPRIORITYR, one byte for each.
const PRIORITY: u64 = 0x0400;
/// GICx_ICFGR, two bits for each: 2 is edge-triggered.
const CONFIGURATION: u64 = 0x0c00;
/// The priority of all interrupts, four in a word.
const PRIORITIES: u64 = 0xa0a0_a0a0;

/// Software-generated interrupt 0, which wakes a CPU that was given work.
pub const WAKE: usize = 0;
/// The virtual timer (GUEST_TIMER_VIRT_PPI).
const TIMER: usize = 27;
/// The number of interrupts that the guest has. The first 32 are private to a CPU.
const COUNT: usize = 64;
/// The interrupt numbers from which on there is no interrupt to handle.
const NONE: u64 = 1020;

static COUNTS: [AtomicU32; COUNT] = [const { AtomicU32::new(0) }; COUNT];

fn write(address: u64, value: u64) {
    // Xen emulates a controller for every guest. Without it nothing works, and the host notices.
    let _ = machine::store(address, Width::Word, value);
}

/// Enables the shared interrupts: the console's is level-triggered, those of devices are edge-triggered, as
/// in their nodes.
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

/// Enables the private interrupts of the CPU that calls this.
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

/// Handles pending interrupts. The caller has masked interrupts.
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

/// Returns how often an interrupt has occurred.
#[must_use]
pub fn count(number: usize) -> u32 {
    COUNTS.get(number).map_or(0, |count| count.load(Ordering::Acquire))
}

/// Waits until `ready` is true, or until `end`. Returns whether `ready` is true. It is evaluated after every
/// interrupt.
///
/// If no interrupt announces what `ready` checks, call this repeatedly with a near `end`.
pub fn wait(end: Option<Moment>, mut ready: impl FnMut() -> bool) -> bool {
    loop {
        // An interrupt between the check and the wait ends the wait.
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
