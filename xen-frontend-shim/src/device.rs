// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What stands behind a window: a backend, the event descriptors between it and the guest, and the shim's own view
//! of the used rings.
//!
//! This is where the transport's wishes (start, stop, kick) become calls to a backend, and where a backend that fails
//! is let go of: whatever happens, the transport gets an answer, and nothing of the guest stays mapped after a stop.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use log::{debug, error, warn};

use crate::hypervisor::{Hypervisor, Mapping};
use crate::memory::{GrantRange, Ring};
use crate::vhost_user::{Notifier, Program, Session, SessionError};
use crate::virtio_mmio::{Device, Lost};

/// A device served by a backend.
pub struct BackedDevice<H: Hypervisor> {
    name: String,
    hypervisor: Rc<H>,
    irq: u32,
    notifiers: Vec<Notifier>,
    views: Vec<Option<UsedView<H::Mapping>>>,
    // The order of these two matters: the connection ends before the program is waited for.
    session: Option<Session>,
    program: Option<Program>,
}

/// The page of a used ring that holds its index.
struct UsedView<M> {
    mapping: M,
    offset: usize,
}

impl<H: Hypervisor> BackedDevice<H> {
    /// A device called `name` in messages, that interrupts by `irq`.
    pub fn new(
        name: String,
        hypervisor: Rc<H>,
        irq: u32,
        notifiers: Vec<Notifier>,
        session: Session,
        program: Option<Program>,
    ) -> Self {
        let views = notifiers.iter().map(|_| None).collect();
        Self { name, hypervisor, irq, notifiers, views, session: Some(session), program }
    }

    /// For messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection to the backend, while there is one.
    #[must_use]
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.session.as_ref().map(Session::as_fd)
    }

    /// The event descriptors of the queues.
    #[must_use]
    pub fn notifiers(&self) -> &[Notifier] {
        &self.notifiers
    }

    /// The connection has ended without our doing. True when this is news.
    pub fn backend_hung_up(&mut self) -> bool {
        let is_news = self.session.is_some();
        if is_news {
            self.let_go("the backend has hung up");
        }
        is_news
    }

    /// Ends the connection and, if we started it, the program. The guest's memory is unmapped by the kernel as the
    /// program and our copy of its descriptor go.
    fn let_go(&mut self, reason: &str) {
        self.views.fill_with(|| None);
        self.session = None;
        match self.program.take().and_then(Program::end) {
            Some(status) => error!("{}: {reason} ({status}); the device needs a reset", self.name),
            None => error!("{}: {reason}; the device needs a reset", self.name),
        }
    }

    fn check<T>(&mut self, result: Result<T, SessionError>) -> Result<T, Lost> {
        result.map_err(|error| {
            self.let_go(&error.to_string());
            Lost
        })
    }

    /// Maps all of a ring, to see that the guest granted it, and keeps what holds the used index.
    ///
    /// A backend that is told to map what is not granted fails as a whole. So the shim tries first: a guest that lies
    /// about its rings has a device that needs a reset, and keeps its backend.
    fn view(&self, ring: &Ring) -> std::io::Result<UsedView<H::Mapping>> {
        let map = |range: GrantRange| self.hypervisor.map_grants(range.first(), range.page_count());
        for part in ring.parts() {
            drop(map(part)?);
        }
        // virtio 1.3, 2.7.8: the index follows the flags. The ring is aligned to 4, so that it is on the first page.
        let mapping = self.hypervisor.map_grants(ring.used.first(), 1)?;
        Ok(UsedView { mapping, offset: ring.used.offset_in_page() + 2 })
    }
}

impl<H: Hypervisor> Device for BackedDevice<H> {
    fn start(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        for ring in rings {
            let view = self.view(ring).map_err(|error| {
                warn!("{}: the rings of queue {} cannot be mapped: {error}", self.name, ring.index);
                self.views.fill_with(|| None);
                Lost
            })?;
            if let Some(place) = self.views.get_mut(usize::from(ring.index)) {
                *place = Some(view);
            }
        }
        let Some(session) = &mut self.session else {
            warn!("{}: it has no backend", self.name);
            return Err(Lost);
        };
        let started = session.start(features, rings, &self.notifiers);
        self.check(started)
    }

    fn stop(&mut self) {
        self.views.fill_with(|| None);
        for notifier in &self.notifiers {
            // Whatever was kicked and not noticed belongs to the past. It fails if nothing was.
            let _ = notifier.kick.read();
        }
        if let Some(session) = &mut self.session {
            let stopped = session.stop();
            // If it did not stop by agreement it is gone now, and the reset is as complete.
            let _ = self.check(stopped);
        }
    }

    fn stop_queue(&mut self, queue: u16) -> Result<(), Lost> {
        let Some(session) = &mut self.session else { return Err(Lost) };
        let stopped = session.stop_queue(queue);
        self.check(stopped)
    }

    fn kick(&mut self, queue: u16) {
        let Some(notifier) = self.notifiers.get(usize::from(queue)) else { return };
        // It can only fail when 2⁶⁴ - 1 kicks are pending already.
        let _ = notifier.kick.write(1);
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        let Some(session) = &mut self.session else { return Err(Lost) };
        let written = session.write_config(offset, bytes);
        self.check(written)
    }

    fn used_index(&self, queue: u16) -> Option<u16> {
        let view = self.views.get(usize::from(queue))?.as_ref()?;
        view.mapping.load_u16(view.offset)
    }

