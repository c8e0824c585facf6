// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The one place that assigns domids, register windows and interrupts.
//!
//! All files are made from the plan: a device's address in the guest's device tree is the one that the shim
//! serves, and the domid in an `iommus` property is the one that Xen assigns.

use confinement::User;
use shim_config::MemoryBank;
pub use shim_config::WINDOW_SIZE;
use toml_span::Spanned;

use crate::board::{Board, Hardware, Region};
use crate::device::Place;
use crate::manifest::{Device, Guest, Manifest, MemoryAccess};

/// The guest physical addresses that Xen reserves for virtio-mmio.
pub const WINDOWS: Region =
    Region { base: shim_config::WINDOWS.start, size: shim_config::WINDOWS.end - shim_config::WINDOWS.start };

/// The interrupts that Xen reserves for virtio-mmio.
pub const INTERRUPTS: Interrupts =
    Interrupts { first: *shim_config::INTERRUPTS.start(), last: *shim_config::INTERRUPTS.end() };

/// The guest physical addresses of a guest's RAM (`GUEST_RAM_BANK_BASES` and `_SIZES` in Xen's public header
/// `arch-arm.h`).
const GUEST_RAM: [Region; 2] =
    [Region { base: 0x4000_0000, size: 0xc000_0000 }, Region { base: 0x02_0000_0000, size: 0xfe_0000_0000 }];

/// The domid of the driver domain, the first that Xen creates.
pub const DRIVER_DOMID: u16 = 1;

/// The number that is added to a guest's domid for the user and the group of its worker and backends. A
/// process that is taken over has no right to files or processes of another guest.
const FIRST_USER: u32 = 10000;

/// The users of backends' programs for which the manifest names none, each of one device: see
/// [`device_user`].
pub(crate) const RESERVED_USERS: std::ops::RangeInclusive<u32> = 20_000..=29_999;

/// A range of interrupt numbers.
#[derive(Clone, Copy, Debug)]
pub struct Interrupts {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

impl Interrupts {
    /// The number of interrupts in the range.
    pub const fn count(self) -> usize {
        (self.last - self.first + 1) as usize
    }
}

/// A manifest with all that is assigned to its domains and devices.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The manifest that it is made from.
    pub manifest: &'a Manifest,
    /// The board.
    pub board: &'a Board,
    /// The driver domain's hardware.
    pub hardware: Vec<&'a Hardware>,
    /// The guests.
    pub guests: Vec<GuestPlan<'a>>,
}

/// A guest, with all that is assigned to it.
#[derive(Debug)]
pub struct GuestPlan<'a> {
    /// The guest in the manifest.
    pub guest: &'a Guest,
    /// The domid.
    pub domid: u16,
    /// The user of its processes in the driver domain.
    pub user: User,
    /// The devices.
    pub devices: Vec<DevicePlan<'a>>,
}

/// A virtio-mmio device, with all that is assigned to it.
#[derive(Debug)]
pub struct DevicePlan<'a> {
    /// The device in the manifest.
    pub device: &'a Device,
    /// Its configuration in the shim, with the register window and the interrupt.
    pub configuration: shim_config::Device,
}

impl<'a> Plan<'a> {
    /// Plans `manifest` on `board`. Returns none if [`crate::validate`] would refuse them.
    pub fn new(manifest: &'a Manifest, board: &'a Board) -> Option<Self> {
        let hardware = manifest.driver_domain.hardware.iter().map(|name| board.hardware(&name.value));
        let guests = guests_with_domids(manifest).map(|(guest, domid)| GuestPlan::new(guest, domid, board));
        Some(Self {
            manifest,
            board,
            hardware: hardware.collect::<Option<_>>()?,
            guests: guests.collect::<Option<_>>()?,
        })
    }
}

/// The guests, each with its domid: Xen counts the domains of the host device tree.
pub(crate) fn guests_with_domids(manifest: &Manifest) -> impl Iterator<Item = (&Guest, u16)> {
    manifest.guests.iter().zip(DRIVER_DOMID + 1..)
}

