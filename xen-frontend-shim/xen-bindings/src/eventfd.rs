// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kicks and interrupts that the kernel passes on without the shim: privcmd's ioeventfd and irqfd.
//!
//! The kernel needs CONFIG_XEN_PRIVCMD_EVENTFD; without it, [`Error::is_unsupported`](crate::Error::is_unsupported) holds, and
//! the shim does both itself. What the shim relies on (Linux 6.12, `drivers/xen/privcmd.c` and `evtchn.c`):
//!
//! # ioeventfd: a guest's QUEUE_NOTIFY signals an eventfd
//!
//! - The kernel matches a request of type COPY, a write of 4 bytes at the device's base + 0x50 (virtio 1.3, 4.2.2, QueueNotify:
//!   the driver adds the offset itself), whose data has the queue's index in its low 16 bits. It signals the eventfd, sets the
//!   slot to RESP_READY and notifies Xen, all in its interrupt handler. If the eventfd is not read and kicks come fast, by a
//!   patch of ours it lets them wait for the next tick (`images/linux/patches`, 0005), with the event channel masked.
//! - Its handler *shares* the interrupt of the event channel with that of `/dev/xen/evtchn`. For each event both run, that of
//!   evtchn first, as it was bound first. So **a process that reads evtchn is woken by each kick**, and finds the slot in any
//!   state: READY, if the kernel's second handler has not run yet; NONE, when the vCPU runs on already; or the vCPU's next
//!   request.
//! - **A READY slot that a [`Doorbell`] matches must be left to the kernel**: its handler for this event is about to run, has
//!   run, or lets the request wait. The kernel does not take a request atomically, so answering it here as well could answer
//!   the vCPU's next request by mistake. Two kinds of events are exceptions, as the handler ran before the doorbell was
//!   assigned: what was READY already when [`IoEventFd::assign`] returned. A driver that waits for its write of DRIVER_OK to
//!   complete, as all do, has no other vCPU notify at that time; to be safe against one that does, answer a match that stays
//!   READY for long.
//! - **Only evtchn unmasks the event channel**: the kernel's handler does not. A vCPU's next event, be it a kick or a
//!   register access, comes through only after the process has read the port and written it back ([`crate::Evtchn::unmask`]).
//!   So that has to be done for each event, whether or not there was something to answer, and before long.
//! - The page is found by its address in the caller's address space, across all processes: two ioreq pages at the same
//!   address of two processes clash (`EINVAL`). The ports are an array of local ports in the order of vCPUs, and every
//!   doorbell of one page must be assigned with the same count.
//! - An eventfd can be assigned once for each page (`EBUSY`).
//! - **It ends with the mapping of the page, only by a patch of ours** (`images/linux/patches`). Linux 6.12.117 itself undoes
//!   nothing when the process or its descriptor of privcmd goes: it keeps its handler and a share of the event channel, which
//!   nobody can bind again, and if another process keeps the descriptor of evtchn open, the handler runs at the guest's next
//!   access and reads the page where the dead process had mapped it: the driver domain's kernel panics. So [`IoEventFd`] owns
//!   a share of the page and deassigns before it lets go; and the doorbells belong to the supervisor, which has no reason to
//!   die, not to a worker, which meets what a guest wrote.
//!
//! # irqfd: an eventfd raises a guest's interrupt
//!
//! - The kernel keeps a copy of one device model operation (`set_irq_level` with level 1) and repeats it whenever the eventfd is
//!   signalled; its count is consumed. A signal that was pending when it was assigned counts.
//! - For an edge-triggered interrupt that is all: Xen's vGIC needs no falling edge. It cannot serve a level-triggered one.
//! - It ends by itself when the last descriptor of the eventfd is closed. Deassigning waits until no more interrupt can come.
//! - An eventfd can be assigned once (`EBUSY`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::abi::dm_op::SetIrqLevel;
use crate::error::{Call, Error, Result};
use crate::ids::{DomId, Irq, Port};
use crate::ioreq::{Direction, IoreqPage, Kind, Request};
use crate::privcmd::{Privcmd, fail};
use crate::sys;

/// The offset of QueueNotify in a virtio-mmio device's registers (virtio 1.3, 4.2.2).
const QUEUE_NOTIFY: u64 = 0x50;

