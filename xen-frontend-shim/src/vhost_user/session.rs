// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection to a backend, over which a device is started and stopped as often as its driver likes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;
use rustix::event::{PollFd, PollFlags, poll};
use thiserror::Error;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserInflight, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::MmapXenFlags;
use vmm_sys_util::eventfd::EventFd;

use crate::memory::table::{self, TooManyRegions};
use crate::memory::{Mapping, Region, Ring};
use crate::vhost_user::inflight::Inflight;
use crate::vhost_user::knock::{Heard, Question, hear_unasked};
use crate::vhost_user::negotiate::{NegotiateError, Offer, negotiate, read_config};
use crate::vhost_user::requests::Requests;
use crate::vhost_user::watchdog::Watchdog;
use crate::virtio_mmio::features::{self, ACCESS_PLATFORM};
use shim_config::DeviceKind;

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
    /// An open `/dev/xen/gntdev` that nobody else uses, restricted to the guest.
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
    /// The device cannot use the queue any more, for what the driver has put there.
    pub err: EventFd,
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
    /// The record of requests in flight cannot be used.
    #[error("the record of requests in flight is not usable: {0}")]
    Inflight(#[source] io::Error),
    /// A queue without event descriptors: the configuration has fewer queues than the transport.
    #[error("queue {0} does not exist")]
    NoQueue(u16),
}

impl SessionError {
    /// Whether the backend is there and does not want to, so that another would not either.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        use vhost::vhost_user::Error::{Disconnected, PartialMessage, SocketBroken, SocketError};
        match self {
            Self::Hangs(..) => false,
            Self::Protocol(_, vhost::Error::VhostUserProtocol(error)) => {
                !matches!(error, Disconnected | PartialMessage | SocketBroken(_) | SocketError(_))
            }
            _ => true,
        }
    }
}

/// What it takes to start a device.
#[derive(Debug)]
pub struct Start<'a> {
    /// The features that the driver accepted.
    pub features: u64,
    /// The rings, each with the index of the first entry that has not been served.
    pub rings: &'a [(Ring, u16)],
    /// The event descriptors of all queues.
    pub notifiers: &'a [Notifier],
    /// Where requests in flight are recorded.
    pub inflight: &'a Inflight,
    /// Whether the driver begins anew, so that the record is to be empty.
    pub is_fresh: bool,
}

