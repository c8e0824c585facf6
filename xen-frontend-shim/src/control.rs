// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a supervisor and a worker say to each other while both run.
//!
//! ```text
//!   worker ◀── Assign(device) + its state and events ─────── supervisor    at the start; when a device is added
//!          ◀── Begin ────────────────────────────────────                  those are all that it is to begin with
//!          ── Ready ─────────────────────────────────────▶                 all devices answer: the guest may run
//!          ◀── Delivery(device) + connection of a backend ──               as often as a backend is started
//!          ── Lost(device) ──────────────────────────────▶                 its backend is let go of
//!          ◀── Release(device) ──────────────────────────                  it is to be removed, or to become another one
//!          ── Released(device) or Kept(device) ──────────▶                 done, or its driver uses it
//!          ◀── GuestGone ────────────────────────────────                  the guest has ended
//!          ◀── (hang-up) ────────────────────────────────                 exit
//! ```
//!
//! The socket keeps packets apart, each of which is one message: [`SIZE`] bytes, after which an assignment has a description.
//! The worker reads what a guest writes, so the supervisor believes it nothing but a device's number, and takes no
//! descriptor from it. A device keeps its number as long as the supervisor runs.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};

use crate::assignment::Assignment;

/// Bytes of a message: what it says, nothing, and the number of a device (little-endian).
const SIZE: usize = 4;

/// The first byte of each message.
const READY: u8 = b'R';
const LOST: u8 = b'L';
const BACKEND: u8 = b'B';
const NO_BACKEND: u8 = b'N';
const GUEST_GONE: u8 = b'G';
const ASSIGN: u8 = b'A';
const BEGIN: u8 = b'S';
const RELEASE: u8 = b'E';
const RELEASED: u8 = b'F';
const KEPT: u8 = b'K';

/// The most that an order has, with its description.
const ORDER_SIZE: usize = 4096;
/// The most descriptors that the kernel passes with one message (`SCM_MAX_FD`).
const FDS: usize = 253;

/// What a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// All devices answer that ever will: the guest may run.
    Ready,
    /// The connection to the backend of a device has ended.
    Lost(u16),
    /// Nothing is left of a device here.
    Released(u16),
    /// A device is not let go of, since its driver uses it.
    Kept(u16),
}

/// One life of a backend, as a worker gets hold of it.
#[derive(Debug)]
pub struct Connection {
    /// The vhost-user socket.
    pub socket: UnixStream,
    /// An open `/dev/xen/gntdev` for this life alone: what a backend has mapped goes with it. It is restricted to the guest.
    pub gntdev: OwnedFd,
    /// The process, to kill it and to see its end. A backend that somebody else started has none.
    pub pidfd: Option<OwnedFd>,
}

/// What the supervisor says.
#[derive(Debug)]
pub enum Order {
    /// A device with this number.
    Assign(u16, Assignment),
    /// These are all devices to begin with.
    Begin,
    /// A device is to be let go of, if no driver uses it.
    Release(u16),
    /// A backend for a device.
    Deliver(Delivery),
    /// The guest has ended: its devices are to be reset, since no driver will.
    GuestGone,
}

/// A backend for a device.
#[derive(Debug)]
pub struct Delivery {
    /// The number of the device.
    pub device: u16,
    /// Its new backend, or nothing if none can be started for now.
    pub backend: Option<Connection>,
}

