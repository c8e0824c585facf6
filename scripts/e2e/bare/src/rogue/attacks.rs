// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sequences of hypercalls that have succeeded on some system. A step that must not succeed has the name of
//! its attack.

use core::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};

use super::attempt::Attempt;
use super::hypercall::{DEVICE_MODEL_OP, EVENT_CHANNEL_OP, GRANT_TABLE_OP, HOST_MAP, MEMORY_OP};
use super::known::Known;
use super::ledger::Ledger;
use super::memory;
use super::words::Target;
use crate::grants::{self, Granted, PERMIT};
use crate::witness::{ANSWER, CONTROL};

/// `GNTMAP_device_map`, `GNTMAP_readonly`.
const DEVICE_MAP: u64 = 1;
const READ_ONLY: u64 = 4;
/// `GNTCOPY_source_gref`, `GNTCOPY_dest_gref`, in the word of a copy that has length and flags.
const FROM_GRANT: u64 = 1 << 16;
const TO_GRANT: u64 = 2 << 16;
/// The page of the landing zone for granted pages.
const MAPPED: u64 = 8;
/// The first frame of a guest's RAM, which has its image (arch-arm.h: GUEST_RAM0_BASE).
const IMAGE: u64 = 0x4_0000;
/// An entry of a guest's grant table that the guest does not use.
const FORGED: u64 = 300;
/// The number of ports that a domain may have at first.
const PORTS: u64 = 64;
/// One more than the number of event channels that a domain may have.
const MOST_CHANNELS: usize = 1025;
/// The value that the rogue writes wherever it can.
const MARK: u64 = 0xbad0_bad0_bad0_bad0;

/// Checks that a page that a guest has granted can be mapped, read and written.
pub(super) fn control(ledger: &mut Ledger, known: &[Known; 2]) -> Result<()> {
    for guest in known {
        let map = map(guest.domid, guest.control, HOST_MAP)?;
        ensure!(ledger.make(&map, false), "a page that domain {} has granted cannot be mapped", guest.domid);
        let found = memory::landed(MAPPED, 0).context("the mapped page cannot be read")?;
        ensure!(found == CONTROL, "the page that domain {} has granted reads {found:#x}", guest.domid);
        ensure!(memory::overwrite(MAPPED, 1, ANSWER), "the mapped page cannot be written");
        unmap(ledger)?;
    }
    Ok(())
}

/// Runs all attacks on both guests.
pub(super) fn run(ledger: &mut Ledger, known: &[Known; 2]) -> Result<()> {
    type Attack = fn(&mut Ledger, &Known) -> Result<()>;
    const ATTACKS: [Attack; 11] = [
        forge_grant_table,
        map_foreign_pages,
        forge_references,
        write_where_reading_is_granted,
        copy_from_and_to_frames,
        take_other_resources,
        put_pages_of_devices,
        take_event_channels,
        cover_what_xen_emulates,
        raise_interrupts,
        grant_what_is_not_its_own,
    ];
    for guest in known {
        for attack in ATTACKS {
            attack(ledger, guest)?;
            memory::clear();
        }
    }
    exhaust_event_channels(ledger)
}

fn call(hypercall: u64, name: &str, target: &Target) -> Result<Attempt> {
    Attempt::named(hypercall, name, target).with_context(|| alloc::format!("unknown call: {name}"))
}

/// Returns a map_grant_ref. `struct gnttab_map_grant_ref`: host_addr; flags and ref; dom, status and handle.
fn map(domid: u16, reference: u32, flags: u64) -> Result<Attempt> {
    let target = Target { domid, grant: reference, ..Target::default() };
    let attempt = call(GRANT_TABLE_OP, "map_grant_ref", &target)?;
    Ok(attempt.with(1, flags | u64::from(reference) << 32))
}

/// Unmaps the page of the last successful [`map`]. Xen has written the handle to its structure.
fn unmap(ledger: &mut Ledger) -> Result<()> {
    let handle = memory::argument_word(2) >> 32;
    let attempt = call(GRANT_TABLE_OP, "unmap_grant_ref", &Target::default())?;
    let status = 0x5555 << 32;
    ensure!(ledger.make(&attempt.with(2, handle | status), false), "a granted page cannot be unmapped");
    Ok(())
}

/// Maps the guest's grant table, writes an entry that grants a page with the secret, and maps that page.
fn forge_grant_table(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    let target = guest.target();
    for frame in 0..4 {
        let take = call(MEMORY_OP, "acquire_resource:grant_table", &target)?.with(2, frame);
        if !ledger.make(&take, false) {
            continue;
        }
        // grant_entry_v1: flags, domid, frame.
        let entry = u64::from(PERMIT) | 1 << 16 | guest.frame << 32;
        memory::overwrite(0, FORGED, entry);
        let reference = u32::try_from(512 * frame + FORGED)?;
        let forged = map(guest.domid, reference, HOST_MAP)?.attack("forge-grant-table");
        if ledger.make(&forged, false) {
            memory::overwrite(MAPPED, 511, MARK);
        }
    }
    Ok(())
}

