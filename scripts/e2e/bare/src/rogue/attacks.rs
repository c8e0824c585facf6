// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is known to have worked somewhere, step by step. A step that must not succeed has the name of its
//! attack.

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
/// `GNTCOPY_source_gref`, `GNTCOPY_dest_gref`, in the word of a copy that has its length and its flags.
const FROM_GRANT: u64 = 1 << 16;
const TO_GRANT: u64 = 2 << 16;
/// A page of the landing zone for what is mapped by a grant.
const MAPPED: u64 = 8;
/// The first frame of a guest's RAM, in which its image is (arch-arm.h: GUEST_RAM0_BASE).
const IMAGE: u64 = 0x4_0000;
/// An entry of a guest's grant table that the guest does not use.
const FORGED: u64 = 300;
/// Ports that a domain may have at first.
const PORTS: u64 = 64;
/// The most event channels that a domain has, and one more.
const MOST_CHANNELS: usize = 1025;
/// What the rogue leaves behind where it can write.
const MARK: u64 = 0xbad0_bad0_bad0_bad0;

/// The positive control: a page that a guest has granted can be mapped, read and written.
pub(super) fn control(ledger: &mut Ledger, known: &[Known; 2]) -> Result<()> {
    for guest in known {
        let map = map(guest.domid, guest.control, HOST_MAP)?;
        ensure!(ledger.make(&map, false), "the page that domain {} has granted is not mapped", guest.domid);
        let found = memory::landed(MAPPED, 0).context("nothing is where the page was mapped")?;
        ensure!(found == CONTROL, "the page that domain {} has granted has {found:#x}", guest.domid);
        ensure!(memory::overwrite(MAPPED, 1, ANSWER), "the page cannot be written");
        unmap(ledger)?;
    }
    Ok(())
}

/// All attacks, each at both guests.
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
    Attempt::named(hypercall, name, target).with_context(|| alloc::format!("no call has the name {name}"))
}

/// struct gnttab_map_grant_ref: host_addr; flags and ref; dom, status and handle.
fn map(domid: u16, reference: u32, flags: u64) -> Result<Attempt> {
    let target = Target { domid, grant: reference, ..Target::default() };
    let attempt = call(GRANT_TABLE_OP, "map_grant_ref", &target)?;
    Ok(attempt.with(1, flags | u64::from(reference) << 32))
}

/// Takes back what the last successful [`map`] has put there. Its handle is where Xen has written it.
fn unmap(ledger: &mut Ledger) -> Result<()> {
    let handle = memory::argument_word(2) >> 32;
    let attempt = call(GRANT_TABLE_OP, "unmap_grant_ref", &Target::default())?;
    let status = 0x5555 << 32;
    ensure!(ledger.make(&attempt.with(2, handle | status), false), "a grant cannot be unmapped");
    Ok(())
}

/// Maps the guest's grant table, writes an entry that grants the secret, and maps that.
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

/// Puts the guest's pages among its own, by all calls that put pages somewhere.
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

/// Maps and copies by references that were granted to another domain or to none, and by all that the guest
/// may have.
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

/// struct gnttab_copy: source and its domid, destination and its domid, length, flags and status.
fn copy(guest: &Known, source: u64, destination: u64, flags: u64) -> Result<Attempt> {
    const SELF: u64 = 0x7ff0;
    let domid = u64::from(guest.domid);
    let (from, to) = if flags == FROM_GRANT { (domid, SELF) } else { (SELF, domid) };
    let attempt = call(GRANT_TABLE_OP, "copy", &guest.target())?.with(0, source).with(1, from);
    Ok(attempt.with(2, destination).with(3, to).with(4, 4096 | flags | 0x5555 << 32))
}

/// Writes to a page that it may read: by mapping it for writing, by copying. It maps the page for reading,
/// too, but does not write there: Xen 4.20 does not inject the fault that this is, so the rogue would take it
/// again and again, for ever.
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

/// Copies without a grant at either end.
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

/// Resources other than those of an ioreq server, and more of those than there are.
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

/// Puts the pages of devices that it does not own, and RAM as if it were a device.
fn put_pages_of_devices(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    // QEMU's virt machine: the interrupt controller, the UART that Xen has, a virtio slot of no
    // domain, and RAM from which Xen takes guests.
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

/// Binds to ports that a guest may have, and makes, asks, sends to and closes what is not its own.
fn take_event_channels(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    let domid = u64::from(guest.domid);
    let other = if domid == 2 { 3 } else { 2 };
    for port in 0..PORTS {
        let bind = call(EVENT_CHANNEL_OP, "bind_interdomain", &guest.target())?;
        // Those of an ioreq server are meant for it.
        ledger.make(&bind.with(0, domid | port << 32), false);
    }
    // A channel from one guest to the other, and one whose other end any domain may bind.
    for remote in [other, 0, 0x7ff1, 0x7ff2] {
        let alloc = call(EVENT_CHANNEL_OP, "alloc_unbound", &guest.target())?;
        ledger.make(&alloc.with(0, domid | remote << 16).attack("connect-a-guest-to-another"), false);
    }
    for name in ["reset", "reset_cont"] {
        ledger.make(&call(EVENT_CHANNEL_OP, name, &guest.target())?.attack("reset-a-guest"), false);
    }
    Ok(())
}

/// Has an ioreq server answer for addresses where the guest has RAM, its interrupt controller and its
/// console. Xen looks there first; that the guest goes on shows it.
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

/// Raises every interrupt. Those of a vCPU and the console's are Xen's alone.
fn raise_interrupts(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    for interrupt in 0..1100 {
        let mut attempt =
            call(DEVICE_MODEL_OP, "set_irq_level", &guest.target())?.with(1, interrupt | 1 << 32);
        // Private ones, and GUEST_VPL011_SPI.
        if interrupt <= 32 {
            attempt = attempt.attack("raise-interrupt-of-xen");
        }
        ledger.make(&attempt, false);
        ledger.make(&attempt.with(1, interrupt), false);
    }
    Ok(())
}

/// Grants itself what it does not have, and maps that.
fn grant_what_is_not_its_own(ledger: &mut Ledger, guest: &Known) -> Result<()> {
    for frame in [guest.frame, IMAGE, 0x4_0001, 0x9000] {
        let granted = Granted::with_flags(0)?;
        let entry = grants::entry(granted.reference()).context("a reference beyond the table")?;
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

/// Makes event channels until Xen gives no more, and lets go of all.
fn exhaust_event_channels(ledger: &mut Ledger) -> Result<()> {
    let own = Target { domid: 0x7ff0, ..Target::default() };
    let made = (0..MOST_CHANNELS).take_while(|_| {
        call(EVENT_CHANNEL_OP, "bind_ipi", &own).is_ok_and(|attempt| ledger.make(&attempt, false))
    });
    ensure!(made.count() < MOST_CHANNELS, "Xen gives event channels without an end");
    ledger.make(&call(EVENT_CHANNEL_OP, "reset", &own)?, false);
    Ok(())
}