/// One end of the socket.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Both ends.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Worker: says something.
    pub fn report(&self, report: Report) -> io::Result<()> {
        let message = match report {
            Report::Ready => message(READY, 0),
            Report::Lost(device) => message(LOST, device),
            Report::Released(device) => message(RELEASED, device),
            Report::Kept(device) => message(KEPT, device),
        };
        send(&self.0, &message, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Supervisor: hears what the worker has said. Nothing when it has hung up.
    pub fn hear(&self) -> io::Result<Option<Report>> {
        let mut bytes = [0; SIZE];
        // Descriptors that come with it are closed by the kernel, as there is no room for them.
        let (length, _) = recv(&self.0, bytes.as_mut_slice(), RecvFlags::DONTWAIT)?;
        let report = match parse(bytes.get(..length).unwrap_or_default())? {
            None => return Ok(None),
            Some((READY, _, [])) => Report::Ready,
            Some((LOST, device, [])) => Report::Lost(device),
            Some((RELEASED, device, [])) => Report::Released(device),
            Some((KEPT, device, [])) => Report::Kept(device),
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Some(report))
    }

    /// Supervisor: hands over a device.
    pub fn assign(&self, device: u16, assignment: &Assignment) -> io::Result<()> {
        let description = postcard::to_allocvec(&assignment.description).map_err(io::Error::other)?;
        let order = [&message(ASSIGN, device), description.as_slice()].concat();
        if order.len() > ORDER_SIZE {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "its name is too long"));
        }
        self.order(&order, &assignment.fds())
    }

    /// Supervisor: says that all devices have been handed over that the worker is to begin with.
    pub fn begin(&self) -> io::Result<()> {
        self.order(&message(BEGIN, 0), &[])
    }

    /// Supervisor: asks for a device back.
    pub fn release(&self, device: u16) -> io::Result<()> {
        self.order(&message(RELEASE, device), &[])
    }

    /// Supervisor: hands over a backend.
    pub fn deliver(&self, device: u16, backend: Option<&Connection>) -> io::Result<()> {
        let tag = if backend.is_some() { BACKEND } else { NO_BACKEND };
        self.order(&message(tag, device), &backend.map(Connection::fds).unwrap_or_default())
    }

    /// Supervisor: says that the guest has ended.
    pub fn guest_gone(&self) -> io::Result<()> {
        self.order(&message(GUEST_GONE, 0), &[])
    }

    /// Sends an order. It does not wait: a worker that does not listen goes without.
    fn order(&self, order: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it has too many queues"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(order)], &mut ancillary, flags)?;
        Ok(())
    }

    /// Worker: waits for an order. Nothing when the supervisor has hung up.
    pub fn accept(&self) -> io::Result<Option<Order>> {
        let mut bytes = [0; ORDER_SIZE];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.0, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let order = match parse(bytes.get(..received.bytes).unwrap_or_default())? {
            None => return Ok(None),
            Some((ASSIGN, device, description)) => {
                let description = postcard::from_bytes(description).map_err(io::Error::other)?;
                Order::Assign(device, Assignment::from_parts(description, fds)?)
            }
            Some((BEGIN, _, [])) => Order::Begin,
            Some((RELEASE, device, [])) => Order::Release(device),
            Some((GUEST_GONE, _, [])) => Order::GuestGone,
            Some((NO_BACKEND, device, [])) => Order::Deliver(Delivery { device, backend: None }),
            Some((BACKEND, device, [])) => {
                let connection = Connection::from_fds(fds).ok_or(io::ErrorKind::InvalidData)?;
                Order::Deliver(Delivery { device, backend: Some(connection) })
            }
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Some(order))
    }
}

impl Connection {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let given = [self.socket.as_fd(), self.gntdev.as_fd()];
        given.into_iter().chain(self.pidfd.as_ref().map(AsFd::as_fd)).collect()
    }

    fn from_fds(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        Some(Self { socket: fds.next()?.into(), gntdev: fds.next()?, pidfd: fds.next() })
    }
}

fn message(tag: u8, device: u16) -> [u8; SIZE] {
    let [low, high] = device.to_le_bytes();
    [tag, 0, low, high]
}

