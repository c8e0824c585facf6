// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals as readable descriptors, so that they are handled between other events: the supervisor deassigns
//! its ioeventfds before it ends, and reads its configuration again.

use std::io;
use std::sync::OnceLock;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::register_signal_handler;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

static TERMINATION: OnceLock<EventFd> = OnceLock::new();
static RELOAD: OnceLock<EventFd> = OnceLock::new();

/// The eventfd that SIGTERM and SIGINT signal.
pub(super) fn termination() -> io::Result<&'static EventFd> {
    event(&TERMINATION, &[SIGINT, SIGTERM])
}

/// The eventfd that SIGHUP signals.
pub(super) fn reload() -> io::Result<&'static EventFd> {
    event(&RELOAD, &[SIGHUP])
}

fn event(place: &'static OnceLock<EventFd>, signals: &[i32]) -> io::Result<&'static EventFd> {
    if let Some(eventfd) = place.get() {
        return Ok(eventfd);
    }
    let created = EventFd::new(EFD_NONBLOCK)?;
    let eventfd = place.get_or_init(|| created);
    for signal in signals {
        register_signal_handler(*signal, on_signal).map_err(io::Error::from)?;
    }
    Ok(eventfd)
}

extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let place = if signal == SIGHUP { &RELOAD } else { &TERMINATION };
    if let Some(eventfd) = place.get() {
        // This is one write(2), which is async-signal-safe.
        let _ = eventfd.write(1);
    }
}
