// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection to a backend over which a device is started and stopped, as often as its driver does so.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use log::warn;
use shim_config::Properties;
use thiserror::Error;
use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfig, VhostUserConfigFlags, VhostUserInflight, VhostUserMemory, VhostUserU64,
    VhostUserVirtioFeatures, VhostUserVringAddr, VhostUserVringAddrFlags, VhostUserVringState,
};
use vm_memory::ByteValued;
use vmm_sys_util::eventfd::EventFd;

use crate::memory::table::{self, TooManyRegions};
use crate::memory::{Region, Ring};
use crate::vhost_user::backend_channel::BackendChannel;
use crate::vhost_user::backing::Backing;
use crate::vhost_user::client::{CALL_LIMIT, CONNECT_LIMIT, CallError, Client, ClientError};
use crate::vhost_user::inflight::Inflight;
use crate::vhost_user::negotiate::{Agreement, NegotiateError, negotiate};
use crate::virtio_mmio::features::{self, ACCESS_PLATFORM};

/// The event descriptors of one queue.
#[derive(Debug)]
pub struct Notifier {
    /// The driver has made buffers available.
    pub kick: EventFd,
    /// The device has used buffers.
    pub call: EventFd,
    /// The device cannot use the queue any more, because of what the driver has put there.
    pub err: EventFd,
}

/// Why a request of the driver has not been carried out.
#[derive(Debug, Error)]
pub enum SessionError {
    /// A call to the backend has failed.
    #[error("the backend failed at {0}")]
    Call(#[from] CallError),
    /// The rings cannot be described.
    #[error(transparent)]
    Table(#[from] TooManyRegions),
    /// The record of requests in flight cannot be used.
    #[error("the record of requests in flight is not usable: {0}")]
    Inflight(#[source] io::Error),
    /// There are no event descriptors for a queue: the configuration has fewer queues than the transport.
    #[error("queue {0} does not exist")]
    NoQueue(u16),
}

impl SessionError {
    /// Whether the backend has replied, and another one would reply the same.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Call(error) => {
                matches!(error.cause, ClientError::Refused | ClientError::UnexpectedMessage)
            }
            _ => true,
        }
    }

    /// Whether the backend has not replied in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Call(CallError { cause: ClientError::TimedOut, .. }))
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
    /// The record of requests in flight.
    pub inflight: &'a Inflight,
    /// Whether the driver has just started the device, so that nothing is in flight.
    pub is_fresh: bool,
}

/// A connection with what has been negotiated on it, and the rings that the backend serves.
pub struct Session {
    client: Client,
    agreement: Agreement,
    backing: Box<dyn Backing>,
    properties: Properties,
    queues: u16,
    /// The configuration as it was read last.
    config: Vec<u8>,
    running: Vec<Ring>,
    /// Whether nothing has been set since the device was last stopped.
    is_idle: bool,
    call_limit: Duration,
}

impl Session {
    /// Negotiates with the backend of `client`. Returns the device's configuration as well.
    pub fn open(
        mut client: Client,
        properties: Properties,
        queues: u16,
        backing: Box<dyn Backing>,
    ) -> Result<(Self, Vec<u8>), NegotiateError> {
        let (agreement, config) =
            negotiate(&mut client, &properties, queues, Instant::now() + CONNECT_LIMIT)?;
        let session = Self {
            client,
            agreement,
            backing,
            properties,
            queues,
            config: config.clone(),
            running: Vec::new(),
            is_idle: true,
            call_limit: CALL_LIMIT,
        };
        Ok((session, config))
    }

    /// The features of the backend that a driver is offered.
    #[must_use]
    pub fn offered(&self) -> u64 {
        features::offered(self.agreement.features, self.properties.features, self.backing.memory())
    }

    /// Whether the backend records which requests it has taken.
    #[must_use]
    pub fn tracks_inflight(&self) -> bool {
        self.agreement.inflight_size.is_some()
    }

    /// The properties of the device.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The connection, to wait for messages and for the reply to a ping.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The connection, to ping and to read what has arrived.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Starts the device: sets features, record, memory and rings, in this order.
    pub fn start(&mut self, start: &Start<'_>) -> Result<(), SessionError> {
        self.is_idle = false;
        let all: Vec<_> = start.rings.iter().map(|(ring, _)| *ring).collect();
        let table = table::with_rings(self.backing.memory(), &all)?;
        // ACCESS_PLATFORM concerns driver and transport; a backend would take it for the request of an
        // IOTLB.
        let features = start.features & self.agreement.features & !ACCESS_PLATFORM
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        self.set(FrontendReq::SET_FEATURES, &VhostUserU64::new(features))?;
        if let Some(size) = self.agreement.inflight_size {
            start.inflight.prepare(size, start.is_fresh).map_err(SessionError::Inflight)?;
            let record = VhostUserInflight::new(size, 0, self.queues, self.properties.queue_size);
            self.set_with_fds(
                FrontendReq::SET_INFLIGHT_FD,
                record.as_slice(),
                &[start.inflight.as_raw_fd()],
            )?;
        }
        self.set_memory(&table)?;
        for (ring, base) in start.rings {
            let notifier = start.notifiers.get(usize::from(ring.index));
            self.start_ring(ring, *base, notifier.ok_or(SessionError::NoQueue(ring.index))?)?;
        }
        Ok(())
    }

