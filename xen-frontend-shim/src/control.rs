// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The messages between the supervisor and a worker.
//!
//! ```text
//!   worker ◀── Assign(device) + files, eventfds ──── supervisor   at the start, and when a device is added
//!          ◀── Begin ───────────────────────────────              all initial devices are assigned
//!          ── Ready ────────────────────────────────▶             all devices answer: the guest may run
//!          ◀── Deliver(device) + connection ────────              after each start of a backend
//!          ── Lost(device) ─────────────────────────▶             the worker has closed the connection
//!          ── Refused(device) ──────────────────────▶             the same: the backend cannot be used
//!          ── Kill(device) ─────────────────────────▶             the backend is to end
//!          ◀── Release(device) ─────────────────────              the device is removed or changed
//!          ── Released(device) or Kept(device) ─────▶             done, or refused: a driver uses it
//!          ◀── GuestGone ───────────────────────────              the guest has ended
//!          ◀── (end of file) ───────────────────────              the worker exits
//! ```
//!
//! The socket preserves packets (SOCK_SEQPACKET). Each packet is one message in postcard's format;
//! descriptors accompany it as SCM_RIGHTS. A device keeps its number while the supervisor runs.
//!
//! A worker processes what its guest wrote. So the supervisor takes nothing from it but the kind of a report
//! and the number of a device, and no descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::assignment::{Assignment, Description};

/// The largest report in bytes: a tag, and a number of 16 bits in up to three bytes.
const REPORT_SIZE: usize = 4;
/// The largest order in bytes.
const ORDER_SIZE: usize = 4096;
/// The largest number of descriptors that the kernel passes with one message (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// Errors of the control socket.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The socket fails, or has no room or no message (`WouldBlock`).
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// A message is not in the format.
    #[error("malformed message on the control socket: {0}")]
    Format(#[from] postcard::Error),
    /// A message has bytes after its end, or fewer descriptors than its kind needs.
    #[error("message on the control socket with wrong length or number of descriptors")]
    Shape,
    /// A device has a name that is too long, or too many queues, for one message.
    #[error("the name is too long, or there are too many queues, for one message on the control socket")]
    TooLarge,
}

impl From<rustix::io::Errno> for ControlError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<ControlError> for io::Error {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// A message of the worker. The numbers are those of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// All devices answer, or are absent for good: the guest may run.
    Ready,
    /// The worker has closed the connection to the device's backend.
    Lost(u16),
    /// The worker has released the device.
    Released(u16),
    /// The worker keeps the device, because a driver uses it.
    Kept(u16),
    /// The worker has closed the connection to the device's backend, which cannot be used.
    Refused(u16),
    /// The process of the device's backend has to be killed: it hangs, or has not ended with its connection.
    Kill(u16),
}

/// A connection to a backend that has been started.
#[derive(Debug)]
pub struct Connection {
    /// The vhost-user socket.
    pub socket: UnixStream,
    /// A descriptor of `/dev/xen/gntdev` or `/dev/xen/privcmd`, by which this backend process maps the memory
    /// of the guest: for this process only, restricted to the guest. When one of gntdev is closed, the kernel
    /// removes the mappings that were made with it.
    pub memory: OwnedFd,
    /// The process. `None` for a backend that another program started.
    pub pidfd: Option<OwnedFd>,
}

/// A message of the supervisor. The numbers are those of devices.
#[derive(Debug)]
pub enum Order {
    /// Serve the device.
    Assign(u16, Assignment),
    /// All initial devices are assigned.
    Begin,
    /// Release the device, unless a driver uses it.
    Release(u16),
    /// Use this backend.
    Deliver(Delivery),
    /// The guest has ended: reset its devices.
    GuestGone,
}

/// The backend of a device.
#[derive(Debug)]
pub struct Delivery {
    /// The device's number.
    pub device: u16,
    /// The backend; `None` if it cannot be started.
    pub backend: Option<Connection>,
}

/// The bytes of an order.
#[derive(Serialize, Deserialize)]
enum OrderMessage {
    Assign(u16, Description),
    Begin,
    Release(u16),
    Backend(u16),
    NoBackend(u16),
    GuestGone,
}