/// A connection on which everything is agreed that outlives a reset.
pub struct Session {
    frontend: Frontend,
    socket: Arc<UnixStream>,
    watchdog: Watchdog,
    backing: Box<dyn Backing>,
    kind: DeviceKind,
    features: u64,
    inflight_size: Option<u64>,
    hears_resets: bool,
    queues: u16,
    running: Vec<Ring>,
    requests: Option<Requests>,
    /// Whether it has been told nothing since it was stopped.
    is_idle: bool,
    /// What it has been asked for a sign of life and has not answered. Whoever takes the answer, this goes with it.
    question: Option<Question>,
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
        let mut offer = {
            let _guard = watchdog.arm(&socket, watchdog.limits().connect);
            negotiate(&mut frontend, &kind, queues)?
        };
        let watchdog = watchdog.clone();
        let requests = offer.requests.take();
        let session = Self {
            frontend,
            socket,
            watchdog,
            backing,
            kind,
            features: offer.features,
            inflight_size: offer.inflight_size,
            hears_resets: offer.hears_resets,
            queues,
            running: Vec::new(),
            requests,
            is_idle: true,
            question: None,
        };
        Ok((session, offer))
    }

    /// What a driver is offered of the backend's features.
    #[must_use]
    pub fn offered(&self) -> u64 {
        features::offered(self.features, self.kind.features)
    }

    /// Whether the backend records which requests it has taken.
    #[must_use]
    pub fn tracks_inflight(&self) -> bool {
        self.inflight_size.is_some()
    }

    /// Asks for a sign of life, which is due by `answer_by`. [`Self::hear`] takes it, or the next call does.
    pub fn ask(&mut self, answer_by: Instant) -> io::Result<()> {
        self.question = Some(Question::ask(&*self.socket, answer_by)?);
        Ok(())
    }

    /// By when the sign of life is due that it has been asked for and has not given.
    #[must_use]
    pub fn answer_by(&self) -> Option<Instant> {
        self.question.as_ref().map(Question::answer_by)
    }

    /// What has come unexpectedly, or in answer to [`Self::ask`].
    pub fn hear(&mut self) -> Heard {
        let Some(question) = &mut self.question else { return hear_unasked(&*self.socket) };
        let heard = question.hear(&*self.socket);
        if heard == Heard::Answer {
            self.question = None;
        }
        heard
    }

    /// Starts the device: features, record, memory, rings, in that order, all of them anew.
    pub fn start(&mut self, start: &Start<'_>) -> Result<(), SessionError> {
        self.is_idle = false;
        let all: Vec<_> = start.rings.iter().map(|(ring, _)| *ring).collect();
        let table = table::with_rings(&all)?;
        // ACCESS_PLATFORM concerns driver and transport; a backend would take it for a wish for an IOTLB.
        let features = start.features & self.features & !ACCESS_PLATFORM
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        self.call("SET_FEATURES", |frontend| frontend.set_features(features))?;
        if let Some(size) = self.inflight_size {
            start.inflight.prepare(size, start.is_fresh).map_err(SessionError::Inflight)?;
            let record = VhostUserInflight::new(size, 0, self.queues, self.kind.queue_size_max);
            let fd = start.inflight.as_raw_fd();
            self.call("SET_INFLIGHT_FD", |frontend| frontend.set_inflight_fd(&record, fd))?;
        }
        self.set_memory(&table)?;
        for (ring, base) in start.rings {
            let notifier = start.notifiers.get(usize::from(ring.index));
            self.start_ring(ring, *base, notifier.ok_or(SessionError::NoQueue(ring.index))?)?;
        }
        Ok(())
    }

    fn start_ring(&mut self, ring: &Ring, base: u16, notifier: &Notifier) -> Result<(), SessionError> {
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
        self.call("SET_VRING_BASE", |frontend| frontend.set_vring_base(queue, base))?;
        self.call("SET_VRING_ADDR", |frontend| frontend.set_vring_addr(queue, &address))?;
        self.call("SET_VRING_ERR", |frontend| frontend.set_vring_err(queue, &notifier.err))?;
        self.call("SET_VRING_CALL", |frontend| frontend.set_vring_call(queue, &notifier.call))?;
        self.call("SET_VRING_KICK", |frontend| frontend.set_vring_kick(queue, &notifier.kick))?;
        self.call("SET_VRING_ENABLE", |frontend| frontend.set_vring_enable(queue, true))?;
        self.running.push(*ring);
        Ok(())
    }

    /// Starts one more ring, at its beginning, beside those that are running.
    pub fn start_queue(&mut self, ring: &Ring, notifiers: &[Notifier]) -> Result<(), SessionError> {
        let notifier = notifiers.get(usize::from(ring.index)).ok_or(SessionError::NoQueue(ring.index))?;
        let all: Vec<_> = self.running.iter().copied().chain([*ring]).collect();
        self.set_memory(&table::with_rings(&all)?)?;
        self.start_ring(ring, 0, notifier)
    }

    fn set_memory(&mut self, table: &[Region]) -> Result<(), SessionError> {
        let regions = self.backing.describe(table);
        self.call("SET_MEM_TABLE", |frontend| frontend.set_mem_table(&regions)).map(drop)
    }

    /// Stops the device. When this returns well, the backend has unmapped all of the guest's memory.
    pub fn stop(&mut self) -> Result<(), SessionError> {
        if self.is_idle {
            return Ok(());
        }
        while let Some(ring) = self.running.pop() {
            self.stop_ring(ring.index)?;
        }
        self.set_memory(&table::without_rings())?;
        self.reset()?;
        self.is_idle = true;
        Ok(())
    }

    /// Has the backend put the device into the state that it has without a driver: what drives an output may need to know
    /// that nobody wants it any more. A backend that does not hear of resets takes a stop for one.
    pub fn reset(&mut self) -> Result<(), SessionError> {
        if !self.hears_resets {
            return Ok(());
        }
        self.call("RESET_DEVICE", |frontend| frontend.reset_device())
    }

    /// Stops one queue. When this returns well, the backend has unmapped its ring.
    ///
    /// vhost-user has no message to unmap what belongs to one ring, so the backend is sent a table in which only the
    /// other rings are mapped in advance. It maps that before it lets go of the former, so that they can run on.
    pub fn stop_queue(&mut self, queue: u16) -> Result<(), SessionError> {
        let Some(position) = self.running.iter().position(|ring| ring.index == queue) else { return Ok(()) };
        self.running.remove(position);
        self.stop_ring(queue)?;
        self.set_memory(&table::with_rings(&self.running)?)
    }

    fn stop_ring(&mut self, queue: u16) -> Result<(), SessionError> {
        let queue = usize::from(queue);
        self.call("SET_VRING_ENABLE", |frontend| frontend.set_vring_enable(queue, false))?;
        self.call("GET_VRING_BASE", |frontend| frontend.get_vring_base(queue)).map(drop)
    }

    /// Passes on what the driver writes to the configuration, where it may, and reads what has become of it.
    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, SessionError> {
        if !u32::try_from(bytes.len()).is_ok_and(|length| self.kind.may_write(offset, length)) {
            return Ok(None);
        }
        self.call("SET_CONFIG", |frontend| {
            frontend.set_config(offset, VhostUserConfigFlags::WRITABLE, bytes)
        })?;
        self.read_config().map(Some)
    }

    /// Where the backend says that its configuration has changed, if it can.
    #[must_use]
    pub fn requests(&self) -> Option<BorrowedFd<'_>> {
        self.requests.as_ref().map(Requests::as_fd)
    }

    /// The configuration, if the backend says that it has changed. A backend that says anything else is not listened to
    /// any more.
    pub fn changed_config(&mut self) -> Result<Option<Vec<u8>>, SessionError> {
        let Some(requests) = &mut self.requests else { return Ok(None) };
        match requests.take() {
            Ok(false) => Ok(None),
            Ok(true) => self.read_config().map(Some),
            Err(error) => {
                warn!("a backend can no longer say that its configuration changes: {error}");
                self.requests = None;
                Ok(None)
            }
        }
    }

    fn read_config(&mut self) -> Result<Vec<u8>, SessionError> {
        let kind = self.kind.clone();
        self.call("GET_CONFIG", |frontend| read_config(frontend, &kind))
    }

    /// One call to the backend, which ends in bounded time.
    fn call<T>(
        &mut self,
        step: &'static str,
        call: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T, SessionError> {
        let limit = self.watchdog.limits().call;
        let guard = self.watchdog.arm(&self.socket, limit);
        // What it has been asked before comes first.
        let called = match self.collect() {
            Ok(()) => call(&mut self.frontend),
            Err(error) => Err(vhost::Error::VhostUserProtocol(error)),
        };
        called.map_err(|error| {
            if guard.has_fired() {
                SessionError::Hangs(step, limit)
            } else {
                SessionError::Protocol(step, error)
            }
        })
    }
}

