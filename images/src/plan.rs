// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The one place that hands out domain ids, register windows and interrupts.
//!
//! All that is emitted is made from the plan, so a device's address in the guest's device tree is the one that the shim
//! serves, and the domid in an `iommus` property is the one that Xen gives.

use confinement::User;

pub use shim_config::WINDOW_SIZE;
use toml_span::Spanned;

use crate::board::{Board, Hardware, Region};
use crate::manifest::{Gpio, Guest, I2c, Line, Manifest, Placement, Target};

/// Where Xen keeps room for virtio-mmio in a guest.
pub const WINDOWS: Region =
    Region { base: shim_config::WINDOWS.start, size: shim_config::WINDOWS.end - shim_config::WINDOWS.start };

/// Which interrupts Xen keeps for it.
pub const INTERRUPTS: Interrupts =
    Interrupts { first: *shim_config::INTERRUPTS.start(), last: *shim_config::INTERRUPTS.end() };

/// The driver domain is the first that Xen makes, so this is its domid.
pub const DRIVER_DOMID: u16 = 1;

/// The virtio device ID of an I2C adapter (virtio 1.3, 5).
pub const I2C: u32 = 34;

/// The virtio device ID of a GPIO controller (virtio 1.3, 5).
pub const GPIO: u32 = 41;

/// The user of a guest's worker and backends has this number and the domid's, and so has its group: what one guest takes
/// over belongs to nobody else.
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
    /// How many there are.
    pub const fn count(self) -> usize {
        (self.last - self.first + 1) as usize
    }
}

/// A manifest whose things all have their place.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What it was made from.
    pub manifest: &'a Manifest,
    /// The board.
    pub board: &'a Board,
    /// The driver domain's hardware.
    pub hardware: Vec<&'a Hardware>,
    /// The guests.
    pub guests: Vec<GuestPlan<'a>>,
}

/// A guest that has its place.
#[derive(Debug)]
pub struct GuestPlan<'a> {
    /// As it was written.
    pub guest: &'a Guest,
    /// Its domid.
    pub domid: u16,
    /// The user of its processes in the driver domain.
    pub user: User,
    /// Its devices.
    pub devices: Vec<DevicePlan<'a>>,
}

/// A virtio-mmio device that has its place.
#[derive(Debug)]
pub struct DevicePlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// The address of its register window.
    pub base: u64,
    /// Its interrupt's number at the guest's GIC.
    pub irq: u32,
    /// What it is.
    pub function: Function<'a>,
    /// For how many microseconds after a request its backend looks for the next, if it does.
    pub busy_poll: Option<i64>,
}

/// What a device is, and what of the driver domain's hardware it stands for.
#[derive(Debug)]
pub enum Function<'a> {
    /// An I2C adapter.
    I2c {
        /// The hardware.
        adapter: &'a Hardware,
        /// What the guest may reach on it.
        targets: &'a [Target],
    },
    /// A GPIO controller.
    Gpio {
        /// Its lines, each with the hardware that has it.
        lines: Vec<(&'a Hardware, &'a Line)>,
    },
}

impl<'a> Plan<'a> {
    /// Gives everything in `manifest` its place, or nothing if [`crate::validate`] would have found something.
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

/// A device as the manifest has it, before it has its place.
struct Wanted<'a> {
    name: &'a str,
    placement: &'a Placement,
    function: Option<Function<'a>>,
    busy_poll: Option<&'a Spanned<i64>>,
}

impl<'a> GuestPlan<'a> {
    fn new(guest: &'a Guest, domid: u16, board: &'a Board) -> Option<Self> {
        let i2c = guest.i2c.iter().map(|device| Wanted {
            name: &device.name.value,
            placement: &device.placement,
            function: Function::i2c(device, board),
            busy_poll: device.busy_poll.as_ref(),
        });
        let gpio = guest.gpio.iter().map(|device| Wanted {
            name: &device.name.value,
            placement: &device.placement,
            function: Function::gpio(device, board),
            busy_poll: device.busy_poll.as_ref(),
        });
        let wanted: Vec<_> = i2c.chain(gpio).collect();
        let mut bases = Free::new(wanted.iter().filter_map(|wanted| wanted.placement.base.as_ref()));
        let mut irqs = Free::new(wanted.iter().filter_map(|wanted| wanted.placement.irq.as_ref()));
        let mut devices = Vec::new();
        for Wanted { name, placement: Placement { base, irq }, function, busy_poll } in wanted {
            let windows = (WINDOWS.base..WINDOWS.end()).step_by(usize::try_from(WINDOW_SIZE).ok()?);
            let base = bases.place(base.as_ref(), windows)?;
            let irq = irqs.place(irq.as_ref(), u64::from(INTERRUPTS.first)..=u64::from(INTERRUPTS.last))?;
            devices.push(DevicePlan {
                name,
                base,
                irq: u32::try_from(irq).ok()?,
                function: function?,
                busy_poll: busy_poll.map(|busy_poll| busy_poll.value),
            });
        }
        let number = FIRST_USER + u32::from(domid);
        Some(Self { guest, domid, user: User::new(number, number).ok()?, devices })
    }

    /// Its type in the policy.
    pub fn policy_type(&self) -> String {
        policy_type(&self.guest.name.value)
    }
}

/// The type in the policy of the guest called `name`.
pub fn policy_type(name: &str) -> String {
    format!("{}_t", name.replace('-', "_"))
}

impl<'a> Function<'a> {
    fn i2c(device: &'a I2c, board: &'a Board) -> Option<Self> {
        let adapter = board.hardware(&device.adapter.value)?;
        Some(Self::I2c { adapter, targets: &device.targets })
    }

    fn gpio(device: &'a Gpio, board: &'a Board) -> Option<Self> {
        let lines = device.lines.iter().map(|line| Some((board.hardware(&line.chip.value)?, line)));
        Some(Self::Gpio { lines: lines.collect::<Option<_>>()? })
    }

    /// The virtio device ID (virtio 1.3, 5).
    pub fn device_id(&self) -> u32 {
        match self {
            Self::I2c { .. } => I2C,
            Self::Gpio { .. } => GPIO,
        }
    }

    /// How many virtqueues it has: requests (virtio 1.3, 5.16.2), or requests and events (5.18.2).
    pub fn queues(&self) -> u16 {
        match self {
            Self::I2c { .. } => 1,
            Self::Gpio { .. } => 2,
        }
    }
}

/// Hands out numbers, around those that the manifest has fixed.
struct Free {
    taken: Vec<u64>,
}

impl Free {
    fn new<'a>(fixed: impl Iterator<Item = &'a Spanned<i64>>) -> Self {
        Self { taken: fixed.filter_map(|fixed| u64::try_from(fixed.value).ok()).collect() }
    }

    fn place(&mut self, fixed: Option<&Spanned<i64>>, mut all: impl Iterator<Item = u64>) -> Option<u64> {
        if let Some(fixed) = fixed {
            return u64::try_from(fixed.value).ok();
        }
        let free = all.find(|candidate| !self.taken.contains(candidate))?;
        self.taken.push(free);
        Some(free)
    }
}