    fn start_ring(&mut self, ring: &Ring, base: u16, notifier: &Notifier) -> Result<(), SessionError> {
        let index = u32::from(ring.index);
        let address = VhostUserVringAddr::new(
            index,
            VhostUserVringAddrFlags::empty(),
            ring.descriptors.start(),
            ring.used.start(),
            ring.available.start(),
            0,
        );
        self.set(FrontendReq::SET_VRING_NUM, &VhostUserVringState::new(index, ring.size.into()))?;
        self.set(FrontendReq::SET_VRING_BASE, &VhostUserVringState::new(index, base.into()))?;
        self.set(FrontendReq::SET_VRING_ADDR, &address)?;
        for (request, event) in [
            (FrontendReq::SET_VRING_ERR, &notifier.err),
            (FrontendReq::SET_VRING_CALL, &notifier.call),
            (FrontendReq::SET_VRING_KICK, &notifier.kick),
        ] {
            self.set_with_fds(request, VhostUserU64::new(index.into()).as_slice(), &[event.as_raw_fd()])?;
        }
        self.set(FrontendReq::SET_VRING_ENABLE, &VhostUserVringState::new(index, 1))?;
        self.running.push(*ring);
        Ok(())
    }

    /// Starts one more ring, at its beginning, beside those that are running.
    pub fn start_queue(&mut self, ring: &Ring, notifiers: &[Notifier]) -> Result<(), SessionError> {
        let notifier = notifiers.get(usize::from(ring.index)).ok_or(SessionError::NoQueue(ring.index))?;
        let all: Vec<_> = self.running.iter().copied().chain([*ring]).collect();
        self.set_memory(&table::with_rings(self.backing.memory(), &all)?)?;
        self.start_ring(ring, 0, notifier)
    }

    /// Stops the device. On success the backend has unmapped all of the guest's memory.
    pub fn stop(&mut self) -> Result<(), SessionError> {
        if self.is_idle {
            return Ok(());
        }
        while let Some(ring) = self.running.pop() {
            self.stop_ring(ring.index)?;
        }
        self.set_memory(&table::without_rings(self.backing.memory()))?;
        self.reset()?;
        self.is_idle = true;
        Ok(())
    }

    /// Has the backend reset the device to the state without a driver, so that it can put its outputs to
    /// safe values. A backend without RESET_DEVICE takes a stop for a reset.
    pub fn reset(&mut self) -> Result<(), SessionError> {
        if !self.agreement.has_reset {
            return Ok(());
        }
        self.set_with_fds(FrontendReq::RESET_DEVICE, &[], &[])
    }

    /// Stops one queue. On success the backend has unmapped its ring.
    ///
    /// vhost-user has no message that unmaps one ring: the backend is sent a table in which only the other
    /// rings are mapped in advance. It maps that table before it unmaps the former one, so the other rings
    /// keep running.
    pub fn stop_queue(&mut self, queue: u16) -> Result<(), SessionError> {
        let Some(position) = self.running.iter().position(|ring| ring.index == queue) else { return Ok(()) };
        self.running.remove(position);
        self.stop_ring(queue)?;
        self.set_memory(&table::with_rings(self.backing.memory(), &self.running)?)
    }

    fn stop_ring(&mut self, queue: u16) -> Result<(), SessionError> {
        let state = VhostUserVringState::new(queue.into(), 0);
        self.set(FrontendReq::SET_VRING_ENABLE, &state)?;
        let deadline = self.deadline();
        let _: VhostUserVringState =
            self.client.get(FrontendReq::GET_VRING_BASE, state.as_slice(), deadline)?;
        Ok(())
    }

    /// Writes to the configuration, where a driver may. Returns the configuration after that, or nothing if
    /// the driver may not write there.
    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, SessionError> {
        let size = u32::try_from(bytes.len()).ok().filter(|&size| self.properties.may_write(offset, size));
        let Some(written) = size.and_then(|_| self.with_written(offset, bytes)) else { return Ok(None) };
        self.send_config(&written)?;
        self.read_config().map(Some)
    }