    fn interrupt(&mut self) {
        match self.hypervisor.raise(self.irq) {
            Ok(()) => debug!("{}: interrupt", self.name),
            Err(error) => error!("{}: cannot raise interrupt {}: {error}", self.name, self.irq),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;
    use crate::hypervisor::fake::{Fake, read, write};
    use crate::ioreq::Bus;
    use crate::ioreq::bus::{Occupant, Window};
    use crate::vhost_user::test_backend::{self, SharedMemory};
    use crate::vhost_user::{DeviceKind, Limits, Watchdog};
    use crate::virtio_mmio::{Identity, Transport, features};

    const BASE: u64 = 0x200_0000;
    const IRQ: u32 = 33;

    /// A guest whose traps go all the way to a real backend.
    struct Guest {
        xen: Rc<Fake>,
        memory: Arc<SharedMemory>,
        bus: Bus<BackedDevice<Fake>>,
    }

    impl Guest {
        fn new() -> Self {
            let xen = Rc::new(Fake::new(1));
            let memory = SharedMemory::new();
            let watchdog = Watchdog::start(Limits::default()).unwrap();
            let (socket, _) = test_backend::start();
            let backing = Box::new(Arc::clone(&memory));
            let (session, offer) = Session::open(socket, DeviceKind::of(41), 1, &watchdog, backing).unwrap();
            let kick = EventFd::new(EFD_NONBLOCK).unwrap();
            let notifiers = vec![Notifier { kick, call: EventFd::new(0).unwrap() }];
            let device = BackedDevice::new("g/d".into(), Rc::clone(&xen), IRQ, notifiers, session, None);
            let identity = Identity {
                name: "g/d".into(),
                device_id: 41,
                features: features::offered(offer.features),
                demanded_features: 0,
                starts_by_kick: false,
                queues: 1,
                queue_size_max: 64,
            };
            let transport = Transport::new(identity, offer.config, device);
            let window = Window { base: BASE, doorbells: Vec::new(), occupant: Occupant::Device(transport) };
            Self { xen, memory, bus: Bus::new(vec![window]) }
        }

        fn read(&mut self, offset: u64) -> u64 {
            self.xen.trap(0, read(BASE + offset, 4));
            self.bus.serve(&*self.xen, 0);
            self.xen.answers()[0].1
        }

        fn write(&mut self, offset: u64, value: u64) {
            self.xen.trap(0, write(BASE + offset, 4, value));
            self.bus.serve(&*self.xen, 0);
            assert_eq!(self.xen.answers().len(), 1);
        }

        /// Brings up the device with a ring of 16 entries on page 1, all three parts of it.
        fn probe(&mut self) {
            for at in [0x400, 0x402, 0x800, 0x802] {
                self.memory.write_u16(4096 + at, 0);
            }
            self.xen.store_u16(1, 0x802, 0);
            self.write(0x70, 3);
            self.write(0x24, 1);
            self.write(0x20, 3);
            self.write(0x70, 0xb);
            self.write(0x38, 16);
            for (register, at) in [(0x80, 0x1000), (0x90, 0x1400), (0xa0, 0x1800)] {
                self.write(register, at);
                self.write(register + 4, 1 << 31);
            }
            self.write(0x44, 1);
            self.write(0x70, 0xf);
        }

        fn transfer(&mut self, next: u16) {
            self.memory.write_u16(4096 + 0x404 + 2 * u64::from(next), 0);
            self.memory.write_u16(4096 + 0x402, next + 1);
            self.write(0x50, 0);
            let Occupant::Device(transport) = &self.bus.windows_mut()[0].occupant else { panic!() };
            transport.device().notifiers()[0].call.read().unwrap();
            // The fake's grants are not the memory that the backend sees: carry the index over.
            self.xen.store_u16(1, 0x802, self.memory.read_u16(4096 + 0x802));
        }
    }

    #[test]
    fn a_guest_uses_the_device_and_no_grant_stays_mapped() {
        let mut guest = Guest::new();
        guest.xen.grant(1);
        for _ in 0..10 {
            guest.probe();
            assert_eq!((guest.read(0x70), guest.xen.mapped()), (0xf, 1));
            assert_eq!(guest.read(0x60), 0);
            for next in 0..3 {
                guest.transfer(next);
                assert_eq!(guest.read(0x60), 1);
                guest.write(0x64, 1);
                assert_eq!(guest.read(0x60), 0);
            }
            guest.write(0x70, 0);
            assert_eq!((guest.read(0x70), guest.xen.mapped()), (0, 0));
        }
    }

    #[test]
    fn rings_that_are_not_granted_cost_a_reset_and_not_the_backend() {
        let mut guest = Guest::new();
        guest.probe();
        assert_eq!((guest.read(0x70), guest.xen.mapped()), (0x4f, 0));
        assert_eq!(guest.xen.raised(), [IRQ]);
        guest.write(0x70, 0);
        guest.xen.grant(1);
        guest.probe();
        assert_eq!(guest.read(0x70), 0xf);
        guest.transfer(0);
    }

    #[test]
    fn a_backend_that_hangs_up_leaves_nothing_mapped_and_every_trap_answered() {
        let mut guest = Guest::new();
        guest.xen.grant(1);
        guest.probe();
        let Occupant::Device(transport) = &mut guest.bus.windows_mut()[0].occupant else { panic!() };
        assert!(transport.device_mut().backend_hung_up());
        assert!(!transport.device_mut().backend_hung_up());
        transport.device_lost();
        assert_eq!((guest.read(0x70), guest.read(0x60), guest.xen.mapped()), (0x4f, 2, 0));
        assert_eq!(guest.xen.raised(), [IRQ]);
        guest.write(0x50, 0);
        guest.write(0x70, 0);
        guest.probe();
        assert_eq!(guest.read(0x70), 0x4f);
    }
}