/// One end of the control socket.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Creates a connected pair.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Worker: sends a report.
    pub fn report(&self, report: Report) -> Result<(), ControlError> {
        let mut bytes = [0; REPORT_SIZE];
        let message = postcard::to_slice(&report, &mut bytes)?;
        send(&self.0, message, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Supervisor: receives a report, without blocking. `None` at the end of file.
    pub fn receive_report(&self) -> Result<Option<Report>, ControlError> {
        // One byte more than the largest report, so that a longer message is noticed. There is no room for
        // descriptors: the kernel closes any that were sent.
        let mut bytes = [0; REPORT_SIZE + 1];
        let (length, _) = recv(&self.0, bytes.as_mut_slice(), RecvFlags::DONTWAIT)?;
        parse(bytes.get(..length).unwrap_or_default())
    }

    /// Supervisor: assigns a device.
    pub fn assign(&self, device: u16, assignment: &Assignment) -> Result<(), ControlError> {
        self.order(&OrderMessage::Assign(device, assignment.description.clone()), &assignment.fds())
    }

    /// Supervisor: reports that all initial devices are assigned.
    pub fn begin(&self) -> Result<(), ControlError> {
        self.order(&OrderMessage::Begin, &[])
    }

    /// Supervisor: requests the release of a device.
    pub fn release(&self, device: u16) -> Result<(), ControlError> {
        self.order(&OrderMessage::Release(device), &[])
    }

    /// Supervisor: delivers the backend of a device; `None` if it cannot be started.
    pub fn deliver(&self, device: u16, backend: Option<&Connection>) -> Result<(), ControlError> {
        match backend {
            Some(connection) => self.order(&OrderMessage::Backend(device), &connection.fds()),
            None => self.order(&OrderMessage::NoBackend(device), &[]),
        }
    }

    /// Supervisor: reports the end of the guest.
    pub fn guest_gone(&self) -> Result<(), ControlError> {
        self.order(&OrderMessage::GuestGone, &[])
    }

    /// Sends an order without blocking: a worker that does not read must not stop the supervisor.
    fn order(&self, message: &OrderMessage, fds: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        let bytes = postcard::to_allocvec(message)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let has_room = fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(fds));
        if !has_room || bytes.len() > ORDER_SIZE {
            return Err(ControlError::TooLarge);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, flags)?;
        Ok(())
    }

    /// Worker: waits for an order. `None` at the end of file.
    pub fn receive_order(&self) -> Result<Option<Order>, ControlError> {
        let mut bytes = [0; ORDER_SIZE];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.0, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let message = parse(bytes.get(..received.bytes).unwrap_or_default())?;
        message.map(|message| Order::new(message, fds).ok_or(ControlError::Shape)).transpose()
    }
}

impl Order {
    /// The order of a message. `None` if it lacks descriptors.
    fn new(message: OrderMessage, fds: Vec<OwnedFd>) -> Option<Self> {
        Some(match message {
            OrderMessage::Assign(device, description) => {
                Self::Assign(device, Assignment::from_parts(description, fds)?)
            }
            OrderMessage::Begin => Self::Begin,
            OrderMessage::Release(device) => Self::Release(device),
            OrderMessage::Backend(device) => {
                Self::Deliver(Delivery { device, backend: Some(Connection::from_fds(fds)?) })
            }
            OrderMessage::NoBackend(device) => Self::Deliver(Delivery { device, backend: None }),
            OrderMessage::GuestGone => Self::GuestGone,
        })
    }
}

impl Connection {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let fds = [self.socket.as_fd(), self.memory.as_fd()];
        fds.into_iter().chain(self.pidfd.as_ref().map(AsFd::as_fd)).collect()
    }

    fn from_fds(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        Some(Self { socket: fds.next()?.into(), memory: fds.next()?, pidfd: fds.next() })
    }
}

/// The message of a packet. `None` for an empty packet, as the end of file is read.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, ControlError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match postcard::take_from_bytes(bytes)? {
        (message, []) => Ok(Some(message)),
        _ => Err(ControlError::Shape),
    }
}