impl Session {
    /// Waits for the sign of life, if it has been asked for one.
    fn collect(&mut self) -> Result<(), vhost::vhost_user::Error> {
        while self.question.is_some() {
            // It can only fail for an interruption.
            let _ = poll(&mut [PollFd::new(&*self.socket, PollFlags::IN)], None);
            match self.hear() {
                Heard::Answer | Heard::Nothing => {}
                Heard::HangUp => return Err(vhost::vhost_user::Error::Disconnected),
                Heard::Noise => return Err(vhost::vhost_user::Error::InvalidMessage),
            }
        }
        Ok(())
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
    use std::sync::Mutex;
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
        let [kick, call, err] = [0; 3].map(|flags| EventFd::new(flags).unwrap());
        Notifier { kick, call, err }
    }

    fn start(session: &mut Session, features: u64, notifiers: &[Notifier]) -> Result<(), SessionError> {
        let inflight = Inflight::new(tempfile::tempfile().unwrap(), 64);
        let rings = [(ring(1), 0)];
        session.start(&Start { features, rings: &rings, notifiers, inflight: &inflight, is_fresh: true })
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
            start(&mut session, VERSION_1 | ACCESS_PLATFORM | 1, &notifiers).unwrap();
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

    /// The memory tables that were sent.
    struct Recorded(Arc<SharedMemory>, Arc<Mutex<Vec<Vec<Region>>>>);

    impl Backing for Recorded {
        fn describe(&self, table: &[Region]) -> Vec<VhostUserMemoryRegionInfo> {
            self.1.lock().unwrap().push(table.to_vec());
            self.0.describe(table)
        }
    }

    #[test]
    fn one_queue_is_stopped_unmapped_and_started_elsewhere() {
        let (socket, seen) = test_backend::start();
        let memory = SharedMemory::new();
        let tables = Arc::new(Mutex::new(Vec::new()));
        let watchdog = Watchdog::start(Limits::default()).unwrap();
        let backing = Box::new(Recorded(Arc::clone(&memory), Arc::clone(&tables)));
        let (mut session, _) = Session::open(socket, DeviceKind::of(41), 1, &watchdog, backing).unwrap();
        let notifiers = [notifier()];
        let transfer = |next| {
            make_available(&memory, next);
            notifiers[0].kick.write(1).unwrap();
            notifiers[0].call.read().unwrap();
            assert_eq!(memory.read_u16(4096 + 0x802), next + 1);
        };
        start(&mut session, VERSION_1, &notifiers).unwrap();
        transfer(0);
        transfer(1);
        session.stop_queue(0).unwrap();
        session.stop_queue(0).unwrap();
        // The driver prepares the ring anew, and its buffer is served again as the first.
        for at in [0x402, 0x802] {
            memory.write_u16(4096 + at, 0);
        }
        session.start_queue(&ring(1), &notifiers).unwrap();
        transfer(0);
        session.stop().unwrap();
        assert_eq!(seen.chains.load(Ordering::SeqCst), 3);
        let in_use = table::with_rings(&[ring(1)]).unwrap();
        let none = table::without_rings();
        assert_eq!(*tables.lock().unwrap(), [in_use.clone(), none.clone(), in_use, none]);
    }

    #[test]
    fn a_backend_says_that_its_configuration_has_changed() {
        let (socket, seen) = test_backend::start_with_requests();
        let backing = Box::new(SharedMemory::new());
        let watchdog = Watchdog::start(Limits::default()).unwrap();
        let (mut session, offer) = Session::open(socket, DeviceKind::of(41), 1, &watchdog, backing).unwrap();
        assert_eq!(offer.config, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(session.changed_config().unwrap(), None);
        for base in [10, 20] {
            seen.change_config(base);
            let requests = session.requests().unwrap();
            poll(&mut [PollFd::new(&requests, PollFlags::IN)], None).unwrap();
            let config = session.changed_config().unwrap().unwrap();
            assert!(config.into_iter().eq(base..base + 8));
            assert_eq!(session.changed_config().unwrap(), None);
        }
        seen.talk_nonsense();
        poll(&mut [PollFd::new(&session.requests().unwrap(), PollFlags::IN)], None).unwrap();
        assert_eq!(session.changed_config().unwrap(), None);
        assert!(session.requests().is_none(), "it is not listened to any more");
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
        let result = start(&mut session, VERSION_1, &[notifier()]);
        assert!(matches!(result, Err(SessionError::Hangs("SET_FEATURES", _))), "{result:?}");
        let result = session.stop();
        assert!(matches!(result, Err(SessionError::Protocol(..))), "{result:?}");
    }

    #[test]
    fn a_call_waits_for_the_answer_that_is_due_before_its_own() {
        let (socket, _) = test_backend::start();
        let watchdog = Watchdog::start(Limits::default()).unwrap();
        let backing = Box::new(SharedMemory::new());
        let (mut session, _) = Session::open(socket, DeviceKind::of(41), 1, &watchdog, backing).unwrap();
        for _ in 0..3 {
            session.ask(Instant::now()).unwrap();
            start(&mut session, VERSION_1, &[notifier()]).unwrap();
            assert_eq!(session.answer_by(), None);
            assert_eq!(session.hear(), Heard::Nothing);
            session.stop().unwrap();
        }
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
