// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/xen/evtchn`: event channels, Xen's interrupts between domains.
//!
//! What the shim relies on (Linux 6.12, `drivers/xen/evtchn.c`):
//!
//! - Ports that are bound belong to the descriptor. They stay open while any duplicate of it is open, so a supervisor that
//!   keeps one keeps the channels of a worker that died; closing the last one closes them.
//! - A channel is readable once per event: the driver then masks it, puts its port into a ring that [`Evtchn::pending`]
//!   reads, and unmasks it when the port is written back by [`Evtchn::unmask`]. Events in between are not lost, they come
//!   as one after the unmasking. So the order is: read the port, look at the slot and answer, unmask; then whatever arrived
//!   since makes the descriptor readable again.
//! - A port whose event came and which nobody wrote back stays masked when another process takes over the descriptor. Taking
//!   over therefore begins with unmasking all ports, and with a look at all slots.
//! - The ring is as large as there are channels, so it cannot overflow.
//! - A bound channel may fire once although nothing was sent.

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

/// How many ports one read takes. What is left over keeps the descriptor readable.
const BATCH: usize = 16;
const PORT_SIZE: usize = size_of::<u32>();

/// A descriptor of `/dev/xen/evtchn`, which does not block. Clones share it.
#[derive(Clone, Debug)]
pub struct Evtchn {
    fd: Arc<OwnedFd>,
}

impl Evtchn {
    /// Opens the device. It has no channels yet.
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

    /// Takes over a descriptor that another process opened, with the channels it has.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// From now on, allows no new channels except to `domain`. What is bound stays bound.
    pub fn restrict(&self, domain: DomId) -> Result<()> {
        sys::restrict(self.as_fd(), domain.get()).map_err(fail(Call::RestrictEvtchn, domain))
    }

    /// Binds a channel that `domain`, or Xen on its behalf, has opened for this domain.
    pub fn bind(&self, domain: DomId, remote: RemotePort) -> Result<Channel> {
        let port = sys::bind_interdomain(self.as_fd(), domain.get(), remote.get())
            .map_err(fail(Call::BindInterdomain, domain))?;
        Ok(Channel::adopt(self, Port::new(port)))
    }

    /// Binds a channel that fires when some domain has ended, if this domain is the one that is told
    /// ([`Privcmd::route_domain_events`]). One at a time in a domain.
    ///
    /// [`Privcmd::route_domain_events`]: crate::Privcmd::route_domain_events
    pub fn bind_domain_events(&self) -> Result<Channel> {
        let port =
            sys::bind_virq(self.as_fd(), VIRQ_DOM_EXC).map_err(|e| Error::new(Call::BindVirq, None, e))?;
        Ok(Channel::adopt(self, Port::new(port)))
    }

    /// Binds a port of this domain that Xen has connected when it made the domains.
    ///
    /// The appliance has none. Linux takes any other port for one, so a test proves by this call that a descriptor which is
    /// restricted gets at no port that another one has bound.
    pub fn bind_static(&self, port: Port) -> Result<Channel> {
        sys::bind_static(self.as_fd(), port.get()).map_err(|e| Error::new(Call::BindStatic, None, e))?;
        Ok(Channel::adopt(self, port))
    }

    /// The ports that have fired since they were unmasked, each masked now. None if nothing has.
    pub fn pending(&self) -> Result<Fired> {
        let mut bytes = [0; BATCH * PORT_SIZE];
        let len = match retry_on_intr(|| read(self.as_fd(), &mut bytes)) {
            Ok(len) => len,
            Err(Errno::AGAIN) => 0,
            Err(other) => return Err(Error::new(Call::ReadPending, None, other)),
        };
        Ok(Fired { bytes, len })
    }

    /// Lets ports fire again that have.
    pub fn unmask(&self, fired: &Fired) -> Result<()> {
        self.write_back(fired.bytes())
    }

    /// Lets ports fire again, of which nobody knows whether they have.
    pub fn unmask_all(&self, ports: &[Port]) -> Result<()> {
        let bytes: Vec<u8> = ports.iter().flat_map(|port| port.get().to_ne_bytes()).collect();
        // The driver takes at most a page of ports, far more than a guest has vCPUs.
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

/// Ports that have fired, and are masked until [`Evtchn::unmask`] gets them back. As the kernel wrote them: this is on the
/// path of every trap.
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

/// A bound event channel, closed on drop.
#[derive(Debug)]
pub struct Channel {
    evtchn: Evtchn,
    port: Port,
    /// Whether to unbind it on drop.
    owned: bool,
}

impl Channel {
    /// Takes over a port that another process bound on this descriptor and let go.
    #[must_use]
    pub fn adopt(evtchn: &Evtchn, port: Port) -> Self {
        Self { evtchn: evtchn.clone(), port, owned: true }
    }

    /// Lets go of the channel without closing it. It closes with the last duplicate of the descriptor.
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
            // It fails only for a port that is not bound.
            let _ = sys::unbind(self.evtchn.as_fd(), self.port.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A descriptor that reads and writes ports as evtchn does.
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
    fn a_released_channel_keeps_its_port() {
        let (evtchn, _driver) = fake();
        assert_eq!(Channel::adopt(&evtchn, Port::new(5)).release(), Port::new(5));
    }

    #[test]
    fn a_failure_names_the_domain() {
        let (evtchn, _driver) = fake();
        let error = evtchn.bind(DomId::new(3), RemotePort::new(1)).unwrap_err();
        assert_eq!((error.call(), error.domain()), (Call::BindInterdomain, Some(DomId::new(3))));
    }
}
