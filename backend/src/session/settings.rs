// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Applies the settings of a frontend, and stops the rings that a refused setting concerns.

use std::fs::File;

use vhost::vhost_user::message::{VhostUserInflight, VhostUserMemoryRegion, VhostUserVirtioFeatures};
use vhost::vhost_user::{Error, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::protocol::DEVICE_FEATURES;
use super::{DeviceServer, MemoryRegion, Session, refusal};
use crate::inflight::{InflightRecord, Layout};
use crate::memory::Memory;
use crate::queue::{Ring, Setting};
use crate::watch::Token;

impl DeviceServer {
    /// Applies a setting of one ring. A running ring is refused. A started ring that is disabled was released
    /// by its driver without a stop (Linux, arch/um/drivers/virtio_uml.c), and is discarded first. If the
    /// message is refused, the ring stops, and the setting counts as missing.
    pub(super) fn set_ring(
        &mut self,
        index: u32,
        setting: Setting,
        set: impl FnOnce(&mut Session) -> Result<()>,
    ) -> Result<()> {
        let runs = self.session.ring(index)?.is_running();
        let done = if runs {
            Err(refusal(format_args!("queue {index} cannot be set up while it runs")))
        } else {
            self.discard_ring(index);
            set(&mut self.session)
        };
        if done.is_err() {
            self.fail_ring(index);
        }
        self.session.ring(index)?.record_setting(setting, done.is_ok());
        done
    }

    /// Applies a setting of all rings. If the message is refused, they stop, and `clear` removes the former
    /// setting.
    pub(super) fn set_all_rings(
        &mut self,
        set: impl FnOnce(&mut Self) -> Result<()>,
        clear: impl FnOnce(&mut Session),
    ) -> Result<()> {
        let done = set(self);
        if done.is_err() {
            (0_u32..).zip(self.device.queues()).for_each(|(index, _)| self.fail_ring(index));
            clear(&mut self.session);
        }
        done
    }

    /// Stops a ring after a refused message. If it ran, its driver waits for answers, and the frontend is
    /// notified.
    fn fail_ring(&mut self, index: u32) {
        let runs = self.session.ring(index).is_ok_and(|ring| ring.is_running());
        self.discard_ring(index);
        if let Ok(ring) = self.session.ring(index)
            && runs
        {
            ring.mark_unusable(format_args!("a message of the frontend about it was refused"));
        }
    }

    pub(super) fn start_ring(&mut self, index: u32, fd: Option<File>) -> Result<()> {
        self.remove_kick(index);
        let record_refused = self.session.record_refused;
        let ring = self.session.ring(index)?;
        if let Some(setting) = ring.missing_setting() {
            return Err(refusal(format_args!("queue {index} cannot start without its {setting}")));
        }
        if record_refused {
            return Err(refusal(format_args!(
                "queue {index} cannot start: its in-flight record was refused"
            )));
        }
        if let Some(kick) = &fd {
            let watched = self.watcher.insert(kick, Token::Kick(index));
            watched.map_err(Error::ReqHandlerError)?;
        }
        let Session { rings, memory, .. } = &mut self.session;
        let queue = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        let Some(ring) = rings.get_mut(queue) else { return Ok(()) };
        ring.kick = fd;
        let was_started = ring.is_started();
        ring.start(memory).map_err(|error| refusal(format_args!("queue {index} cannot start: {error}")))?;
        let base = ring.next_available();
        if !was_started {
            self.device.start(queue, self.session.queue_start(base));
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, features: u64) -> Result<()> {
        let offered = self.get_features()?;
        if features & !offered != 0 {
            return Err(refusal(format_args!("features {:#x} were not offered", features & !offered)));
        }
        if self.session.accepted == Some(features) {
            return Ok(());
        }
        if self.session.rings.iter().any(Ring::is_running) {
            return Err(refusal(format_args!("the features cannot change while queues run")));
        }
        self.device
            .accept_features(features & DEVICE_FEATURES)
            .map_err(|missing| refusal(format_args!("{missing}")))?;
        self.session.accepted = Some(features);
        for ring in &mut self.session.rings {
            ring.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
            ring.indirect = features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0;
            // Without protocol features there is no message to enable rings: they start enabled.
            ring.enabled |= features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        }
        Ok(())
    }

    pub(super) fn set_memory(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        let mut mapped = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            let mmap = region.mmap_region(file)?;
            let region = GuestRegionMmap::new(mmap, GuestAddress(region.guest_phys_addr))
                .ok_or_else(|| refusal(format_args!("a memory region ends beyond the address space")))?;
            mapped.push(region);
        }
        let map = GuestMemoryMmap::from_regions(mapped)
            .map_err(|error| refusal(format_args!("the memory table is not usable: {error}")))?;
        self.session.memory = Memory::new(map).map_err(Error::ReqHandlerError)?;
        self.session.regions = regions
            .iter()
            .map(|region| MemoryRegion {
                frontend: region.user_addr,
                guest: region.guest_phys_addr,
                size: region.memory_size,
            })
            .collect();
        for ring in &mut self.session.rings {
            ring.check_memory(&self.session.memory);
        }
        Ok(())
    }

    pub(super) fn set_record(&mut self, given: &VhostUserInflight, file: File) -> Result<()> {
        if self.session.rings.iter().any(Ring::is_started) {
            return Err(refusal(format_args!("an in-flight record cannot change while queues run")));
        }
        let layout = self.record_layout(given)?;
        let record = InflightRecord::map(file, given.mmap_offset, given.mmap_size, layout)
            .map_err(|error| refusal(format_args!("the in-flight record is not usable: {error}")))?;
        for (index, ring) in self.session.rings.iter_mut().enumerate() {
            ring.set_record(record.queue(index));
        }
        if let Some(device) = self.device.persistence() {
            device.restore(record.device());
        }
        (self.session.has_record, self.session.record_refused) = (true, false);
        Ok(())
    }

    /// Returns the layout that an in-flight record of this description must have.
    pub(super) fn record_layout(&mut self, description: &VhostUserInflight) -> Result<Layout> {
        let &VhostUserInflight { num_queues, queue_size, .. } = description;
        let limits = self.device.queues();
        let largest = limits.iter().map(|limits| limits.size).max().unwrap_or(0);
        if usize::from(num_queues) > limits.len() || queue_size > largest {
            return Err(refusal(format_args!(
                "in-flight record for {num_queues} queues of {queue_size}: there are {} of at most {largest}",
                limits.len()
            )));
        }
        let device_bytes = self.device.persistence().map_or(0, |device| device.record_bytes());
        Ok(Layout { queues: num_queues, queue_size, device_bytes })
    }
}
