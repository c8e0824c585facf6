// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a supervisor and a worker say to each other while both run.
//!
//! ```text
//!   worker ── Ready ─────────────────────────────────────▶ supervisor     the guest may run
//!          ── Lost(device) ──────────────────────────────▶                its backend is let go of
//!          ◀── Delivery(device) + connection of a backend ──              as often as a backend is started
//!          ◀── GuestGone ────────────────────────────────                 the guest has ended
//!          ◀── (hang-up) ────────────────────────────────                 exit
//! ```
//!
//! The socket keeps packets apart, each of which is one message of [`SIZE`] bytes. The worker reads what a guest writes,
//! so the supervisor believes it nothing but a device's number, and takes no descriptor from it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};

/// Bytes of a message: what it says, nothing, and the number of a device (little-endian).
const SIZE: usize = 4;

/// The first byte of each message.
const READY: u8 = b'R';
const LOST: u8 = b'L';
const BACKEND: u8 = b'B';
const NO_BACKEND: u8 = b'N';
const GUEST_GONE: u8 = b'G';

/// What a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// All devices answer that ever will: the guest may run.
    Ready,
    /// The connection to the backend of a device, numbered as in the configuration, has ended.
    Lost(u16),
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
    /// A backend for a device.
    Deliver(Delivery),
    /// The guest has ended: its devices are to be reset, since no driver will.
    GuestGone,
}

/// A backend for a device.
#[derive(Debug)]
pub struct Delivery {
    /// The number of the device in the configuration.
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
        };
        send(&self.0, &message, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Supervisor: hears what the worker has said. Nothing when it has hung up.
    pub fn hear(&self) -> io::Result<Option<Report>> {
        let mut bytes = [0; SIZE];
        // Descriptors that come with it are closed by the kernel, as there is no room for them.
        let (length, _) = recv(&self.0, bytes.as_mut_slice(), RecvFlags::DONTWAIT)?;
        match parse(&bytes, length)? {
            None => Ok(None),
            Some((READY, _)) => Ok(Some(Report::Ready)),
            Some((LOST, device)) => Ok(Some(Report::Lost(device))),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Supervisor: hands over a backend. It does not wait: a worker that does not listen goes without.
    pub fn deliver(&self, device: u16, backend: Option<&Connection>) -> io::Result<()> {
        let tag = if backend.is_some() { BACKEND } else { NO_BACKEND };
        let fds = backend.map(Connection::fds).unwrap_or_default();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(&message(tag, device))], &mut ancillary, flags)?;
        Ok(())
    }

    /// Supervisor: says that the guest has ended. It does not wait.
    pub fn guest_gone(&self) -> io::Result<()> {
        send(&self.0, &message(GUEST_GONE, 0), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// Worker: waits for an order. Nothing when the supervisor has hung up.
    pub fn accept(&self) -> io::Result<Option<Order>> {
        let mut bytes = [0; SIZE];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.0, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        match parse(&bytes, received.bytes)? {
            None => Ok(None),
            Some((GUEST_GONE, _)) => Ok(Some(Order::GuestGone)),
            Some((NO_BACKEND, device)) => Ok(Some(Order::Deliver(Delivery { device, backend: None }))),
            Some((BACKEND, device)) => {
                let connection = Connection::from_fds(fds).ok_or(io::ErrorKind::InvalidData)?;
                Ok(Some(Order::Deliver(Delivery { device, backend: Some(connection) })))
            }
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
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
fn parse(bytes: &[u8; SIZE], length: usize) -> io::Result<Option<(u8, u16)>> {
    let [tag, _, low, high] = *bytes;
    match length {
        0 => Ok(None),
        SIZE => Ok(Some((tag, u16::from_le_bytes([low, high])))),
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
