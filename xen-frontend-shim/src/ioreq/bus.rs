// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest physical addresses of all devices of one guest: from a parsed request to the window that it
//! accesses.

use std::collections::BTreeMap;

use log::trace;
use shim_config::WINDOW_SIZE;
use xen_bindings::{Doorbell, RawRequest};

use crate::hypervisor::Hypervisor;
use crate::ioreq::request::{Access, Request};
use crate::ioreq::slot::Slot;
use crate::virtio_mmio::registers::{MAGIC, VERSION};
use crate::virtio_mmio::{Device, Width};
use crate::window::Window;

/// The addresses of one device.
#[derive(Debug)]
pub struct Region<D> {
    /// The first guest physical address of [`WINDOW_SIZE`] bytes.
    pub base: u64,
    /// The queues whose QueueNotify the kernel serves.
    pub doorbells: Vec<Doorbell>,
    /// The device. While it is absent, DeviceID is 0, which makes drivers ignore it (virtio 1.3, 4.2.3.1.1).
    pub window: Option<Window<D>>,
}

/// All regions of a guest, by the numbers of their devices.
#[derive(Debug)]
pub struct Bus<D> {
    regions: BTreeMap<u16, Region<D>>,
}

impl<D> Default for Bus<D> {
    /// A bus without regions.
    fn default() -> Self {
        Self { regions: BTreeMap::new() }
    }
}

impl<D: Device> Bus<D> {
    /// Adds the region of the device `number`.
    pub fn insert(&mut self, number: u16, region: Region<D>) {
        self.regions.insert(number, region);
    }

    /// Removes the region of the device `number`. Its addresses read 0 from now on.
    pub fn remove(&mut self, number: u16) -> Option<Region<D>> {
        self.regions.remove(&number)
    }

    /// The region of the device `number`.
    pub fn region_mut(&mut self, number: u16) -> Option<&mut Region<D>> {
        self.regions.get_mut(&number)
    }

    /// The window of the device `number`, if the device is present.
    pub fn window_mut(&mut self, number: u16) -> Option<&mut Window<D>> {
        self.regions.get_mut(&number)?.window.as_mut()
    }

    /// The windows of all devices that are present, with their numbers.
    pub fn windows_mut(&mut self) -> impl Iterator<Item = (u16, &mut Window<D>)> {
        self.regions.iter_mut().filter_map(|(number, region)| Some((*number, region.window.as_mut()?)))
    }

    /// Serves the request of `vcpu`, if it has one and the kernel does not serve it.
    pub fn serve<H: Hypervisor>(&mut self, hypervisor: &H, vcpu: u32) {
        if let Some(slot) = Slot::claim(hypervisor, vcpu, |request| self.is_served_by_kernel(request)) {
            self.answer(vcpu, slot);
        }
    }

    /// Serves the request of `vcpu`, even one that the kernel serves: while the kernel's handler cannot run.
    pub fn serve_for_kernel<H: Hypervisor>(&mut self, hypervisor: &H, vcpu: u32) {
        if let Some(slot) = Slot::claim(hypervisor, vcpu, |_| false) {
            self.answer(vcpu, slot);
        }
    }

    /// Serves the request of `vcpu` that a former worker has claimed and not answered, if there is one.
    ///
    /// The former worker may have carried it out, so it must be a request that can be carried out twice. All
    /// are:
    ///
    /// - A read has no effect on a device.
    /// - A write of a register sets the same state again. The transport ignores a status or a queue that is
    ///   set already, and the state is stored before the device acts on it ([`Window`]). A second reset of a
    ///   device or queue has no effect.
    /// - QueueNotify: a device may look at a queue in vain (virtio 1.3, 2.9).
    /// - InterruptACK: the driver looks at its rings and the configuration after it, so it does not miss what
    ///   was added to the status between the two.
    pub fn serve_left_behind<H: Hypervisor>(&mut self, hypervisor: &H, vcpu: u32) {
        if let Some(slot) = Slot::inherit(hypervisor, vcpu) {
            self.answer(vcpu, slot);
        }
    }

    fn answer<H: Hypervisor>(&mut self, vcpu: u32, slot: Slot<'_, H>) {
        match slot.request() {
            Request::Read(access) => {
                let value = self.read(access);
                trace!("vCPU {vcpu}: {access:x?} is {value:#x}");
                slot.answer(value);
            }
            Request::Write(access, value) => {
                trace!("vCPU {vcpu}: {access:x?} := {value:#x}");
                self.write(access, value);
            }
            Request::Acknowledge => trace!("vCPU {vcpu}: acknowledged"),
        }
    }

    /// Whether the kernel's ioeventfd answers `request`. Its handler runs on the same event as this process,
    /// so exactly one of the two must claim the slot.
    fn is_served_by_kernel(&self, request: &RawRequest) -> bool {
        self.regions.values().flat_map(|region| &region.doorbells).any(|doorbell| doorbell.matches(request))
    }

    fn read(&mut self, access: Access) -> u64 {
        let found = self.find(access);
        match found.map(|(region, offset)| (&mut region.window, offset)) {
            Some((Some(window), offset)) => window.read(offset, access.width),
            Some((None, 0x0)) if access.width == Width::Four => u64::from(MAGIC),
            Some((None, 0x4)) if access.width == Width::Four => u64::from(VERSION),
            _ => 0,
        }
    }

    fn write(&mut self, access: Access, value: u64) {
        if let Some((Region { window: Some(window), .. }, offset)) = self.find(access) {
            window.write(offset, access.width, value);
        }
    }

    /// The region that holds all of an access, and the offset in it.
    fn find(&mut self, access: Access) -> Option<(&mut Region<D>, u64)> {
        let width = u64::try_from(access.width.bytes()).ok()?;
        let offset = |base: u64| {
            let offset = access.address.checked_sub(base)?;
            (offset.checked_add(width)? <= WINDOW_SIZE).then_some(offset)
        };
        let mut regions = self.regions.values_mut();
        regions.find_map(|region| offset(region.base).map(|offset| (region, offset)))
    }
}

#[cfg(test)]
mod tests;
