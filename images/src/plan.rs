// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The one place that assigns domids, register windows and interrupts.
//!
//! All files are made from the plan: a device's address in the guest's device tree is the one that the shim
//! serves, and the domid in an `iommus` property is the one that Xen assigns.

use confinement::User;
pub use shim_config::WINDOW_SIZE;
use toml_span::Spanned;

use crate::board::{Board, Hardware, Region};
use crate::manifest::{Device, DeviceType, Guest, Line, Manifest, Target};

/// The guest physical addresses that Xen reserves for virtio-mmio.
pub const WINDOWS: Region =
    Region { base: shim_config::WINDOWS.start, size: shim_config::WINDOWS.end - shim_config::WINDOWS.start };

/// The interrupts that Xen reserves for virtio-mmio.
pub const INTERRUPTS: Interrupts =
    Interrupts { first: *shim_config::INTERRUPTS.start(), last: *shim_config::INTERRUPTS.end() };

/// The domid of the driver domain, the first that Xen creates.
pub const DRIVER_DOMID: u16 = 1;

/// The virtio device ID of an I2C adapter (virtio 1.3, 5).
const I2C: u32 = 34;

/// The virtio device ID of a GPIO controller (virtio 1.3, 5).
pub const GPIO: u32 = 41;

/// The number that is added to a guest's domid for the user and the group of its worker and backends. A
/// process that is taken over has no right to files or processes of another guest.
const FIRST_USER: u32 = 10000;

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
    /// The name.
    pub name: &'a str,
    /// The address of the register window.
    pub base: u64,
    /// The interrupt's INTID at the guest's GIC.
    pub irq: u32,
    /// The type, and the hardware behind it.
    pub function: Function<'a>,
    /// The microseconds for which its backend polls for the next request.
    pub busy_poll: Option<i64>,
}

/// The type of a device, and the board's hardware behind it.
#[derive(Debug)]
pub enum Function<'a> {
    /// An I2C adapter.
    I2c {
        /// The hardware.
        adapter: &'a Hardware,
        /// The targets that the guest reaches on it.
        targets: &'a [Target],
    },
    /// A GPIO controller.
    Gpio {
        /// The lines, each with the hardware that has it.
        lines: Vec<(&'a Hardware, &'a Line)>,
    },
}

impl<'a> Plan<'a> {
    /// Plans `manifest` on `board`. Returns none if [`crate::validate`] would refuse them.
    pub fn new(manifest: &'a Manifest, board: &'a Board) -> Option<Self> {
        let hardware = manifest.driver_domain.hardware.iter().map(|name| board.hardware(&name.value));
        let domids = DRIVER_DOMID + 1..;
        let guests =
            manifest.guests.iter().zip(domids).map(|(guest, domid)| GuestPlan::new(guest, domid, board));
        Some(Self {
            manifest,
            board,
            hardware: hardware.collect::<Option<_>>()?,
            guests: guests.collect::<Option<_>>()?,
        })
    }
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
        let mut devices = Vec::new();
        for device in &guest.devices {
            devices.push(DevicePlan {
                name: &device.name.value,
                base: place(device.base.as_ref(), &mut bases)?,
                irq: u32::try_from(place(device.irq.as_ref(), &mut irqs)?).ok()?,
                function: Function::new(&device.device_type, board)?,
                busy_poll: device.busy_poll.as_ref().map(|busy_poll| busy_poll.value),
            });
        }
        let number = FIRST_USER + u32::from(domid);
        Some(Self { guest, domid, user: User::new(number, number).ok()?, devices })
    }

    /// The guest's type in the policy.
    pub fn policy_type(&self) -> String {
        policy_type(&self.guest.name.value)
    }
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

impl<'a> Function<'a> {
    fn new(device_type: &'a DeviceType, board: &'a Board) -> Option<Self> {
        Some(match device_type {
            DeviceType::I2c(i2c) => {
                Self::I2c { adapter: board.hardware(&i2c.adapter.value)?, targets: &i2c.targets }
            }
            DeviceType::Gpio(lines) => {
                let lines = lines.iter().map(|line| Some((board.hardware(&line.chip.value)?, line)));
                Self::Gpio { lines: lines.collect::<Option<_>>()? }
            }
        })
    }

    /// The virtio device ID (virtio 1.3, 5).
    pub fn device_id(&self) -> u32 {
        match self {
            Self::I2c { .. } => I2C,
            Self::Gpio { .. } => GPIO,
        }
    }

    /// The number of virtqueues: requests (virtio 1.3, 5.16.2), or requests and events (5.18.2).
    pub fn queues(&self) -> u16 {
        match self {
            Self::I2c { .. } => 1,
            Self::Gpio { .. } => 2,
        }
    }
}
