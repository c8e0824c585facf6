// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What one frontend negotiated, and the device it negotiates about: the vhost-user protocol's backend side.
//!
//! The `vhost` crate reads and checks the messages and calls [`Backend`] for each. A session lives from connect
//! to disconnect; ending it replaces it as a whole, so that nothing of a former frontend can be left over.
//! (Crate `vhost-user-backend` would do much of this, but it can only connect or accept by itself: a socket that is
//! connected already, as `--fd` passes it, has no way in. It also refuses in-flight tracking, and brings two threads.)

use std::fs::File;
use std::io;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::bindings::virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::chain::Chain;
use crate::device::Device;
use crate::memory::Memory;
use crate::queue::Ring;
use crate::watch::{Token, Watcher};

/// Bits of the device type (virtio 1.3, 2.2).
const DEVICE_FEATURES: u64 = (1 << 24) - 1;

/// What the core can do for every device. Indirect tables would have to be fetched by grants of their own: with Xen
/// they are not offered, and the ring is large enough without.
const TRANSPORT_FEATURES: u64 = (1 << VIRTIO_F_VERSION_1)
    | (1 << VIRTIO_RING_F_EVENT_IDX)
    | if cfg!(feature = "xen") { 1 << VIRTIO_F_ACCESS_PLATFORM } else { 1 << VIRTIO_RING_F_INDIRECT_DESC };

/// A device and the frontend it is served to.
pub(crate) struct Backend {
    device: Box<dyn Device>,
    watcher: Watcher,
    session: Session,
    requests: Vec<Chain>,
    finished: Vec<Chain>,
}

/// Everything that ends with the connection.
struct Session {
    /// The driver's features were accepted. Until then, or after others were refused, no ring is worked on.
    accepted: bool,
    /// The frontend learns from an answer when its request failed, if it wants to.
    reply_ack: bool,
    memory: Memory,
    /// Where the frontend's own addresses of the regions are: it names rings by them.
    regions: Vec<Region>,
    rings: Vec<Ring>,
}

struct Region {
    frontend: u64,
    guest: u64,
    size: u64,
}

impl Session {
    fn new(device: &dyn Device) -> io::Result<Self> {
        let limits = device.queues().iter().enumerate();
        let rings: std::result::Result<_, _> =
            limits.map(|(index, limits)| Ring::new(index, *limits)).collect();
        Ok(Self {
            accepted: false,
            reply_ack: false,
            memory: Memory::default(),
            regions: Vec::new(),
            rings: rings.map_err(io::Error::other)?,
        })
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        let position = usize::try_from(index).unwrap_or(usize::MAX);
        self.rings.get_mut(position).ok_or_else(|| refused(format_args!("there is no queue {index}")))
    }

    fn guest_address(&self, frontend: u64) -> Result<GuestAddress> {
        let inside = |region: &&Region| {
            (region.frontend..region.frontend.saturating_add(region.size)).contains(&frontend)
        };
        let region = self.regions.iter().find(inside).ok_or_else(|| {
            refused(format_args!("a ring is at {frontend:#x}, where there is no memory region"))
        })?;
        Ok(GuestAddress(frontend - region.frontend + region.guest))
    }
}

impl Backend {
    pub(crate) fn new(mut device: Box<dyn Device>, watcher: Watcher) -> io::Result<Self> {
        device.watch(&watcher)?;
        let session = Session::new(&*device)?;
        Ok(Self { device, watcher, session, requests: Vec::new(), finished: Vec::new() })
    }

    /// The frontend is gone, and with it all that it set up.
    pub(crate) fn end_session(&mut self) -> io::Result<()> {
        self.forget_kicks();
        self.device.reset();
        self.finished.clear();
        self.session = Session::new(&*self.device)?;
        Ok(())
    }

    /// Whether the session can go on after `error`: a request was refused, and the frontend is told. What is refused may
    /// be the guest's doing, as a ring where it has no memory; that is no reason to leave.
    pub(crate) fn outlives(&self, error: &Error) -> bool {
        let refusal =
            matches!(error, Error::ReqHandlerError(_) | Error::InvalidParam | Error::InvalidOperation(_));
        self.session.reply_ack && refusal
    }

    fn forget_kicks(&mut self) {
        for ring in &mut self.session.rings {
            if let Some(kick) = ring.kick.take() {
                let _ = self.watcher.remove(&kick);
            }
        }
    }

    pub(crate) fn kicked(&mut self, queue: u32) {
        if let Ok(ring) = self.session.ring(queue) {
            ring.kicked();
        }
    }

    /// Whether a queue waits to be worked on, though nobody will kick.
    pub(crate) fn is_pending(&self) -> bool {
        self.session.accepted && self.session.rings.iter().any(|ring| ring.pending && ring.is_running())
    }

    /// One turn of every queue that has something: take all, work, complete all.
    pub(crate) fn work(&mut self) {
        let Self { device, session, requests, finished, watcher: _ } = self;
        for (index, ring) in session.rings.iter_mut().enumerate() {
            if session.accepted && ring.pending {
                ring.take(&session.memory, requests);
                device.process(index, requests, finished);
                requests.clear();
            }
        }
        self.complete();
    }

    pub(crate) fn device_event(&mut self, token: u32) {
        self.device.event(token, &mut self.finished);
        self.complete();
    }