/// What a message says and of which device; nothing if there is none.
/// What a message says, about which device, and what comes after that. Nothing if the other side has hung up.
fn parse(bytes: &[u8]) -> io::Result<Option<(u8, u16, &[u8])>> {
    match bytes {
        [] => Ok(None),
        [tag, 0, low, high, rest @ ..] => Ok(Some((*tag, u16::from_le_bytes([*low, *high]), rest))),
        _ => Err(io::ErrorKind::InvalidData.into()),
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
    use crate::assignment::{Carriers, Description, QueueEvents};

    fn nothing() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn reports_arrive_one_by_one_and_then_the_end() {
        let (supervisor, worker) = Control::pair().unwrap();
        assert_eq!(supervisor.hear().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        worker.report(Report::Lost(0x102)).unwrap();
        worker.report(Report::Ready).unwrap();
        drop(worker);
        assert_eq!(supervisor.hear().unwrap(), Some(Report::Lost(0x102)));
        assert_eq!(supervisor.hear().unwrap(), Some(Report::Ready));
        assert_eq!(supervisor.hear().unwrap(), None);
    }

    fn delivery(worker: &Control) -> Delivery {
        match worker.accept().unwrap() {
            Some(Order::Deliver(delivery)) => delivery,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_backend_arrives_with_its_descriptors() {
        let (supervisor, worker) = Control::pair().unwrap();
        for pidfd in [Some(nothing()), None] {
            let has_process = pidfd.is_some();
            let (socket, mut other) = UnixStream::pair().unwrap();
            let connection = Connection { socket, gntdev: nothing(), pidfd };
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
        assert!(matches!(worker.accept().unwrap(), Some(Order::GuestGone)));
        drop(supervisor);
        assert!(worker.accept().unwrap().is_none());
    }

    #[test]
    fn a_device_arrives_with_its_descriptors_and_goes() {
        let (supervisor, worker) = Control::pair().unwrap();
        for queues in [0, 1, 125] {
            let carriers = Carriers { kick_by_kernel: true, call_by_kernel: false };
            let description = Description {
                name: "gpio".into(),
                device_id: 41,
                base: 0x200_0200,
                irq: 34,
                queues: vec![carriers; queues],
            };
            let queue = || QueueEvents { kick: nothing(), call: nothing() };
            let events = (0..queues).map(|_| queue()).collect();
            let sent = Assignment { description, state: nothing(), inflight: nothing(), queues: events };
            supervisor.assign(7, &sent).unwrap();
            let Some(Order::Assign(7, assignment)) = worker.accept().unwrap() else { panic!() };
            assert_eq!(assignment.description, sent.description);
            assert_eq!(assignment.queues.len(), queues);
        }
        supervisor.begin().unwrap();
        supervisor.release(7).unwrap();
        assert!(matches!(worker.accept().unwrap(), Some(Order::Begin)));
        assert!(matches!(worker.accept().unwrap(), Some(Order::Release(7))));
        for report in [Report::Released(7), Report::Kept(7)] {
            worker.report(report).unwrap();
            assert_eq!(supervisor.hear().unwrap(), Some(report));
        }
    }

    #[test]
    fn a_worker_can_neither_confuse_the_supervisor_nor_give_it_descriptors() {
        let (supervisor, worker) = Control::pair().unwrap();
        for bytes in [b"R".as_slice(), b"XXXX", b"B\0\0\0", b"R\0\0\0\0"] {
            send(&worker, bytes, SendFlags::empty()).unwrap();
            let heard = supervisor.hear();
            // What is too long is cut to the length of a message.
            assert!(heard.is_err() || bytes.len() > SIZE, "{bytes:?}: {heard:?}");
        }
        let (theirs, mut ours) = UnixStream::pair().unwrap();
        let connection = Connection { socket: theirs, gntdev: nothing(), pidfd: None };
        worker.deliver(0, Some(&connection)).unwrap();
        drop(connection);
        assert!(supervisor.hear().is_err());
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_worker_that_does_not_listen_does_not_hold_up_the_supervisor() {
        let (supervisor, _worker) = Control::pair().unwrap();
        let full = (0..1_000_000).find_map(|_| supervisor.deliver(0, None).err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