/// Adds the guest's pages to its own address space, by all calls that add pages.
fn map_foreign_pages(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    let (target, image) = (guest.target(), Target { frame: IMAGE, ..guest.target() });
    for target in [target, image] {
        for name in ["add_to_physmap_batch:gmfn_foreign", "add_to_physmap_batch:shared_info"] {
            ledger.make(&call(MEMORY_OP, name, &target)?.attack("map-foreign-pages"), false);
        }
        for space in 0..6 {
            let attempt = call(MEMORY_OP, "add_to_physmap:gmfn", &target)?;
            let domid = u64::from(guest.domid);
            ledger.make(&attempt.with(0, domid | space << 32).attack("map-foreign-pages"), false);
        }
        for name in ["remove_from_physmap", "exchange", "decrease_reservation", "populate_physmap"] {
            ledger.make(&call(MEMORY_OP, name, &target)?.attack("change-memory-of-a-guest"), false);
        }
    }
    Ok(())
}

/// Maps and copies by references that are granted to another domain or to none, and by all likely references.
fn forge_references(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    let own = [guest.control, guest.read_only];
    let forged =
        (0..64).chain([guest.neighbour, 2047, 2048, u32::MAX]).filter(|reference| !own.contains(reference));
    for reference in forged {
        for flags in [HOST_MAP, HOST_MAP | READ_ONLY, DEVICE_MAP, DEVICE_MAP | HOST_MAP] {
            ledger.make(&map(guest.domid, reference, flags)?.attack("map-by-forged-reference"), false);
        }
        let from = copy(guest, u64::from(reference), memory::own_frame(), FROM_GRANT)?;
        ledger.make(&from.attack("copy-by-forged-reference"), false);
    }
    Ok(())
}

/// Returns a copy. `struct gnttab_copy`: source and its domid, destination and its domid, length, flags and
/// status.
fn copy(guest: &Known, source: u64, destination: u64, flags: u64) -> Result<Attempt> {
    const SELF: u64 = 0x7ff0;
    let domid = u64::from(guest.domid);
    let (from, to) = if flags == FROM_GRANT { (domid, SELF) } else { (SELF, domid) };
    let attempt = call(GRANT_TABLE_OP, "copy", &guest.target())?.with(0, source).with(1, from);
    Ok(attempt.with(2, destination).with(3, to).with(4, 4096 | flags | 0x5555 << 32))
}

/// Writes to a page that is granted read-only: by a writable mapping, by a copy. It maps the page for reading
/// too, but does not write to it: Xen 4.20 does not inject this fault, so the instruction would be executed
/// again without end.
fn write_where_reading_is_granted(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    let writable = map(guest.domid, guest.read_only, HOST_MAP)?;
    if ledger.make(&writable.attack("map-for-writing"), false) {
        memory::overwrite(MAPPED, 2, MARK);
    }
    if ledger.make(&map(guest.domid, guest.read_only, HOST_MAP | READ_ONLY)?, false) {
        unmap(ledger)?;
    }
    let to = copy(guest, memory::own_frame(), guest.read_only.into(), TO_GRANT)?;
    ledger.make(&to.attack("copy-to-what-is-read-only"), false);
    Ok(())
}

/// Copies by frame number, without a grant.
fn copy_from_and_to_frames(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    let (domid, own) = (u64::from(guest.domid), memory::own_frame());
    for frame in [guest.frame, IMAGE] {
        let from = copy(guest, frame, own, 0)?.with(1, domid).with(3, 0x7ff0);
        ledger.make(&from.attack("copy-from-a-frame"), false);
        let to = copy(guest, own, frame, 0)?;
        ledger.make(&to.attack("copy-to-a-frame"), false);
        let own_to_own = copy(guest, frame, own, 0)?.with(3, 0x7ff0);
        ledger.make(&own_to_own.attack("copy-a-frame-as-its-own"), false);
    }
    Ok(())
}

/// Acquires resources other than those of an ioreq server, and frames of an ioreq server that do not exist.
fn take_other_resources(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    for kind in 1..8 {
        for (id, frame) in [(0, 0), (1, 0), (0, 1), (7, 4)] {
            let attempt = call(MEMORY_OP, "acquire_resource:ioreq_server", &guest.target())?;
            let attempt = attempt.with(0, u64::from(guest.domid) | kind << 16 | id << 32).with(2, frame);
            ledger.make(&attempt.attack("acquire-other-resource"), false);
        }
    }
    for frame in 2..8 {
        let attempt = call(MEMORY_OP, "acquire_resource:ioreq_server", &guest.target())?.with(2, frame);
        ledger.make(&attempt.attack("acquire-frame-beyond-the-ioreq-server"), false);
    }
    Ok(())
}