impl From<OwnedFd> for Control {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Control> for OwnedFd {
    fn from(control: Control) -> Self {
        control.0
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::assignment::{KernelPaths, QueueEvents};
    use crate::vhost_user::test_backend::properties;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn would_block(error: &ControlError) -> bool {
        matches!(error, ControlError::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn reports_arrive_in_order_and_then_end_of_file() {
        let (supervisor, worker) = Control::pair().unwrap();
        assert!(would_block(&supervisor.receive_report().unwrap_err()));
        worker.report(Report::Lost(0x102)).unwrap();
        worker.report(Report::Ready).unwrap();
        drop(worker);
        assert_eq!(supervisor.receive_report().unwrap(), Some(Report::Lost(0x102)));
        assert_eq!(supervisor.receive_report().unwrap(), Some(Report::Ready));
        assert_eq!(supervisor.receive_report().unwrap(), None);
    }

    fn delivery(worker: &Control) -> Delivery {
        match worker.receive_order().unwrap() {
            Some(Order::Deliver(delivery)) => delivery,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn delivered_backend_has_its_descriptors() {
        let (supervisor, worker) = Control::pair().unwrap();
        for pidfd in [Some(null()), None] {
            let has_process = pidfd.is_some();
            let (socket, mut other) = UnixStream::pair().unwrap();
            let connection = Connection { socket, memory: null(), pidfd };
            supervisor.deliver(3, Some(&connection)).unwrap();
            drop(connection);
            let delivery = delivery(&worker);
            let mut connection = delivery.backend.unwrap();
            assert_eq!((delivery.device, connection.pidfd.is_some()), (3, has_process));
            other.write_all(b"!").unwrap();
            connection.socket.read_exact(&mut [0]).unwrap();
        }
        supervisor.deliver(4, None).unwrap();
        let delivery = delivery(&worker);
        assert!(delivery.device == 4 && delivery.backend.is_none());
        supervisor.guest_gone().unwrap();
        assert!(matches!(worker.receive_order().unwrap(), Some(Order::GuestGone)));
        drop(supervisor);
        assert!(worker.receive_order().unwrap().is_none());
    }

    #[test]
    fn assigned_device_has_its_descriptors() {
        let (supervisor, worker) = Control::pair().unwrap();
        for queues in [0, 1, 125] {
            let kernel = KernelPaths { kick_by_kernel: true, call_by_kernel: false };
            let description = Description {
                name: "gpio".into(),
                device_id: 41,
                base: 0x200_0200,
                irq: 34,
                properties: properties(41),
                queues: vec![kernel; queues],
            };
            let queue = || QueueEvents { kick: null(), call: null() };
            let events = (0..queues).map(|_| queue()).collect();
            let sent = Assignment { description, state: null(), inflight: null(), queues: events };
            supervisor.assign(7, &sent).unwrap();
            let Some(Order::Assign(7, assignment)) = worker.receive_order().unwrap() else { panic!() };
            assert_eq!(assignment.description, sent.description);
            assert_eq!(assignment.queues.len(), queues);
        }
        supervisor.begin().unwrap();
        supervisor.release(7).unwrap();
        assert!(matches!(worker.receive_order().unwrap(), Some(Order::Begin)));
        assert!(matches!(worker.receive_order().unwrap(), Some(Order::Release(7))));
        for report in [Report::Released(7), Report::Kept(7)] {
            worker.report(report).unwrap();
            assert_eq!(supervisor.receive_report().unwrap(), Some(report));
        }
    }

    #[test]
    fn any_report_fits_the_limit() {
        for report in [Report::Ready, Report::Lost(u16::MAX), Report::Released(0), Report::Kill(u16::MAX)] {
            assert!(postcard::to_allocvec(&report).unwrap().len() <= REPORT_SIZE);
        }
    }

    #[test]
    fn malformed_report_is_an_error_and_its_descriptors_are_closed() {
        let (supervisor, worker) = Control::pair().unwrap();
        // An unknown tag, a missing number, an unfinished number, bytes after the message, a message that is
        // too long.
        for bytes in [b"\x06".as_slice(), b"\x01", b"\x01\xff", b"\0\0", b"\x01\xff\xff\x03\0\0\0"] {
            send(&worker, bytes, SendFlags::empty()).unwrap();
            let received = supervisor.receive_report();
            assert!(received.is_err(), "{bytes:?}: {received:?}");
        }
        let (theirs, mut ours) = UnixStream::pair().unwrap();
        let connection = Connection { socket: theirs, memory: null(), pidfd: None };
        worker.order(&OrderMessage::GuestGone, &connection.fds()).unwrap();
        drop(connection);
        assert!(supervisor.receive_report().is_err());
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn order_without_its_descriptors_is_an_error() {
        let (supervisor, worker) = Control::pair().unwrap();
        supervisor.order(&OrderMessage::Backend(1), &[null().as_fd()]).unwrap();
        assert!(matches!(worker.receive_order(), Err(ControlError::Shape)));
    }

    #[test]
    fn device_that_does_not_fit_a_message_is_refused() {
        let (supervisor, _worker) = Control::pair().unwrap();
        let kernel = KernelPaths { kick_by_kernel: true, call_by_kernel: true };
        for (name, queues) in [("x".repeat(ORDER_SIZE), 1), ("gpio".into(), 200)] {
            let description = Description {
                name,
                device_id: 41,
                base: 0,
                irq: 33,
                properties: properties(41),
                queues: vec![kernel; queues],
            };
            let events = (0..queues).map(|_| QueueEvents { kick: null(), call: null() }).collect();
            let assignment = Assignment { description, state: null(), inflight: null(), queues: events };
            assert!(matches!(supervisor.assign(1, &assignment), Err(ControlError::TooLarge)));
        }
    }

    #[test]
    fn order_to_a_worker_that_does_not_read_does_not_block() {
        let (supervisor, _worker) = Control::pair().unwrap();
        let full = (0..1_000_000).find_map(|_| supervisor.deliver(0, None).err());
        assert!(full.is_some_and(|error| would_block(&error)));
    }
}
