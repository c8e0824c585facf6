// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A backend gets what the driver has set up: its first one, or another one that goes on.

use std::time::Instant;

use log::{error, info, warn};

use super::view::RingView;
use super::{BackedDevice, Failure, Setup, recovery};
use crate::hypervisor::Hypervisor;
use crate::memory::Ring;
use crate::vhost_user::{Process, Session, Start};
use crate::virtio_mmio::{Device, Lost};
use crate::window::Window;

/// Connects another backend to a device that has had one. If its features or its configuration differ, the
/// driver has to reset the device.
pub fn replace_backend<H: Hypervisor>(
    window: &mut Window<BackedDevice<H>>,
    mut session: Session,
    mut config: Vec<u8>,
    process: Option<Process>,
) {
    let state = window.state();
    if state.has_driver() {
        match session.restore_config(&state.config) {
            Ok(restored) => config = restored,
            Err(error) => warn!("{}: {error}", window.device().name()),
        }
    }
    window.backend_replaced(session.offered(), config);
    if window.device_mut().attach(session, process).is_err() {
        window.device_lost();
    }
    window.device_mut().reset_if_unused();
}

impl<H: Hypervisor> BackedDevice<H> {
    /// Connects a backend, which gets what the driver has set up.
    pub fn attach(&mut self, session: Session, process: Option<Process>) -> Result<(), Lost> {
        self.link.connect(session, process);
        self.stall.reset();
        self.serve()
    }

    /// Has the backend reset the device if no driver uses it: the hardware may still be as a driver has left
    /// it that was reset, or whose guest ended, while there was no backend.
    pub fn reset_if_unused(&mut self) {
        if self.setup.is_none() {
            let reset = self.link.session_mut().map(Session::reset);
            let _ = self.handle_result(reset);
        }
    }

    /// Disconnects the backend, if there is one: the supervisor has started another.
    pub fn disconnect_replaced(&mut self) {
        if self.link.session().is_some() {
            self.backend_lost("the backend has been replaced", true);
            self.link.take_disconnected();
        }
    }

    /// Has the backend serve what the driver has set up, now or when there is one.
    pub(super) fn serve(&mut self) -> Result<(), Lost> {
        let Some(setup) = self.setup.clone() else { return Ok(()) };
        match self.replay(&setup) {
            Ok(()) => self.lost_at = None,
            Err(Failure::NoBackend) => self.await_backend(),
            Err(Failure::Refused) => return Err(self.fail("it cannot go on")),
        }
        Ok(())
    }

    fn replay(&mut self, setup: &Setup) -> Result<(), Failure> {
        let session = self.link.session().ok_or(Failure::NoBackend)?;
        if !setup.is_fresh {
            self.check_recoverable(session, setup)?;
        }
        let base = |ring: &Ring| if setup.is_fresh { 0 } else { self.used_index(ring.index).unwrap_or(0) };
        let rings: Vec<_> = setup.rings.iter().map(|ring| (*ring, base(ring))).collect();
        let start = Start {
            features: setup.features,
            rings: &rings,
            notifiers: &self.notifiers,
            inflight: &self.inflight,
            is_fresh: setup.is_fresh,
        };
        // From here on a backend may serve requests, even if the start fails.
        self.setup = Some(Setup { is_fresh: false, ..setup.clone() });
        let started = self.link.session_mut().map(|session| session.start(&start));
        self.handle_result(started)?;
        if !setup.is_fresh {
            self.notify_both_sides(&rings);
        }
        self.stall.start(Instant::now());
        Ok(())
    }

    /// Kicks the backend and interrupts the driver, since notifications may have been lost with the former
    /// backend.
    fn notify_both_sides(&mut self, rings: &[(Ring, u16)]) {
        info!("{}: another backend takes over", self.name);
        let notifiers = rings.iter().filter_map(|(ring, _)| self.notifiers.get(usize::from(ring.index)));
        for notifier in notifiers {
            // A write fails only when 2⁶⁴ - 2 notifications are pending already.
            let _ = notifier.kick.write(1);
            let _ = notifier.call.write(1);
        }
    }

    /// Refuses to continue if a request could be carried out twice or if state is missing.
    fn check_recoverable(&self, session: &Session, setup: &Setup) -> Result<(), Failure> {
        let rings = setup.rings.iter().filter_map(|ring| {
            let view = self.views.get(usize::from(ring.index)).and_then(Option::as_ref);
            Some((*ring, view.and_then(RingView::progress)?))
        });
        recovery::check(session.properties(), session.tracks_inflight(), rings).map_err(|obstacle| {
            error!("{}: {obstacle}", self.name);
            Failure::Refused
        })
    }
}