    /// Returns what the device finished, each to the queue that it came from.
    fn complete(&mut self) {
        for (index, ring) in self.session.rings.iter_mut().enumerate() {
            let mut mine: Vec<Chain> = self.finished.extract_if(.., |chain| chain.queue() == index).collect();
            ring.complete(&self.session.memory, &mut mine);
        }
        self.finished.clear();
    }

    fn stop_ring(&mut self, index: u32) -> Result<u16> {
        let queue = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.session.ring(index)?;
        self.device.stop(queue, &mut self.finished);
        self.complete();
        let watcher = self.watcher.clone();
        let ring = self.session.ring(index)?;
        ring.stop();
        if let Some(kick) = ring.kick.take() {
            let _ = watcher.remove(&kick);
        }
        ring.call = None;
        Ok(ring.next_available())
    }
}

/// The frontend hears only that its request failed: the reason goes to the log.
fn refused(why: std::fmt::Arguments<'_>) -> Error {
    log::error!("a request of the frontend is refused: {why}");
    Error::InvalidParam
}

impl VhostUserBackendReqHandlerMut for Backend {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.end_session().map_err(Error::ReqHandlerError)
    }

    fn reset_device(&mut self) -> Result<()> {
        for ring in &mut self.session.rings {
            ring.enabled = false;
        }
        self.device.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        let device = self.device.features() & DEVICE_FEATURES;
        Ok(device | TRANSPORT_FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let offered = self.get_features()?;
        self.session.accepted = false;
        if features & !offered != 0 {
            return Err(refused(format_args!("features {:#x} were not offered", features & !offered)));
        }
        self.device.accept_features(features & DEVICE_FEATURES).map_err(|refused| {
            log::error!("{refused}");
            Error::ReqHandlerError(io::Error::other(refused))
        })?;
        self.session.accepted = true;
        for ring in &mut self.session.rings {
            ring.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
            ring.indirect = features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0;
            // Without protocol features there is no message to enable rings: they start enabled.
            ring.enabled |= features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        if postcopy_listening.is_some() {
            return Err(Error::InvalidOperation("postcopy is not supported"));
        }
        let mut mapped = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            let mmap = region.mmap_region(file)?;
            let region = GuestRegionMmap::new(mmap, GuestAddress(region.guest_phys_addr))
                .ok_or(Error::InvalidParam)?;
            mapped.push(region);
        }
        let map = GuestMemoryMmap::from_regions(mapped)
            .map_err(|error| refused(format_args!("the memory table is not usable: {error}")))?;
        self.session.memory = Memory::new(map).map_err(Error::ReqHandlerError)?;
        self.session.regions = regions
            .iter()
            .map(|region| Region {
                frontend: region.user_addr,
                guest: region.guest_phys_addr,
                size: region.memory_size,
            })
            .collect();
        for ring in &mut self.session.rings {
            ring.check_memory(&self.session.memory);
        }
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.session.ring(index)?.set_size(num).map_err(|_| {
            refused(format_args!("{num} is not a power of two that queue {index} takes for its size"))
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
        let session = &mut self.session;
        let parts = [
            session.guest_address(descriptor)?,
            session.guest_address(available)?,
            session.guest_address(used)?,
        ];
        let index = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        let ring = session.rings.get_mut(index).ok_or(Error::InvalidParam)?;
        let set = ring.set_addresses(&session.memory, parts);
        set.map_err(|error| refused(format_args!("queue {index} cannot be at {parts:x?}: {error}")))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.session.ring(index)?.set_next_available(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let next = self.stop_ring(index)?;
        Ok(VhostUserVringState::new(index, u32::from(next)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let Self { device, session: Session { rings, memory, .. }, watcher, .. } = self;
        let ring = rings
            .get_mut(usize::from(index))
            .ok_or_else(|| refused(format_args!("there is no queue {index}")))?;
        if let Some(former) = ring.kick.take() {
            let _ = watcher.remove(&former);
        }
        let kick = fd.ok_or(Error::InvalidOperation("a ring without a kick descriptor is not supported"))?;
        let watched = watcher.insert(&kick, Token::Kick(u32::from(index)));
        watched.map_err(Error::ReqHandlerError)?;
        ring.kick = Some(kick);
        if !ring.is_started() {
            device.start(usize::from(index), ring.next_available());
        }
        ring.start(memory);
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.session.ring(u32::from(index))?.call = fd;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _fd: Option<File>) -> Result<()> {
        self.session.ring(u32::from(index)).map(|_| ())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        let mut features = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::RESET_DEVICE;
        if !self.device.config().is_empty() {
            features |= VhostUserProtocolFeatures::CONFIG;
        }
        Ok(features)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.session.reply_ack = features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0;
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        u64::try_from(self.session.rings.len()).map_err(|_| Error::InvalidParam)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let ring = self.session.ring(index)?;
        ring.enabled = enable;
        ring.pending = true;
        Ok(())
    }

    /// Exactly the bytes asked for, or an error: never more than the structure has, nor less than was asked.
    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let range = |offset: u32, size: u32| {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(size).ok()?)?;
            self.device.config().get(start..end)
        };
        range(offset, size).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }

    /// Neither I2C nor GPIO has a field that the driver may write.
    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("the configuration is read-only"))
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(UNSUPPORTED)
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(UNSUPPORTED)
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        Err(UNSUPPORTED)
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

const UNSUPPORTED: Error =
    Error::InvalidOperation("not among the protocol features that this backend offers");
