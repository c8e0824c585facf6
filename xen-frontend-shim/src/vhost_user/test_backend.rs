// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! For tests: a real daemon of the vhost-user-backend crate in this process, and memory shared with it.
//!
//! There is no Xen here: the regions are shared memory ("UNIX" in XEN_MMAP's terms) at the addresses of
//! grants.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shim_config::{Backend, Device, Properties};
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserProtocolFeatures};
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap, GuestRegionMmap,
    MmapRange, MmapRegion, MmapXenFlags,
};
use vmm_sys_util::epoll::EventSet;

use crate::memory::address::{GRANT_SPACE, GRANT_SPACE_END};
use crate::memory::{GuestAddress as RegisterValue, GuestMemory, Region, Ring};
use crate::vhost_user::Backing;

/// The properties of a device of one queue, those of its type.
pub(crate) fn properties(device_id: u32) -> Properties {
    let backend = Backend::Socket("/run/backend".into());
    Properties::of(&Device::new("device".into(), device_id, 1, 0x200_0000, 33, backend)).unwrap()
}

/// Bytes of the grant space.
const SIZE: u64 = GRANT_SPACE_END - GRANT_SPACE;

/// Guest memory in place of the grant space.
pub(crate) struct SharedMemory {
    file: File,
    pub(crate) memory: GuestMemoryMmap,
}

impl SharedMemory {
    pub(crate) fn new() -> Arc<Self> {
        let file = File::from(rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(SIZE).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let address = GuestAddress(GRANT_SPACE);
        let region =
            MmapRegion::from_range(MmapRange::new_unix(SIZE.try_into().unwrap(), Some(offset), address))
                .unwrap();
        let region = GuestRegionMmap::new(region, address).unwrap();
        Arc::new(Self { file, memory: GuestMemoryMmap::from_regions(vec![region]).unwrap() })
    }

    pub(crate) fn write_u16(&self, offset: u64, value: u16) {
        self.memory.write_obj(value, GuestAddress(GRANT_SPACE + offset)).unwrap();
    }

    pub(crate) fn read_u16(&self, offset: u64) -> u16 {
        self.memory.read_obj(GuestAddress(GRANT_SPACE + offset)).unwrap()
    }
}

impl Backing for Arc<SharedMemory> {
    fn memory(&self) -> &GuestMemory {
        &GuestMemory::Granted
    }

    fn describe(&self, region: &Region) -> (VhostUserMemoryRegion, RawFd) {
        let region = VhostUserMemoryRegion::with_xen(
            region.start,
            region.end - region.start,
            region.start,
            region.start - GRANT_SPACE,
            MmapXenFlags::UNIX.bits(),
            0,
        );
        (region, self.file.as_raw_fd())
    }
}

/// A ring of 16 entries at the start of `page`.
pub(crate) fn ring(page: u64) -> Ring {
    let at = |offset| RegisterValue::from(GRANT_SPACE + 4096 * page + offset);
    Ring::new(0, 16, at(0), at(0x400), at(0x800), &GuestMemory::Granted).unwrap()
}

/// What the backend has received.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) features: AtomicU64,
    pub(crate) chains: AtomicU64,
}

/// Returns every chain unread.
pub(crate) struct Returner {
    memory: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
    seen: Arc<Seen>,
}

impl VhostUserBackendMut for Returner {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        64
    }

    fn features(&self) -> u64 {
        1 << 32 | 1 << 30 | 1 << 29 | 1
    }

    fn acked_features(&mut self, features: u64) {
        self.seen.features.store(features, Ordering::SeqCst);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ
    }

    fn set_event_idx(&mut self, _: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        (offset..offset + size).map(|byte| u8::try_from(byte).unwrap()).collect()
    }

    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn handle_event(&mut self, _: u16, _: EventSet, vrings: &[VringRwLock], _: usize) -> io::Result<()> {
        let memory = self.memory.as_ref().unwrap().memory();
        let mut vring = vrings[0].get_mut();
        let mut has_used = false;
        while let Some(chain) = vring.get_queue_mut().pop_descriptor_chain(memory.clone()) {
            vring.get_queue_mut().add_used(&*memory, chain.head_index(), 0).unwrap();
            self.seen.chains.fetch_add(1, Ordering::SeqCst);
            has_used = true;
        }
        // A queue that is enabled gets an event without a kick.
        if has_used { vring.signal_used_queue() } else { Ok(()) }
    }
}

/// Starts a daemon. It ends with the connection.
pub(crate) fn start() -> (UnixStream, Arc<Seen>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let mut listener = Listener::new(&path, false).unwrap();
    let seen = Arc::new(Seen::default());
    let backend = Arc::new(Mutex::new(Returner { memory: None, seen: Arc::clone(&seen) }));
    std::thread::spawn(move || {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let mut daemon = VhostUserDaemon::new("test".into(), backend, memory).unwrap();
        daemon.start(&mut listener).unwrap();
        // The end of the connection is an error here, and nothing to report.
        let _ = daemon.wait();
    });
    (UnixStream::connect(&path).unwrap(), seen)
}
