// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SIGTERM and SIGINT as an event: the supervisor has to take back from the kernel what it gave it before it goes.

use std::io;
use std::sync::OnceLock;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::register_signal_handler;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

static TERMINATION: OnceLock<EventFd> = OnceLock::new();

/// An eventfd that is signalled when the process is to end.
pub(super) fn termination() -> io::Result<&'static EventFd> {
    let created = EventFd::new(EFD_NONBLOCK)?;
    let eventfd = TERMINATION.get_or_init(|| created);
    for signal in [SIGINT, SIGTERM] {
        register_signal_handler(signal, on_signal).map_err(io::Error::from)?;
    }
    Ok(eventfd)
}

extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(eventfd) = TERMINATION.get() {
        // A write(2) and nothing else, as a signal handler must.
        let _ = eventfd.write(1);
    }
}
