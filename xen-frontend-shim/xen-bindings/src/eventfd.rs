// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kicks and interrupts by the kernel: ioeventfd and irqfd of privcmd.
//!
//! The kernel needs CONFIG_XEN_PRIVCMD_EVENTFD. Without it
//! [`Error::is_unsupported`](crate::Error::is_unsupported) holds, and the worker passes on both. The shim
//! relies on (Linux 6.12, `drivers/xen/privcmd.c` and `evtchn.c`):
//!
//! # ioeventfd: a guest's QUEUE_NOTIFY signals an eventfd
//!
//! - The kernel matches a request of type COPY that writes 4 bytes at the device's base + 0x50 (QueueNotify,
//!   virtio 1.3, 4.2.2; the kernel adds the offset) with the queue's index in the low 16 bits of its data. It
//!   signals the eventfd, sets the slot to RESP_READY and notifies Xen, in its interrupt handler. With our
//!   patch 0005 (`images/linux/patches`) it delays fast kicks to the next tick while the eventfd is not read,
//!   with the event channel masked.
//! - The handler *shares* the interrupt of the event channel with the handler of `/dev/xen/evtchn`. Both run
//!   for each event, that of evtchn first, because it was bound first. So **a process that reads evtchn is
//!   woken by each kick**, and finds the slot in any state: READY, if the second handler has not run yet;
//!   NONE, if the vCPU has continued; or with the vCPU's next request.
//! - **A READY slot that a [`Doorbell`] matches must be left to the kernel**: its handler for this event will
//!   run, has run, or delays the request. The kernel does not take a request atomically: if the process
//!   answered as well, the answer could go to the vCPU's next request. The exception is a request that was
//!   READY when [`IoEventFd::assign`] returned: the handler has run before the doorbell was assigned. Drivers
//!   wait for the end of their write of DRIVER_OK, so no other vCPU kicks at that time. To be safe against
//!   one that does, answer a match that stays READY for long.
//! - **Only evtchn unmasks the event channel**, not the kernel's handler. The next event of a vCPU, a kick or
//!   a register access, arrives only after the process has read the port and written it back
//!   ([`crate::Evtchn::unmask`]). So this has to be done soon after each event, even if there was no request
//!   to answer.
//! - The page is identified by its address in the caller's address space, across all processes: two ioreq
//!   pages at the same address of two processes clash (`EINVAL`). The ports are local ports in the order of
//!   vCPUs. All doorbells of a page must be assigned with the same number of ports.
//! - An eventfd can be assigned once for each page (`EBUSY`).
//! - **With our patch only (`images/linux/patches`), an assignment ends with the mapping of the page.** Linux
//!   6.12.117 undoes nothing when the process ends or closes its privcmd descriptor. It keeps its handler and
//!   its share of the event channel, which cannot be bound again. If another process keeps the evtchn
//!   descriptor open, the handler runs at the guest's next access, reads the page at the address in the ended
//!   process, and the kernel panics. So [`IoEventFd`] owns a share of the page and deassigns before it is
//!   unmapped. Doorbells belong to the supervisor, which processes nothing that a guest wrote, and not to a
//!   worker.
//!
//! # irqfd: an eventfd raises a guest's interrupt
//!
//! - The kernel keeps a copy of one device model operation (`set_irq_level` with level 1) and makes it
//!   whenever the eventfd is signalled; it consumes the count. A signal that was pending at the assignment
//!   counts.
//! - This is sufficient for an edge-triggered interrupt, since Xen's vGIC needs no falling edge, but not for
//!   a level-triggered one.
//! - The assignment ends when the last descriptor of the eventfd is closed. After a deassignment no more
//!   interrupt comes.
//! - An eventfd can be assigned once (`EBUSY`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::abi::dm_op::SetIrqLevel;
use crate::error::{Call, Error, Result};
use crate::ids::{DomId, Irq, Port};
use crate::ioreq::{Direction, IoreqPage, Kind, RawRequest};
use crate::privcmd::{Privcmd, fail};
use crate::sys;

/// The offset of QueueNotify in a virtio-mmio device's registers (virtio 1.3, 4.2.2).
const QUEUE_NOTIFY: u64 = 0x50;

/// Converts an inherited descriptor of an eventfd.
#[must_use]
pub fn eventfd_from(fd: OwnedFd) -> EventFd {
    sys::eventfd_from(fd)
}

/// The kick of a queue: the driver's write of its index to QueueNotify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// The guest physical address of the device's first register.
    pub base: u64,
    /// The queue's index.
    pub queue: u16,
}

impl Doorbell {
    /// Whether the kernel matches this request with the doorbell, and so answers it.
    #[must_use]
    pub fn matches(&self, request: &RawRequest) -> bool {
        request.kind == Kind::Copy
            && request.direction == Direction::Write
            && self.base.checked_add(QUEUE_NOTIFY) == Some(request.addr)
            && request.size == 4
            && request.data & 0xffff == u64::from(self.queue)
    }
}

/// A doorbell for which the kernel signals an eventfd. Deassigned on drop.
#[derive(Debug)]
pub struct IoEventFd {
    privcmd: Privcmd,
    doorbell: Doorbell,
    assigned: sys::privcmd::IoEventFd,
}

