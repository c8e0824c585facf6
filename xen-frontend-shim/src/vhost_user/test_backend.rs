// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! For tests: a real daemon of the vhost-user-backend crate in this process, and memory that both sides see.
//!
//! There is no Xen here, so the regions are shared memory ("UNIX" in XEN_MMAP's terms) at the addresses of grants.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap, GuestRegionMmap,
    MmapRange, MmapRegion, MmapXenFlags,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::memory::address::GRANT_SPACE;
use crate::memory::{GuestAddress as RegisterValue, Region, Ring};
use crate::vhost_user::Backing;

/// How much memory the guest has.
const SIZE: usize = 1 << 20;

/// Guest memory at the start of the grant space.
pub(crate) struct SharedMemory {
    file: File,
    pub(crate) memory: GuestMemoryMmap,
}

impl SharedMemory {
    pub(crate) fn new() -> Arc<Self> {
        let file = File::from(rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(SIZE as u64).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let address = GuestAddress(GRANT_SPACE);
        let region = MmapRegion::from_range(MmapRange::new_unix(SIZE, Some(offset), address)).unwrap();
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
    fn describe(&self, _: &[Region]) -> Vec<VhostUserMemoryRegionInfo> {
        vec![VhostUserMemoryRegionInfo {
            guest_phys_addr: GRANT_SPACE,
            memory_size: SIZE as u64,
            userspace_addr: GRANT_SPACE,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
            xen_mmap_flags: MmapXenFlags::UNIX.bits(),
            xen_mmap_data: 0,
        }]
    }
}

/// A ring of 16 entries at the start of `page`.
pub(crate) fn ring(page: u64) -> Ring {
    let at = |offset| RegisterValue::from(GRANT_SPACE + 4096 * page + offset);
    Ring::new(0, 16, at(0), at(0x400), at(0x800)).unwrap()
}

/// What the backend's one queue has seen, and what the test does to the backend.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) features: AtomicU64,
    pub(crate) chains: AtomicU64,
    config_base: AtomicU8,
    requests: Mutex<Option<UnixStream>>,
}

impl Seen {
    /// Gives the backend another configuration, which begins with `base`, and lets it say so.
    pub(crate) fn change_config(&self, base: u8) {
        self.config_base.store(base, Ordering::SeqCst);
        let mut requests = self.requests.lock().unwrap();
        requests.as_mut().unwrap().write_all(&CONFIG_CHANGE).unwrap();
    }
}

impl Seen {
    /// Says something over the channel for changes that it must not.
    pub(crate) fn talk_nonsense(&self) {
        let mut requests = self.requests.lock().unwrap();
        requests.as_mut().unwrap().write_all(&[0xff; 12]).unwrap();
    }
}

/// VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, version 1, without a body. (The vhost crate cannot send it.)
const CONFIG_CHANGE: [u8; 12] = [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

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
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::BACKEND_REQ
    }

    fn set_event_idx(&mut self, _: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let base = self.seen.config_base.load(Ordering::SeqCst);
        (offset..offset + size).map(|byte| base + u8::try_from(byte).unwrap()).collect()
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

/// Starts a daemon; the socket ends it.
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

/// As [`start`], with a backend that can say that its configuration has changed. The vhost crate gives it no way to, so the
/// test listens in on the connection and keeps the channel that the frontend passes for the purpose.
pub(crate) fn start_with_requests() -> (UnixStream, Arc<Seen>) {
    const SET_BACKEND_REQ_FD: u8 = 21;
    let (backend, seen) = start();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut answers, mut to) = (backend.try_clone().unwrap(), theirs.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = answers.read(&mut buffer) {
            to.write_all(&buffer[..length]).unwrap();
        }
    });
    let listener = Arc::clone(&seen);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length @ 1.., file)) = theirs.recv_with_fd(&mut buffer) {
            if let (SET_BACKEND_REQ_FD, Some(file)) = (buffer[0], &file) {
                let channel = UnixStream::from(OwnedFd::from(file.try_clone().unwrap()));
                *listener.requests.lock().unwrap() = Some(channel);
            }
            match file {
                Some(file) => backend.send_with_fd(&buffer[..length], file.as_raw_fd()).unwrap(),
                None => backend.send_with_fds(&[&buffer[..length]], &[]).unwrap(),
            };
        }
        let _ = backend.shutdown(std::net::Shutdown::Both);
    });
    (ours, seen)
}
