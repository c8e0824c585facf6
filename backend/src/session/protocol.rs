// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The messages of a frontend, one method each: the back-end's side of the vhost-user protocol.
//!
//! Crate `vhost` reads messages, checks their form and calls these methods; `settings` applies them. The
//! reason of a refusal goes to the log, since the protocol has no field for it. For the state after a refusal
//! see the module above.

use std::fs::File;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Backend as BackendChannel, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
};
use virtio_bindings::bindings::virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::{DeviceServer, Session, refusal, without_reply};
use crate::inflight;
use crate::queue::{Ring, Setting};

/// Feature bits of the device type (virtio 1.3, 2.2).
pub(super) const DEVICE_FEATURES: u64 = (1 << 24) - 1;

/// Feature bits of the core. Indirect tables would need grant copies of their own: with Xen they are not
/// offered.
const TRANSPORT_FEATURES: u64 = (1 << VIRTIO_F_VERSION_1)
    | (1 << VIRTIO_RING_F_EVENT_IDX)
    | if cfg!(feature = "xen") { 1 << VIRTIO_F_ACCESS_PLATFORM } else { 1 << VIRTIO_RING_F_INDIRECT_DESC };

impl VhostUserBackendReqHandlerMut for DeviceServer {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.end_session().map_err(|error| refusal(format_args!("the session cannot be reset: {error}")))
    }

    fn reset_device(&mut self) -> Result<()> {
        for ring in &mut self.session.rings {
            ring.enabled = false;
            ring.clear_record();
        }
        self.finished.clear();
        self.device.reset();
        // The reset cleared the features in the device; they stay in force until the frontend sends others.
        if let Some(features) = self.session.accepted.take() {
            self.accept(features)?;
        }
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        let device = self.device.features() & DEVICE_FEATURES;
        Ok(device | TRANSPORT_FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.set_all_rings(|server| server.accept(features), |session| session.accepted = None)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        if postcopy_listening.is_some() {
            return Err(refusal(format_args!("postcopy is not supported")));
        }
        let clear = |session: &mut Session| (session.memory, session.regions) = Default::default();
        self.set_all_rings(|server| server.set_memory(regions, files), clear).map(|()| None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.set_ring(index, Setting::Size, |session| {
            let set = session.ring(index)?.set_size(num);
            set.map_err(|error| refusal(format_args!("queue {index} cannot have the size {num}: {error}")))
        })
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let parts_of = |session: &Session| {
            Ok::<_, Error>([
                session.guest_address(descriptor)?,
                session.guest_address(available)?,
                session.guest_address(used)?,
            ])
        };
        // A running ring at the same addresses: the frontend changes only flags.
        let is_there = |ring: &Ring, parts| ring.is_running() && ring.addresses() == parts;
        if let (Ok(parts), Ok(position)) = (parts_of(&self.session), usize::try_from(index))
            && self.session.rings.get(position).is_some_and(|ring| is_there(ring, parts))
        {
            return Ok(());
        }
        self.set_ring(index, Setting::Addresses, |session| {
            let parts = parts_of(session)?;
            session.ring(index)?;
            let Session { rings, memory, .. } = session;
            let ring = usize::try_from(index).ok().and_then(|index| rings.get_mut(index));
            let set = ring.map_or(Ok(()), |ring| ring.set_addresses(memory, parts));
            set.map_err(|error| refusal(format_args!("queue {index} cannot be at {parts:x?}: {error}")))
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.set_ring(index, Setting::Base, |session| {
            let base = u16::try_from(base)
                .map_err(|error| refusal(format_args!("queue {index} cannot begin at {base}: {error}")))?;
            session.ring(index)?.set_next_available(base);
            Ok(())
        })
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let next = self.stop_ring(index).map_err(without_reply)?;
        Ok(VhostUserVringState::new(index, u32::from(next)))
    }

    /// Starts the ring. Without a descriptor it is polled.
    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let started = self.start_ring(u32::from(index), fd);
        if started.is_err() {
            self.discard_ring(u32::from(index));
        }
        started
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.session.ring(u32::from(index))?.call = fd;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.session.ring(u32::from(index))?.err = fd;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        let mut features = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        if !self.device.config().is_empty() {
            features |= VhostUserProtocolFeatures::CONFIG;
        }
        // For frontends on KVM and UML: see `set_backend_req_fd`.
        if !cfg!(feature = "xen") {
            features |= VhostUserProtocolFeatures::BACKEND_REQ;
        }
        Ok(features)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let has = |feature: VhostUserProtocolFeatures| features & feature.bits() != 0;
        self.session.reply_ack = has(VhostUserProtocolFeatures::REPLY_ACK);
        self.session.reset_device = has(VhostUserProtocolFeatures::RESET_DEVICE);
        Ok(())
    }

    /// Keeps the channel open. No request is ever sent: but Linux's frontend on UML takes queue interrupts
    /// only with such a channel, and takes its end for that of the device.
    fn set_backend_req_fd(&mut self, channel: BackendChannel) {
        self.session.channel = Some(channel);
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        u64::try_from(self.session.rings.len()).map_err(|_| Error::InvalidParam)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let ring = self.session.ring(index)?;
        ring.enabled = enable;
        ring.pending = true;
        self.complete_finished();
        Ok(())
    }

    /// Returns exactly the bytes asked for, or an error.
    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let range = |offset: u32, size: u32| {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(size).ok()?)?;
            self.device.config().get(start..end)
        };
        range(offset, size).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }

    /// Refused: neither I2C nor GPIO has a field that the driver may write.
    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(refusal(format_args!("the configuration is read-only")))
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(UNSUPPORTED)
    }

    fn get_inflight_fd(&mut self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let layout = self.record_layout(wanted).map_err(without_reply)?;
        let file = inflight::create(layout).map_err(|error| {
            without_reply(refusal(format_args!("an in-flight record cannot be created: {error}")))
        })?;
        let bytes = u64::try_from(layout.bytes()).map_err(|_| Error::InvalidParam)?;
        Ok((VhostUserInflight::new(bytes, 0, layout.queues, layout.queue_size), file))
    }

    fn set_inflight_fd(&mut self, given: &VhostUserInflight, file: File) -> Result<()> {
        self.set_all_rings(
            |server| server.set_record(given, file),
            |session| {
                (session.has_record, session.record_refused) = (false, true);
                session.rings.iter_mut().for_each(|ring| ring.set_record(None));
            },
        )
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(UNSUPPORTED)
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        Err(UNSUPPORTED)
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        Err(UNSUPPORTED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(UNSUPPORTED)
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(UNSUPPORTED)
    }
}

const UNSUPPORTED: Error = Error::InvalidOperation("a protocol feature that this back-end does not offer");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::gpio::device::Gpio;
    use crate::gpio::fake::FakeLines;
    use crate::gpio::safe::SafeValue;
    use crate::watch::Watcher;

    /// Upstream's daemon returns the memory behind the structure.
    #[test]
    fn a_read_beyond_the_configuration_is_refused() {
        let device = Gpio::new(FakeLines::new(1), &[Some("led".into())], &[SafeValue::default()]).unwrap();
        let mut server = DeviceServer::new(Box::new(device), Watcher::new().unwrap()).unwrap();
        let mut read = |offset, size| server.get_config(offset, size, VhostUserConfigFlags::empty()).ok();
        assert_eq!(read(0, 8), Some(vec![1, 0, 0, 0, 4, 0, 0, 0]));
        assert_eq!(read(4, 2), Some(vec![4, 0]));
        assert_eq!(read(8, 0), Some(vec![]));
        for (offset, size) in [(0, 9), (4, 5), (7, 2), (8, 1), (9, 0), (0x80, 0x80), (u32::MAX, u32::MAX)] {
            assert_eq!(read(offset, size), None, "{size} from {offset}");
        }
    }
}