/// Maps the pages of devices that the domain does not own, and RAM as if it were a device.
fn put_pages_of_devices(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    // QEMU's virt machine: the interrupt controller, Xen's UART, a virtio slot of no domain, and RAM of
    // guests.
    for frame in [0x8000, 0x80a0, 0x9000, 0xa000, 0x4_0000, 0x7_0000, 0xb_0000, 0xb_f000] {
        let attempt = call(MEMORY_OP, "add_to_physmap:dev_mmio", &guest.target())?;
        for domid in [0x7ff0, u64::from(guest.domid)] {
            let attempt =
                attempt.clone().with(0, domid | 5 << 32).with(1, frame).with(2, (memory::LANDING >> 12) + 1);
            ledger.make(&attempt.attack("map-device-of-another"), false);
        }
    }
    Ok(())
}

/// Binds to the ports that a guest may have; creates channels between other domains; resets the guest's.
fn take_event_channels(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    let domid = u64::from(guest.domid);
    let other = if domid == 2 { 3 } else { 2 };
    for port in 0..PORTS {
        let bind = call(EVENT_CHANNEL_OP, "bind_interdomain", &guest.target())?;
        // Ports of an ioreq server: the driver domain may bind to them.
        ledger.make(&bind.with(0, domid | port << 32), false);
    }
    // A channel from one guest to the other, and channels that any domain may bind.
    for remote in [other, 0, 0x7ff1, 0x7ff2] {
        let alloc = call(EVENT_CHANNEL_OP, "alloc_unbound", &guest.target())?;
        ledger.make(&alloc.with(0, domid | remote << 16).attack("connect-a-guest-to-another"), false);
    }
    for name in ["reset", "reset_cont"] {
        ledger.make(&call(EVENT_CHANNEL_OP, name, &guest.target())?.attack("reset-a-guest"), false);
    }
    Ok(())
}

/// Maps ranges of an ioreq server over the guest's RAM, interrupt controller and console. Xen handles those
/// first: the guest continues to run.
fn cover_what_xen_emulates(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    let target = guest.target();
    let create = call(DEVICE_MODEL_OP, "create_ioreq_server", &target)?;
    if !ledger.make(&create, false) {
        return Ok(());
    }
    let id = memory::argument_word(1) >> 32 & 0xffff;
    for (start, end) in [(0x0300_1000, 0x0300_1fff), (0x2200_0000, 0x2200_0fff), (0x4000_0000, 0x4fff_ffff)] {
        let range = call(DEVICE_MODEL_OP, "map_io_range_to_ioreq_server", &target)?;
        ledger.make(&range.with(1, id | 1 << 32).with(2, start).with(3, end), false);
    }
    let enable = call(DEVICE_MODEL_OP, "set_ioreq_server_state", &target)?;
    ledger.make(&enable.with(1, id | 1 << 16), false);
    ledger.make(&call(DEVICE_MODEL_OP, "destroy_ioreq_server", &target)?.with(1, id), false);
    Ok(())
}

/// Raises every interrupt. Those of a vCPU and of the console are raised by Xen only.
fn raise_interrupts(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    for interrupt in 0..1100 {
        let mut attempt =
            call(DEVICE_MODEL_OP, "set_irq_level", &guest.target())?.with(1, interrupt | 1 << 32);
        // Private interrupts, and GUEST_VPL011_SPI.
        if interrupt <= 32 {
            attempt = attempt.attack("raise-interrupt-of-xen");
        }
        ledger.make(&attempt, false);
        ledger.make(&attempt.with(1, interrupt), false);
    }
    Ok(())
}

/// Grants frames of others to itself, and maps them.
fn grant_what_is_not_its_own(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    for frame in [guest.frame, IMAGE, 0x4_0001, 0x9000] {
        let granted = Granted::with_flags(0)?;
        let entry = grants::entry(granted.reference()).context("the reference is beyond the table")?;
        entry.domain.store(1, Ordering::Relaxed);
        entry.frame.store(u32::try_from(frame)?, Ordering::Relaxed);
        entry.flags.store(PERMIT, Ordering::Release);
        crate::machine::barrier();
        for domid in [1, 0x7ff0, 0x7ff1, 0x7ff2] {
            let attempt = map(domid, granted.reference(), HOST_MAP)?;
            ledger.make(&attempt.attack("map-own-grant-of-a-frame-of-others"), false);
        }
    }
    Ok(())
}

/// Creates event channels until Xen refuses, and closes all.
fn exhaust_event_channels(ledger: &mut Ledger) -> Result<()> {
    let own = Target { domid: 0x7ff0, ..Target::default() };
    let made = (0..MOST_CHANNELS).take_while(|_| {
        call(EVENT_CHANNEL_OP, "bind_ipi", &own).is_ok_and(|attempt| ledger.make(&attempt, false))
    });
    ensure!(made.count() < MOST_CHANNELS, "Xen does not limit event channels");
    ledger.make(&call(EVENT_CHANNEL_OP, "reset", &own)?, false);
    Ok(())
}
