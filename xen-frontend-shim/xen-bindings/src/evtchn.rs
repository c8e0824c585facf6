// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/xen/evtchn`: event channels, Xen's interrupts between domains.
//!
//! The shim relies on (Linux 6.12, `drivers/xen/evtchn.c`):
//!
//! - Bound ports belong to the open file. They stay bound while any duplicate of the descriptor is open: a
//!   supervisor that keeps one keeps the channels of a worker that has ended. Closing the last one closes the
//!   channels.
//! - Each event masks its channel and puts its port into a ring that [`Evtchn::pending`] reads. The channel
//!   is unmasked when the port is written back by [`Evtchn::unmask`]; events in between come as one after
//!   that. So the order is: read the port, serve the slot, unmask. An event that came since makes the
//!   descriptor readable again.
//! - A port that was read and not written back stays masked when another process continues with the
//!   descriptor. So that process first unmasks all ports and serves all slots.
//! - The ring has an entry for each channel, so it cannot overflow.
//! - A bound channel may fire once although no event was sent.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::{Errno, read, retry_on_intr, write};

use crate::abi::domctl::VIRQ_DOM_EXC;
use crate::error::{Call, Error, Result};
use crate::ids::{DomId, Port, RemotePort};
use crate::privcmd::fail;
use crate::sys::evtchn as sys;

/// The number of ports that one read returns at most. The descriptor stays readable while there are more.
const BATCH: usize = 16;
const PORT_SIZE: usize = size_of::<u32>();

/// A non-blocking descriptor of `/dev/xen/evtchn`. Clones share it.
#[derive(Clone, Debug)]
pub struct Evtchn {
    fd: Arc<OwnedFd>,
}

impl Evtchn {
    /// Opens the device, without channels.
    pub fn open() -> Result<Self> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open("/dev/xen/evtchn")
            .map_err(|e| Error::new(Call::OpenEvtchn, None, e))?;
        Ok(Self::from_fd(file.into()))
    }

    /// Adopts a descriptor that another process opened, with its channels.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Permits new channels to `domain` only from now on. Bound channels stay.
    pub fn restrict(&self, domain: DomId) -> Result<()> {
        sys::restrict(self.as_fd(), domain.get()).map_err(fail(Call::RestrictEvtchn, domain))
    }

    /// Binds a channel that `domain`, or Xen for it, has opened for this domain.
    pub fn bind(&self, domain: DomId, remote: RemotePort) -> Result<Channel> {
        let port = sys::bind_interdomain(self.as_fd(), domain.get(), remote.get())
            .map_err(fail(Call::BindInterdomain, domain))?;
        Ok(Channel::adopt(self, Port::new(port)))
    }

    /// Binds a channel that fires when some domain has ended, if the event is routed to this domain
    /// ([`Privcmd::route_domain_events`]). A domain can have one such channel at a time.
    ///
    /// [`Privcmd::route_domain_events`]: crate::Privcmd::route_domain_events
    pub fn bind_domain_events(&self) -> Result<Channel> {
        let port =
            sys::bind_virq(self.as_fd(), VIRQ_DOM_EXC).map_err(|e| Error::new(Call::BindVirq, None, e))?;
        Ok(Channel::adopt(self, Port::new(port)))
    }

    /// Binds a static port, which Xen connected when it created the domains.
    ///
    /// The appliance has none. Linux accepts any other port for one, so a test shows by this call that a
    /// restricted descriptor cannot use a port that is bound to another one.
    pub fn bind_static(&self, port: Port) -> Result<Channel> {
        sys::bind_static(self.as_fd(), port.get()).map_err(|e| Error::new(Call::BindStatic, None, e))?;
        Ok(Channel::adopt(self, port))
    }

    /// Reads the ports that have fired, which are masked now.
    pub fn pending(&self) -> Result<Fired> {
        let mut bytes = [0; BATCH * PORT_SIZE];
        let len = match retry_on_intr(|| read(self.as_fd(), &mut bytes)) {
            Ok(len) => len,
            Err(Errno::AGAIN) => 0,
            Err(other) => return Err(Error::new(Call::ReadPending, None, other)),
        };
        Ok(Fired { bytes, len })
    }

    /// Unmasks ports that have fired.
    pub fn unmask(&self, fired: &Fired) -> Result<()> {
        self.write_back(fired.bytes())
    }

    /// Unmasks ports, whether or not they have fired.
    pub fn unmask_all(&self, ports: &[Port]) -> Result<()> {
        let bytes: Vec<u8> = ports.iter().flat_map(|port| port.get().to_ne_bytes()).collect();
        // The driver accepts at most one page of ports.
        bytes.chunks(crate::PAGE_SIZE).try_for_each(|bytes| self.write_back(bytes))
    }

    fn write_back(&self, bytes: &[u8]) -> Result<()> {
        retry_on_intr(|| write(self.as_fd(), bytes)).map_err(|e| Error::new(Call::Unmask, None, e))?;
        Ok(())
    }

    /// Sends an event to the other end of a channel.
    pub fn notify(&self, port: Port) -> Result<()> {
        sys::notify(self.as_fd(), port.get()).map_err(|e| Error::new(Call::Notify, None, e))
    }
}

