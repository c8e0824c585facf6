// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the driver requests by the registers, as calls to the backend.

use log::{debug, error, warn};

use super::view::RingView;
use super::{BackedDevice, Setup};
use crate::hypervisor::Hypervisor;
use crate::memory::Ring;
use crate::virtio_mmio::{Device, Lost};

impl<H: Hypervisor> Device for BackedDevice<H> {
    fn start(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        self.begin(Setup { features, rings: rings.to_vec(), is_fresh: true })
    }

    fn resume(&mut self, features: u64, rings: &[Ring]) -> Result<(), Lost> {
        self.begin(Setup { features, rings: rings.to_vec(), is_fresh: false })
    }

    fn stop(&mut self) {
        (0..).take(self.notifiers.len()).for_each(|queue| self.drain_kick(queue));
        self.stop_backend();
        self.views.fill_with(|| None);
        self.link.kill_disconnected(&self.name);
    }

    fn clear_inflight(&mut self, queue: Option<u16>) -> Result<(), Lost> {
        let cleared = match queue {
            None => self.inflight.clear(),
            Some(queue) => self.inflight.clear_queue(queue),
        };
        cleared
            .map_err(|error| self.fail(&format!("the record of requests in flight is not usable: {error}")))
    }

    fn abandon(&mut self) -> Vec<Option<u16>> {
        self.stop_backend();
        let used = self.views.iter().map(|view| view.as_ref().and_then(RingView::used)).collect();
        self.views.fill_with(|| None);
        used
    }

    fn start_queue(&mut self, ring: &Ring) -> Result<(), Lost> {
        self.map_view(ring)?;
        if let Some(setup) = &mut self.setup {
            setup.rings.push(*ring);
        }
        let notifiers = &self.notifiers;
        let started = self.link.session_mut().map(|session| session.start_queue(ring, notifiers));
        self.handle_or_lose(started)
    }

    fn stop_queue(&mut self, queue: u16) -> Result<(), Lost> {
        if let Some(view) = self.views.get_mut(usize::from(queue)) {
            *view = None;
        }
        if let Some(setup) = &mut self.setup {
            setup.rings.retain(|ring| ring.index != queue);
        }
        let stopped = self.link.session_mut().map(|session| session.stop_queue(queue));
        let stopped = self.handle_or_lose(stopped);
        self.link.kill_disconnected(&self.name);
        self.take_queue_failure(queue);
        stopped
    }

    fn kick(&mut self, queue: u16) {
        let Some(notifier) = self.notifiers.get(usize::from(queue)) else { return };
        // The write fails only when 2⁶⁴ - 2 kicks are pending already.
        let _ = notifier.kick.write(1);
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        let written = self.link.session_mut().map(|session| session.write_config(offset, bytes));
        self.handle_or_lose(written)
    }

    fn used_index(&self, queue: u16) -> Option<u16> {
        self.views.get(usize::from(queue))?.as_ref()?.used()
    }

    fn interrupt(&mut self) {
        match self.hypervisor.raise(self.irq) {
            Ok(()) => debug!("{}: interrupt", self.name),
            Err(error) => error!("{}: cannot raise interrupt {}: {error}", self.name, self.irq),
        }
    }
}

impl<H: Hypervisor> BackedDevice<H> {
    /// Maps the rings and has the backend serve them, now or when there is one.
    fn begin(&mut self, setup: Setup) -> Result<(), Lost> {
        let mapped = setup.rings.iter().try_for_each(|ring| self.map_view(ring));
        if mapped.is_err() {
            self.views.fill_with(|| None);
            return mapped;
        }
        self.setup = Some(setup);
        self.serve()
    }

    fn map_view(&mut self, ring: &Ring) -> Result<(), Lost> {
        let view = RingView::map(&*self.hypervisor, ring).map_err(|error| {
            warn!("{}: the rings of queue {} cannot be mapped: {error}", self.name, ring.index);
            Lost
        })?;
        if let Some(place) = self.views.get_mut(usize::from(ring.index)) {
            *place = Some(view);
        }
        Ok(())
    }

    /// Stops the backend, if there is one. One that does not stop is disconnected, and has stopped as well.
    fn stop_backend(&mut self) {
        self.clear_setup();
        let stopped = self.link.session_mut().map(|session| session.stop());
        let _ = self.handle_result(stopped);
        // Failures of queues that it has reported before do not concern the next start.
        for queue in (0..).take(self.notifiers.len()) {
            self.take_queue_failure(queue);
        }
    }
}