impl IoEventFd {
    /// Makes the kernel answer `doorbell` by signalling `eventfd`. `ports` are the bound ports of the page's
    /// slots, in the order of the slots.
    pub fn assign(
        privcmd: &Privcmd,
        page: &Arc<IoreqPage>,
        ports: &[Port],
        doorbell: Doorbell,
        eventfd: &EventFd,
    ) -> Result<Self> {
        let domain = page.domain();
        if ports.len() != page.slots().len() {
            return Err(fail(Call::AssignIoEventFd, domain)(rustix::io::Errno::INVAL));
        }
        let assigned = sys::privcmd::IoEventFd {
            page: Arc::clone(page),
            ports: ports.iter().map(|port| port.get()).collect(),
            base: doorbell.base,
            queue: doorbell.queue.into(),
            eventfd: duplicate(eventfd, domain)?,
        };
        assigned.assign(privcmd.as_fd()).map_err(fail(Call::AssignIoEventFd, domain))?;
        Ok(Self { privcmd: privcmd.clone(), doorbell, assigned })
    }

    /// The doorbell.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell
    }
}

impl Drop for IoEventFd {
    fn drop(&mut self) {
        if self.assigned.deassign(self.privcmd.as_fd()).is_err() {
            // The kernel may still read the page: it must stay mapped while this process runs.
            std::mem::forget(Arc::clone(&self.assigned.page));
        }
    }
}

/// An eventfd for which the kernel raises an interrupt of a guest. Deassigned on drop.
#[derive(Debug)]
pub struct IrqFd {
    privcmd: Privcmd,
    domain: DomId,
    irq: Irq,
    /// `None` after [`Self::release`].
    eventfd: Option<EventFd>,
}

impl IrqFd {
    /// Makes the kernel raise `irq` of `domain` whenever `eventfd` is signalled.
    pub fn assign(privcmd: &Privcmd, domain: DomId, irq: Irq, eventfd: &EventFd) -> Result<Self> {
        let eventfd = duplicate(eventfd, domain)?;
        sys::privcmd::irqfd(privcmd.as_fd(), domain.get(), rising(irq), &eventfd, true)
            .map_err(fail(Call::AssignIrqFd, domain))?;
        Ok(Self::adopt(privcmd, domain, irq, eventfd))
    }

    /// Adopts an assignment that another process made and released.
    #[must_use]
    pub fn adopt(privcmd: &Privcmd, domain: DomId, irq: Irq, eventfd: EventFd) -> Self {
        Self { privcmd: privcmd.clone(), domain, irq, eventfd: Some(eventfd) }
    }

    /// Drops the handle without deassigning. The assignment ends with the last descriptor of the eventfd.
    pub fn release(mut self) {
        self.eventfd = None;
    }

    /// The interrupt that is raised.
    #[must_use]
    pub fn irq(&self) -> Irq {
        self.irq
    }
}

impl Drop for IrqFd {
    fn drop(&mut self) {
        if let Some(eventfd) = &self.eventfd {
            // This fails only for a descriptor of another kind, or a privcmd of another guest: then nothing
            // is assigned.
            let level = rising(self.irq);
            let _ = sys::privcmd::irqfd(self.privcmd.as_fd(), self.domain.get(), level, eventfd, false);
        }
    }
}

const fn rising(irq: Irq) -> SetIrqLevel {
    SetIrqLevel { irq: irq.get(), level: 1, pad: [0; 3] }
}

fn duplicate(eventfd: &EventFd, domain: DomId) -> Result<EventFd> {
    eventfd.try_clone().map_err(|e| Error::new(Call::Duplicate, Some(domain), e))
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;
    use crate::sys::mapping::Mapping;

    const DOORBELL: Doorbell = Doorbell { base: 0x0200_0200, queue: 1 };

    fn kick() -> RawRequest {
        RawRequest {
            kind: Kind::Copy,
            direction: Direction::Write,
            addr: 0x0200_0250,
            data: 1,
            size: 4,
            count: 1,
            data_is_ptr: false,
        }
    }

    #[test]
    fn doorbell_matches_what_the_kernel_matches() {
        assert!(DOORBELL.matches(&kick()));
        assert!(DOORBELL.matches(&RawRequest { data: 0x0002_0001, ..kick() }), "the kernel compares 16 bits");
        for other in [
            RawRequest { kind: Kind::Invalidate, ..kick() },
            RawRequest { direction: Direction::Read, ..kick() },
            RawRequest { addr: 0x0200_0050, ..kick() },
            RawRequest { data: 0, ..kick() },
            RawRequest { size: 2, ..kick() },
        ] {
            assert!(!DOORBELL.matches(&other), "{other:?}");
        }
        assert!(!Doorbell { base: u64::MAX, queue: 1 }.matches(&kick()));
    }

    #[test]
    fn number_of_ports_must_be_that_of_the_slots() {
        let privcmd = Privcmd::from_fd(tempfile::tempfile().unwrap().into());
        let mapping = Mapping::anonymous(crate::PAGE_SIZE).unwrap();
        let page = Arc::new(IoreqPage::new(mapping, DomId::new(2), 2));
        let eventfd = EventFd::new(EFD_NONBLOCK).unwrap();
        let error = IoEventFd::assign(&privcmd, &page, &[Port::new(1)], DOORBELL, &eventfd).unwrap_err();
        assert_eq!(error.io().kind(), std::io::ErrorKind::InvalidInput);
        let ports = [Port::new(1), Port::new(2)];
        let error = IoEventFd::assign(&privcmd, &page, &ports, DOORBELL, &eventfd).unwrap_err();
        assert!(error.is_unsupported(), "{error}");
        assert_eq!(Arc::strong_count(&page), 1);
    }

    #[test]
    fn inherited_descriptor_shares_the_count_of_its_eventfd() {
        let inherited = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        let other = inherited.try_clone().unwrap();
        eventfd_from(inherited).write(3).unwrap();
        assert_eq!(eventfd_from(other).read().unwrap(), 3);
    }
}