/// Ports that have fired, and are masked until [`Evtchn::unmask`]. They are kept as the kernel wrote them,
/// since this is on the path of every register access.
#[derive(Clone, Debug)]
pub struct Fired {
    bytes: [u8; BATCH * PORT_SIZE],
    len: usize,
}

impl Fired {
    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        let (ports, _) = self.bytes().as_chunks::<PORT_SIZE>();
        ports.iter().map(|port| Port::new(u32::from_ne_bytes(*port)))
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl AsFd for Evtchn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self.fd).as_fd()
    }
}

/// A bound event channel. Closed on drop.
#[derive(Debug)]
pub struct Channel {
    evtchn: Evtchn,
    port: Port,
    /// Whether to unbind it on drop.
    owned: bool,
}

impl Channel {
    /// Adopts a port that another process bound on this descriptor and released.
    #[must_use]
    pub fn adopt(evtchn: &Evtchn, port: Port) -> Self {
        Self { evtchn: evtchn.clone(), port, owned: true }
    }

    /// Drops the handle without closing the channel. The channel closes with the last duplicate of the
    /// descriptor.
    #[must_use]
    pub fn release(mut self) -> Port {
        self.owned = false;
        self.port
    }

    /// The local port.
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }

    /// Sends an event to the other end.
    pub fn notify(&self) -> Result<()> {
        self.evtchn.notify(self.port)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.owned {
            // This fails only for a port that is not bound.
            let _ = sys::unbind(self.evtchn.as_fd(), self.port.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A descriptor from which ports are read and to which they are written, as with evtchn.
    fn fake() -> (Evtchn, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Evtchn::from_fd(ours.into()), theirs)
    }

    #[test]
    fn ports_are_read_and_written_back() {
        let (evtchn, mut driver) = fake();
        assert_eq!(evtchn.pending().unwrap().ports().count(), 0);
        driver.write_all(&[7, 0, 0, 0, 0, 1, 0, 0]).unwrap();
        let fired = evtchn.pending().unwrap();
        assert!(fired.ports().eq([Port::new(7), Port::new(256)]));
        evtchn.unmask(&fired).unwrap();
        evtchn.unmask_all(&[Port::new(2)]).unwrap();
        let mut written = [0; 12];
        driver.read_exact(&mut written).unwrap();
        assert_eq!(written, [7, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn released_channel_is_not_closed() {
        let (evtchn, _driver) = fake();
        assert_eq!(Channel::adopt(&evtchn, Port::new(5)).release(), Port::new(5));
    }

    #[test]
    fn error_names_the_domain() {
        let (evtchn, _driver) = fake();
        let error = evtchn.bind(DomId::new(3), RemotePort::new(1)).unwrap_err();
        assert_eq!((error.call(), error.domain()), (Call::BindInterdomain, Some(DomId::new(3))));
    }
}