    /// Writes what the driver has written to the former backend, whose configuration was `former`. Returns
    /// the configuration after that.
    pub fn restore_config(&mut self, former: &[u8]) -> Result<Vec<u8>, SessionError> {
        let written = self.writable(former).filter(|written| self.writable(&self.config) != Some(written));
        let Some(written) = written.map(<[u8]>::to_vec) else { return Ok(self.config.clone()) };
        self.send_config(&written)?;
        self.read_config()
    }

    /// The part of a configuration that a driver may write, if there is one.
    fn writable<'a>(&self, config: &'a [u8]) -> Option<&'a [u8]> {
        let Range { start, end } = self.properties.writable.clone();
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        config.get(range).filter(|part| !part.is_empty())
    }

    /// The part of the configuration that a driver may write, after a write of `bytes` at `offset`.
    fn with_written(&self, offset: u32, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut part = self.writable(&self.config)?.to_vec();
        let start = usize::try_from(offset.checked_sub(self.properties.writable.start)?).ok()?;
        part.get_mut(start..start.checked_add(bytes.len())?)?.copy_from_slice(bytes);
        Some(part)
    }

    /// Sends all of the configuration that a driver may write: some backends expect no less.
    fn send_config(&mut self, written: &[u8]) -> Result<(), SessionError> {
        let size = u32::try_from(written.len()).unwrap_or(u32::MAX);
        let config =
            VhostUserConfig::new(self.properties.writable.start, size, VhostUserConfigFlags::WRITABLE);
        self.set_with_fds(FrontendReq::SET_CONFIG, &[config.as_slice(), written].concat(), &[])
    }

    /// The channel on which the backend reports changes of the configuration, if there is one.
    #[must_use]
    pub fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.agreement.channel.as_ref().map(BackendChannel::as_fd)
    }

    /// The configuration, if the backend has reported that it has changed. After anything else on that
    /// channel, the channel is closed.
    pub fn changed_config(&mut self) -> Result<Option<Vec<u8>>, SessionError> {
        let Some(channel) = &mut self.agreement.channel else { return Ok(None) };
        match channel.take_config_change() {
            Ok(false) => Ok(None),
            Ok(true) => self.read_config().map(Some),
            Err(error) => {
                warn!("changes of a backend's configuration are not noticed any more: {error}");
                self.agreement.channel = None;
                Ok(None)
            }
        }
    }

    fn read_config(&mut self) -> Result<Vec<u8>, SessionError> {
        let deadline = self.deadline();
        self.config = self.client.get_config(self.properties.config_size, deadline)?;
        Ok(self.config.clone())
    }

    fn set_memory(&mut self, table: &[Region]) -> Result<(), SessionError> {
        let (regions, fds): (Vec<_>, Vec<_>) =
            table.iter().map(|region| self.backing.describe(region)).unzip();
        // A table has at most MAX_REGIONS.
        let count = u32::try_from(regions.len()).unwrap_or(u32::MAX);
        let mut payload = VhostUserMemory::new(count).as_slice().to_vec();
        regions.iter().for_each(|region| payload.extend_from_slice(region.as_slice()));
        self.set_with_fds(FrontendReq::SET_MEM_TABLE, &payload, &fds)
    }

    fn set(&mut self, request: FrontendReq, payload: &impl ByteValued) -> Result<(), SessionError> {
        self.set_with_fds(request, payload.as_slice(), &[])
    }

    /// Sends a request with descriptors and waits for its acknowledgement.
    fn set_with_fds(
        &mut self,
        request: FrontendReq,
        payload: &[u8],
        fds: &[RawFd],
    ) -> Result<(), SessionError> {
        let deadline = self.deadline();
        Ok(self.client.set(request, payload, fds, deadline)?)
    }

    /// The deadline of a call that begins now.
    fn deadline(&self) -> Instant {
        Instant::now() + self.call_limit
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex};

    use rustix::event::{PollFd, PollFlags, poll};
    use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
    use vhost::vhost_user::message::VhostUserMemoryRegion;

    use super::*;
    use crate::memory::GuestMemory;
    use crate::vhost_user::scripted_backend::{self as scripted, Script};
    use crate::vhost_user::test_backend::{self, SharedMemory, properties, ring};
    use crate::virtio_mmio::features::VERSION_1;

    const GPIO: u32 = 41;

    fn open(socket: UnixStream, backing: Box<dyn Backing>) -> (Session, Vec<u8>) {
        Session::open(Client::new(socket).unwrap(), properties(GPIO), 1, backing).unwrap()
    }

    /// A driver of one ring on page 1, with the session of its device.
    struct Driver {
        session: Session,
        memory: Arc<SharedMemory>,
        notifiers: [Notifier; 1],
        inflight: Inflight,
    }

    impl Driver {
        fn new(socket: UnixStream) -> Self {
            let memory = SharedMemory::new();
            Self::with_backing(socket, &memory, Box::new(Arc::clone(&memory)))
        }

        fn with_backing(socket: UnixStream, memory: &Arc<SharedMemory>, backing: Box<dyn Backing>) -> Self {
            let [kick, call, err] = [0; 3].map(|flags| EventFd::new(flags).unwrap());
            Self {
                session: open(socket, backing).0,
                memory: Arc::clone(memory),
                notifiers: [Notifier { kick, call, err }],
                inflight: Inflight::new(tempfile::tempfile().unwrap(), 64),
            }
        }

        fn start(&mut self, features: u64) -> Result<(), SessionError> {
            self.clear_ring();
            self.session.start(&Start {
                features,
                rings: &[(ring(1), 0)],
                notifiers: &self.notifiers,
                inflight: &self.inflight,
                is_fresh: true,
            })
        }

        fn clear_ring(&self) {
            for at in [0x400, 0x402, 0x800, 0x802] {
                self.memory.write_u16(4096 + at, 0);
            }
        }

        /// Makes buffer `next` available and waits until it has been used.
        fn transfer(&self, next: u16) {
            self.memory.write_u16(4096 + 8, 16);
            self.memory.write_u16(4096 + 0x404 + 2 * u64::from(next % 16), 0);
            self.memory.write_u16(4096 + 0x402, next + 1);
            self.notifiers[0].kick.write(1).unwrap();
            self.notifiers[0].call.read().unwrap();
            assert_eq!(self.memory.read_u16(4096 + 0x802), next + 1);
        }
    }

    #[test]
    fn a_real_backend_is_started_used_and_stopped_repeatedly() {
        let (socket, seen) = test_backend::start();
        let mut driver = Driver::new(socket);
        assert_eq!(driver.session.agreement.features & 0xff, 1);
        assert_eq!(driver.session.read_config().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
        for _ in 0..10 {
            driver.start(VERSION_1 | ACCESS_PLATFORM | 1).unwrap();
            assert_eq!(seen.features.load(Ordering::SeqCst), VERSION_1 | 1 << 30 | 1);
            (0..3).for_each(|next| driver.transfer(next));
            driver.session.stop().unwrap();
        }
        assert_eq!(seen.chains.load(Ordering::SeqCst), 30);
    }

    /// Records the regions that are sent.
    struct Recorded(Arc<SharedMemory>, Arc<Mutex<Vec<Region>>>);

    impl Backing for Recorded {
        fn memory(&self) -> &GuestMemory {
            self.0.memory()
        }

        fn describe(&self, region: &Region) -> (VhostUserMemoryRegion, RawFd) {
            self.1.lock().unwrap().push(*region);
            self.0.describe(region)
        }
    }

    #[test]
    fn one_queue_is_stopped_unmapped_and_started_again() {
        let (socket, seen) = test_backend::start();
        let (memory, regions) = (SharedMemory::new(), Arc::default());
        let backing = Recorded(Arc::clone(&memory), Arc::clone(&regions));
        let mut driver = Driver::with_backing(socket, &memory, Box::new(backing));
        driver.start(VERSION_1).unwrap();
        driver.transfer(0);
        driver.transfer(1);
        driver.session.stop_queue(0).unwrap();
        driver.session.stop_queue(0).unwrap();
        // The driver sets up the ring anew, and its buffer is served again as the first.
        driver.clear_ring();
        driver.session.start_queue(&ring(1), &driver.notifiers).unwrap();
        driver.transfer(0);
        driver.session.stop().unwrap();
        assert_eq!(seen.chains.load(Ordering::SeqCst), 3);
        let (in_use, none) = (
            table::with_rings(&GuestMemory::Granted, &[ring(1)]).unwrap(),
            table::without_rings(&GuestMemory::Granted),
        );
        assert_eq!(*regions.lock().unwrap(), [&*in_use, &*none, &*in_use, &*none].concat());
    }

    #[test]
    fn a_changed_configuration_is_read_and_other_messages_close_the_channel() {
        let (socket, backend) = scripted::start(Script::default());
        let (mut session, config) = open(socket, Box::new(SharedMemory::new()));
        let await_message = |session: &Session| {
            let channel = session.channel().unwrap();
            poll(&mut [PollFd::new(&channel, PollFlags::IN)], None).unwrap();
        };
        assert_eq!(config, b"constant");
        assert_eq!(session.changed_config().unwrap(), None);
        for config in [b"changed1", b"changed2"] {
            backend.change_config(config);
            await_message(&session);
            assert_eq!(session.changed_config().unwrap().unwrap(), config);
            assert_eq!(session.changed_config().unwrap(), None);
        }
        backend.send_on_channel(&[0xff; 12]);
        await_message(&session);
        assert_eq!(session.changed_config().unwrap(), None);
        assert!(session.channel().is_none());
    }

    #[test]
    fn a_backend_with_fewer_queues_than_configured_is_refused() {
        let client = Client::new(test_backend::start().0).unwrap();
        let result = Session::open(client, properties(GPIO), 2, Box::new(SharedMemory::new()));
        assert!(matches!(result, Err(NegotiateError::TooFewQueues { has: 1, needs: 2 })));
    }

    #[test]
    fn a_closed_connection_fails_the_negotiation_at_once() {
        let (socket, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let client = Client::new(socket).unwrap();
        let result = Session::open(client, properties(GPIO), 1, Box::new(SharedMemory::new()));
        assert!(matches!(result, Err(NegotiateError::Call(_))));
    }

    #[test]
    fn a_backend_that_hangs_fails_the_call_at_its_deadline_and_the_next_at_once() {
        let hangs_after = Some(FrontendReq::GET_INFLIGHT_FD);
        let mut driver = Driver::new(scripted::start(Script { hangs_after, ..Script::default() }).0);
        driver.session.call_limit = Duration::from_millis(50);
        let error = driver.start(VERSION_1).unwrap_err();
        assert!(error.is_timeout() && !error.is_refusal(), "{error}");
        driver.session.call_limit = CALL_LIMIT;
        let error = driver.session.stop().unwrap_err();
        assert!(!error.is_timeout() && !error.is_refusal(), "{error}");
    }

    /// A backend without REPLY_ACK replies to GET_FEATURES only.
    #[test]
    fn a_backend_without_reply_ack_is_waited_for_by_a_request_that_has_a_reply() {
        let script = Script { lacks: Protocol::REPLY_ACK, ..Script::default() };
        let (socket, backend) = scripted::start(script);
        let mut driver = Driver::new(socket);
        backend.take();
        driver.start(VERSION_1).unwrap();
        driver.session.stop().unwrap();
        let codes = scripted::codes(&backend.take());
        for (position, code) in codes.iter().enumerate() {
            let has_reply = [FrontendReq::GET_FEATURES, FrontendReq::GET_VRING_BASE].contains(code);
            assert!(has_reply || codes.get(position + 1) == Some(&FrontendReq::GET_FEATURES), "{codes:?}");
        }
        assert!(codes.contains(&FrontendReq::SET_MEM_TABLE) && codes.contains(&FrontendReq::RESET_DEVICE));
    }

    #[test]
    fn a_backend_without_reply_ack_that_ends_or_hangs_fails_the_call() {
        let lacks = Protocol::REPLY_ACK;
        let request = Some(FrontendReq::SET_MEM_TABLE);
        for (script, is_timeout) in [
            (Script { lacks, ends_at: request, ..Script::default() }, false),
            (Script { lacks, hangs_after: request, ..Script::default() }, true),
        ] {
            let mut driver = Driver::new(scripted::start(script).0);
            driver.session.call_limit = Duration::from_millis(50);
            let error = driver.start(VERSION_1).unwrap_err();
            assert!(error.is_timeout() == is_timeout && !error.is_refusal(), "{error}");
            assert!(error.to_string().contains("SET_MEM_TABLE"), "{error}");
        }
    }

    #[test]
    fn a_refused_request_is_a_refusal_and_a_closed_connection_is_not() {
        let request = Some(FrontendReq::SET_VRING_ADDR);
        for (script, is_refusal) in [
            (Script { refuses: request, ..Script::default() }, true),
            (Script { ends_at: request, ..Script::default() }, false),
        ] {
            let error = Driver::new(scripted::start(script).0).start(VERSION_1).unwrap_err();
            assert!(error.is_refusal() == is_refusal && !error.is_timeout(), "{error}");
        }
    }

    #[test]
    fn a_call_collects_the_reply_to_a_ping_first() {
        let mut driver = Driver::new(test_backend::start().0);
        for _ in 0..3 {
            driver.session.client.ping(Instant::now()).unwrap();
            driver.start(VERSION_1).unwrap();
            assert_eq!(driver.session.client.ping_due(), None);
            assert!(!driver.session.client.poll_reply().unwrap());
            driver.session.stop().unwrap();
        }
    }
}