/// The number of the user and the group of a guest's processes.
pub(crate) fn guest_user(domid: u16) -> u32 {
    FIRST_USER + u32::from(domid)
}

/// The number of the user and the group of a program that serves the device at `place` in the list of a
/// guest.
fn device_user(domid: u16, place: usize) -> Option<u32> {
    let number = usize::from(domid) * INTERRUPTS.count() + place;
    Some(*RESERVED_USERS.start() + u32::try_from(number).ok()?)
}

impl<'a> GuestPlan<'a> {
    fn new(guest: &'a Guest, domid: u16, board: &'a Board) -> Option<Self> {
        let fixed = |place: fn(&Device) -> &Option<Spanned<i64>>| {
            let places = guest.devices.iter().filter_map(move |device| place(device).as_ref());
            places.filter_map(|place| u64::try_from(place.value).ok()).collect::<Vec<_>>()
        };
        let taken = fixed(|device| &device.base);
        let mut bases = (0..WINDOWS.size / WINDOW_SIZE)
            .map(|place| WINDOWS.base + place * WINDOW_SIZE)
            .filter(|base| !taken.contains(base));
        let taken = fixed(|device| &device.irq);
        let mut irqs = (INTERRUPTS.first..=INTERRUPTS.last).map(u64::from).filter(|irq| !taken.contains(irq));
        let user = |number| User::new(number, number).ok();
        let guest_user = user(guest_user(domid))?;
        let mut devices = Vec::new();
        for (number, device) in guest.devices.iter().enumerate() {
            let own_user = user(device_user(domid, number)?)?;
            let base = place(device.base.as_ref(), &mut bases)?;
            let irq = u32::try_from(place(device.irq.as_ref(), &mut irqs)?).ok()?;
            let place = Place { board, guest, user: guest_user, own_user, device, base, irq };
            devices.push(DevicePlan { device, configuration: device.device_type.configuration(&place)? });
        }
        Some(Self { guest, domid, user: guest_user, devices })
    }

    /// The guest's RAM, if the driver domain reaches all of it; else nothing.
    pub fn reached_memory(&self) -> Vec<MemoryBank> {
        match self.guest.memory_access.value {
            MemoryAccess::Granted => Vec::new(),
            MemoryAccess::All => banks(self.guest.domain.memory.value.bytes),
        }
    }

    /// The guest's type in the policy.
    pub fn policy_type(&self) -> String {
        policy_type(&self.guest.name.value)
    }
}

/// The banks of a guest with `size` bytes of RAM. Xen fills the first bank before it uses the second
/// (`allocate_memory()`).
fn banks(size: u64) -> Vec<MemoryBank> {
    let mut rest = size;
    let banks = GUEST_RAM.map(|bank| {
        let size = rest.min(bank.size);
        rest -= size;
        MemoryBank { base: bank.base, size }
    });
    banks.into_iter().filter(|bank| bank.size > 0).collect()
}

/// The number that the manifest fixes, or else the next that is free.
fn place(fixed: Option<&Spanned<i64>>, free: &mut impl Iterator<Item = u64>) -> Option<u64> {
    match fixed {
        Some(fixed) => u64::try_from(fixed.value).ok(),
        None => free.next(),
    }
}

/// The type in the policy of the guest called `name`.
pub fn policy_type(name: &str) -> String {
    format!("{}_t", name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_three_gib_is_in_the_second_bank() {
        let banks = |size| banks(size).iter().map(|bank| (bank.base, bank.size)).collect::<Vec<_>>();
        assert_eq!(banks(64 << 20), [(0x4000_0000, 64 << 20)]);
        assert_eq!(banks(3 << 30), [(0x4000_0000, 3 << 30)]);
        assert_eq!(banks((3 << 30) + 4096), [(0x4000_0000, 3 << 30), (0x2_0000_0000, 4096)]);
    }
}
