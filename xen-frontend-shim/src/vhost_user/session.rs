// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection to a backend, over which a device is started and stopped as often as its driver likes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::MmapXenFlags;
use vmm_sys_util::eventfd::EventFd;

use crate::memory::table::{self, TooManyRegions};
use crate::memory::{Mapping, Region, Ring};
use crate::vhost_user::kind::DeviceKind;
use crate::vhost_user::negotiate::{NegotiateError, Offer, negotiate, read_config};
use crate::vhost_user::watchdog::Watchdog;
use crate::virtio_mmio::features::ACCESS_PLATFORM;

/// How a backend reaches the memory that a table describes.
pub trait Backing {
    /// The table in the form of a message.
    fn describe(&self, table: &[Region]) -> Vec<VhostUserMemoryRegionInfo>;
}

/// Grants of a guest, which the backend maps through a descriptor of its own of `/dev/xen/gntdev`.
///
/// A mapping belongs to the open file. When the last descriptor of it goes, with the backend and with this, the
/// kernel unmaps whatever the backend had left.
#[derive(Debug)]
pub struct Grants {
    /// An open `/dev/xen/gntdev` that nobody else uses.
    pub gntdev: OwnedFd,
    /// The guest.
    pub domid: u16,
}

impl Backing for Grants {
    fn describe(&self, table: &[Region]) -> Vec<VhostUserMemoryRegionInfo> {
        let describe = |region: &Region| VhostUserMemoryRegionInfo {
            guest_phys_addr: region.start,
            memory_size: region.end - region.start,
            // The address space in which the rings' addresses are given. The guest's own is as good as any.
            userspace_addr: region.start,
            mmap_offset: 0,
            mmap_handle: self.gntdev.as_raw_fd(),
            xen_mmap_flags: match region.mapping {
                Mapping::Advance => MmapXenFlags::GRANT.bits(),
                Mapping::OnDemand => (MmapXenFlags::GRANT | MmapXenFlags::NO_ADVANCE_MAP).bits(),
            },
            xen_mmap_data: u32::from(self.domid),
        };
        table.iter().map(describe).collect()
    }
}

/// The event descriptors of one queue.
#[derive(Debug)]
pub struct Notifier {
    /// The driver has made buffers available.
    pub kick: EventFd,
    /// The device has used buffers.
    pub call: EventFd,
}

