// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals as events: the supervisor has to take back from the kernel what it gave it before it goes, and reads its
//! configuration again between two other things.

use std::io;
use std::sync::OnceLock;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::register_signal_handler;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

static TERMINATION: OnceLock<EventFd> = OnceLock::new();
static RELOAD: OnceLock<EventFd> = OnceLock::new();

/// An eventfd that is signalled when the process is to end: SIGTERM, SIGINT.
pub(super) fn termination() -> io::Result<&'static EventFd> {
    event(&TERMINATION, &[SIGINT, SIGTERM])
}

/// An eventfd that is signalled when the configuration is to be read again: SIGHUP.
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
        // A write(2) and nothing else, as a signal handler must.
        let _ = eventfd.write(1);
    }
}