/// Makes an inherited descriptor the eventfd that it is.
#[must_use]
pub fn eventfd_from(fd: OwnedFd) -> EventFd {
    sys::eventfd_from(fd)
}

/// A queue's QUEUE_NOTIFY: the write by which a guest's driver says that it has put something into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// The guest physical address of the device's first register.
    pub base: u64,
    /// The queue's index.
    pub queue: u16,
}

impl Doorbell {
    /// Whether the kernel takes this request for the doorbell, and so answers it.
    #[must_use]
    pub fn matches(&self, request: &Request) -> bool {
        request.kind == Kind::Copy
            && request.direction == Direction::Write
            && self.base.checked_add(QUEUE_NOTIFY) == Some(request.addr)
            && request.size == 4
            && request.data & 0xffff == u64::from(self.queue)
    }
}

/// A doorbell that the kernel answers by signalling an eventfd. Deassigned on drop.
#[derive(Debug)]
pub struct IoEventFd {
    privcmd: Privcmd,
    doorbell: Doorbell,
    assigned: sys::privcmd::IoEventFd,
}

impl IoEventFd {
    /// Has the kernel answer `doorbell` by signalling `eventfd`. `ports` are those that the page's slots are bound to, in
    /// the slots' order.
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

    /// What the kernel answers.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell
    }
}

impl Drop for IoEventFd {
    fn drop(&mut self) {
        if self.assigned.deassign(self.privcmd.as_fd()).is_err() {
            // The kernel may still look into the page: it must stay mapped for as long as this process lives.
            std::mem::forget(Arc::clone(&self.assigned.page));
        }
    }
}

/// An interrupt of a guest that the kernel raises when an eventfd is signalled. Deassigned on drop.
#[derive(Debug)]
pub struct IrqFd {
    privcmd: Privcmd,
    domain: DomId,
    irq: Irq,
    /// None once it has been let go.
    eventfd: Option<EventFd>,
}

impl IrqFd {
    /// Has the kernel raise `irq` of `domain` whenever `eventfd` is signalled.
    pub fn assign(privcmd: &Privcmd, domain: DomId, irq: Irq, eventfd: &EventFd) -> Result<Self> {
        let eventfd = duplicate(eventfd, domain)?;
        sys::privcmd::irqfd(privcmd.as_fd(), domain.get(), rising(irq), &eventfd, true)
            .map_err(fail(Call::AssignIrqFd, domain))?;
        Ok(Self::adopt(privcmd, domain, irq, eventfd))
    }

    /// Takes over an assignment that another process made and let go.
    #[must_use]
    pub fn adopt(privcmd: &Privcmd, domain: DomId, irq: Irq, eventfd: EventFd) -> Self {
        Self { privcmd: privcmd.clone(), domain, irq, eventfd: Some(eventfd) }
    }

    /// Lets go of the assignment without ending it. It ends with the last descriptor of the eventfd.
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
            // It fails only for a descriptor that is no eventfd or a privcmd that is not this guest's: then nothing was assigned.
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

    fn kick() -> Request {
        Request {
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
    fn a_doorbell_matches_what_the_kernel_matches() {
        assert!(DOORBELL.matches(&kick()));
        assert!(DOORBELL.matches(&Request { data: 0x0002_0001, ..kick() }), "the kernel looks at 16 bits");
        for other in [
            Request { kind: Kind::Invalidate, ..kick() },
            Request { direction: Direction::Read, ..kick() },
            Request { addr: 0x0200_0050, ..kick() },
            Request { data: 0, ..kick() },
            Request { size: 2, ..kick() },
        ] {
            assert!(!DOORBELL.matches(&other), "{other:?}");
        }
        assert!(!Doorbell { base: u64::MAX, queue: 1 }.matches(&kick()));
    }

    #[test]
    fn the_page_wants_a_port_for_each_slot() {
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
    fn an_inherited_descriptor_is_the_eventfd_that_it_was() {
        let inherited = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        let other = inherited.try_clone().unwrap();
        eventfd_from(inherited).write(3).unwrap();
        assert_eq!(eventfd_from(other).read().unwrap(), 3);
    }
}