/// Why a session cannot go on.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The backend is too slow.
    #[error("the backend did not answer {0} within {1:?}")]
    Hangs(&'static str, Duration),
    /// The backend is gone, or refuses.
    #[error("the backend failed at {0}: {1}")]
    Protocol(&'static str, vhost::Error),
    /// The rings cannot be described.
    #[error(transparent)]
    Table(#[from] TooManyRegions),
    /// A queue without event descriptors: the configuration has fewer queues than the transport.
    #[error("queue {0} does not exist")]
    NoQueue(u16),
}

/// A connection on which everything is agreed that outlives a reset.
pub struct Session {
    frontend: Frontend,
    socket: Arc<UnixStream>,
    watchdog: Watchdog,
    backing: Box<dyn Backing>,
    kind: DeviceKind,
    offered: u64,
    running: Vec<u16>,
}

impl Session {
    /// Makes the acquaintance of the backend at the other end of `socket`.
    pub fn open(
        socket: UnixStream,
        kind: DeviceKind,
        queues: u16,
        watchdog: &Watchdog,
        backing: Box<dyn Backing>,
    ) -> Result<(Self, Offer), NegotiateError> {
        let clone = socket.try_clone().map_err(|error| {
            NegotiateError::Protocol("duplicating its socket", vhost::Error::IOError(error))
        })?;
        let socket = Arc::new(socket);
        let mut frontend = Frontend::from_stream(clone, u64::from(queues));
        let offer = {
            let _guard = watchdog.arm(&socket, watchdog.limits().connect);
            negotiate(&mut frontend, &kind, queues)?
        };
        let watchdog = watchdog.clone();
        let session =
            Self { frontend, socket, watchdog, backing, kind, offered: offer.features, running: Vec::new() };
        Ok((session, offer))
    }

    /// Starts the device: features, memory, rings, in that order, all of them anew.
    pub fn start(
        &mut self,
        features: u64,
        rings: &[Ring],
        notifiers: &[Notifier],
    ) -> Result<(), SessionError> {
        let regions = self.backing.describe(&table::with_rings(rings)?);
        // ACCESS_PLATFORM concerns driver and transport; a backend would take it for a wish for an IOTLB.
        let features =
            features & self.offered & !ACCESS_PLATFORM | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        self.call("SET_FEATURES", |frontend| frontend.set_features(features))?;
        self.call("SET_MEM_TABLE", |frontend| frontend.set_mem_table(&regions))?;
        for ring in rings {
            let notifier = notifiers.get(usize::from(ring.index));
            self.start_ring(ring, notifier.ok_or(SessionError::NoQueue(ring.index))?)?;
        }
        Ok(())
    }

    fn start_ring(&mut self, ring: &Ring, notifier: &Notifier) -> Result<(), SessionError> {
        let queue = usize::from(ring.index);
        let address = VringConfigData {
            queue_max_size: self.kind.queue_size_max,
            queue_size: ring.size,
            flags: 0,
            desc_table_addr: ring.descriptors.start(),
            used_ring_addr: ring.used.start(),
            avail_ring_addr: ring.available.start(),
            log_addr: None,
        };
        self.call("SET_VRING_NUM", |frontend| frontend.set_vring_num(queue, ring.size))?;
        self.call("SET_VRING_BASE", |frontend| frontend.set_vring_base(queue, 0))?;
        self.call("SET_VRING_ADDR", |frontend| frontend.set_vring_addr(queue, &address))?;
        self.call("SET_VRING_CALL", |frontend| frontend.set_vring_call(queue, &notifier.call))?;
        self.call("SET_VRING_KICK", |frontend| frontend.set_vring_kick(queue, &notifier.kick))?;
        self.call("SET_VRING_ENABLE", |frontend| frontend.set_vring_enable(queue, true))?;
        self.running.push(ring.index);
        Ok(())
    }

    /// Stops the device. When this returns well, the backend has unmapped all of the guest's memory.
    pub fn stop(&mut self) -> Result<(), SessionError> {
        while let Some(queue) = self.running.last().copied() {
            self.stop_queue(queue)?;
        }
        let regions = self.backing.describe(&table::without_rings());
        self.call("SET_MEM_TABLE", |frontend| frontend.set_mem_table(&regions)).map(drop)
    }

    /// Stops one queue.
    pub fn stop_queue(&mut self, queue: u16) -> Result<(), SessionError> {
        let Some(position) = self.running.iter().position(|&running| running == queue) else { return Ok(()) };
        self.running.swap_remove(position);
        let queue = usize::from(queue);
        self.call("SET_VRING_ENABLE", |frontend| frontend.set_vring_enable(queue, false))?;
        self.call("GET_VRING_BASE", |frontend| frontend.get_vring_base(queue)).map(drop)
    }

    /// Passes on what the driver writes to the configuration, where it may, and reads what has become of it.
    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, SessionError> {
        if !u32::try_from(bytes.len()).is_ok_and(|length| self.kind.may_write(offset, length)) {
            return Ok(None);
        }
        let kind = self.kind.clone();
        self.call("SET_CONFIG", |frontend| {
            frontend.set_config(offset, VhostUserConfigFlags::WRITABLE, bytes)
        })?;
        self.call("GET_CONFIG", |frontend| read_config(frontend, &kind)).map(Some)
    }

    /// One call to the backend, which ends in bounded time.
    fn call<T>(
        &mut self,
        step: &'static str,
        call: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T, SessionError> {
        let limit = self.watchdog.limits().call;
        let guard = self.watchdog.arm(&self.socket, limit);
        call(&mut self.frontend).map_err(|error| {
            if guard.has_fired() {
                SessionError::Hangs(step, limit)
            } else {
                SessionError::Protocol(step, error)
            }
        })
    }
}

impl AsFd for Session {
    /// The socket, to learn when the backend hangs up.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Session {
    /// A backend that was started for this connection exits when it ends, even if other copies of the descriptor
    /// should live on.
    fn drop(&mut self) {
        // It can only fail if the connection is down already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::memory::address::{GRANT_SPACE, GRANT_SPACE_END};
    use crate::vhost_user::Limits;
    use crate::vhost_user::test_backend::{self, SharedMemory, ring};
    use crate::virtio_mmio::features::VERSION_1;

    /// What the driver of a ring of [`ring`] at page 1 does to make its next buffer available.
    fn make_available(memory: &SharedMemory, next: u16) {
        memory.write_u16(4096 + 8, 16);
        memory.write_u16(4096 + 0x404 + 2 * u64::from(next % 16), 0);
        memory.write_u16(4096 + 0x402, next + 1);
    }

    fn notifier() -> Notifier {
        Notifier { kick: EventFd::new(0).unwrap(), call: EventFd::new(0).unwrap() }
    }

    #[test]
    fn a_real_backend_is_started_used_and_stopped_again_and_again() {
        let (socket, seen) = test_backend::start();
        let memory = SharedMemory::new();
        let watchdog = Watchdog::start(Limits::default()).unwrap();
        let backing = Box::new(Arc::clone(&memory));
        let (mut session, offer) = Session::open(socket, DeviceKind::of(41), 1, &watchdog, backing).unwrap();
        assert_eq!(offer.config, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(offer.features & 0xff, 1);
        for _ in 0..10 {
            let notifiers = [notifier()];
            for at in [0x400, 0x402, 0x800, 0x802] {
                memory.write_u16(4096 + at, 0);
            }
            session.start(VERSION_1 | ACCESS_PLATFORM | 1, &[ring(1)], &notifiers).unwrap();
            assert_eq!(seen.features.load(Ordering::SeqCst), VERSION_1 | 1 << 30 | 1);
            for next in 0..3 {
                make_available(&memory, next);
                notifiers[0].kick.write(1).unwrap();
                notifiers[0].call.read().unwrap();
                assert_eq!(memory.read_u16(4096 + 0x802), next + 1);
            }
            session.stop().unwrap();
        }
        assert_eq!(seen.chains.load(Ordering::SeqCst), 30);
    }

    #[test]
    fn a_backend_with_fewer_queues_than_configured_is_refused() {
        let (socket, _) = test_backend::start();
        let backing = Box::new(SharedMemory::new());
        let watchdog = Watchdog::start(Limits::default()).unwrap();
        let result = Session::open(socket, DeviceKind::of(41), 2, &watchdog, backing);
        assert!(matches!(result, Err(NegotiateError::TooFewQueues { has: 1, needs: 2 })));
    }

    #[test]
    fn a_backend_that_leaves_is_an_error_and_no_wait() {
        let (socket, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let backing = Box::new(SharedMemory::new());
        let watchdog = Watchdog::start(Limits::default()).unwrap();
        let result = Session::open(socket, DeviceKind::of(34), 1, &watchdog, backing);
        assert!(matches!(result, Err(NegotiateError::Protocol(..))));
    }

    /// Passes everything between the two, until told to keep silent.
    fn relay(from: UnixStream, to: UnixStream, silent: Arc<AtomicBool>) {
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = (&from).read(&mut buffer) {
                if !silent.load(Ordering::SeqCst) {
                    (&to).write_all(&buffer[..length]).unwrap();
                }
            }
        });
    }

    #[test]
    fn a_backend_that_hangs_is_given_up_in_bounded_time() {
        let limits = Limits { connect: Duration::from_secs(10), call: Duration::from_millis(50) };
        let watchdog = Watchdog::start(limits).unwrap();
        let (backend, _) = test_backend::start();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let silent = Arc::new(AtomicBool::new(false));
        relay(theirs.try_clone().unwrap(), backend.try_clone().unwrap(), Arc::clone(&silent));
        relay(backend, theirs, Arc::clone(&silent));
        let backing = Box::new(SharedMemory::new());
        let (mut session, _) = Session::open(ours, DeviceKind::of(34), 1, &watchdog, backing).unwrap();
        silent.store(true, Ordering::SeqCst);
        let result = session.start(VERSION_1, &[ring(1)], &[notifier()]);
        assert!(matches!(result, Err(SessionError::Hangs("SET_FEATURES", _))), "{result:?}");
        let result = session.stop();
        assert!(matches!(result, Err(SessionError::Protocol(..))), "{result:?}");
    }

    #[test]
    fn the_connection_ends_with_the_session() {
        let (socket, _) = test_backend::start();
        let other = socket.try_clone().unwrap();
        let backing = Box::new(SharedMemory::new());
        let watchdog = Watchdog::start(Limits::default()).unwrap();
        drop(Session::open(socket, DeviceKind::of(34), 1, &watchdog, backing).map(drop));
        let mut hung_up = [PollFd::new(&other, PollFlags::RDHUP)];
        poll(&mut hung_up, None).unwrap();
        assert!(hung_up[0].revents().contains(PollFlags::RDHUP));
    }

    #[test]
    fn grants_are_described_in_the_terms_of_xen_mmap() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let grants = Grants { gntdev: file.into(), domid: 2 };
        let regions = grants.describe(&table::with_rings(&[ring(8)]).unwrap());
        let described: Vec<_> = regions
            .iter()
            .map(|region| {
                assert_eq!((region.mmap_offset, region.xen_mmap_data), (0, 2));
                assert_eq!(region.userspace_addr, region.guest_phys_addr);
                (region.guest_phys_addr - GRANT_SPACE, region.memory_size, region.xen_mmap_flags)
            })
            .collect();
        let rest = GRANT_SPACE_END - GRANT_SPACE - 0x9000;
        assert_eq!(described, [(0, 0x8000, 0xa), (0x8000, 0x1000, 0x2), (0x9000, rest, 0xa)]);
    }
}
