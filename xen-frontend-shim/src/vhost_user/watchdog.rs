// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A bound on how long a call to a backend may take.
//!
//! A receive timeout on the socket would not do: the vhost crate takes it for an interruption and tries again. So a
//! thread shuts the connection down when a call has taken too long, upon which the call fails and the backend counts
//! as lost.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The thread needs little more than its own frames.
const STACK: usize = 64 * 1024;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a backend to come up and say what it can do.
    pub connect: Duration,
    /// For one call to a backend that runs: meanwhile, a vCPU waits.
    pub call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), call: Duration::from_secs(5) }
    }
}

/// What is being waited for.
#[derive(Debug)]
struct Armed {
    deadline: Instant,
    socket: Arc<UnixStream>,
    fired: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Shared {
    armed: Mutex<Option<Armed>>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watchdog of one worker, which makes one call at a time.
#[derive(Clone, Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
    limits: Limits,
}

impl Watchdog {
    /// Starts the thread, which lives as long as the process.
    pub fn start(limits: Limits) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        thread::Builder::new().name("watchdog".into()).stack_size(STACK).spawn(move || watch(&watched))?;
        Ok(Self { shared, limits })
    }

    /// How long things may take.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Bounds what is done with `socket` until the guard is dropped.
    #[must_use]
    pub fn arm(&self, socket: &Arc<UnixStream>, limit: Duration) -> Guard {
        let fired = Arc::new(AtomicBool::new(false));
        let armed =
            Armed { deadline: Instant::now() + limit, socket: Arc::clone(socket), fired: Arc::clone(&fired) };
        *self.shared.lock() = Some(armed);
        self.shared.changed.notify_one();
        Guard { shared: Arc::clone(&self.shared), fired }
    }
}

/// A call in progress.
#[derive(Debug)]
pub struct Guard {
    shared: Arc<Shared>,
    fired: Arc<AtomicBool>,
}

impl Guard {
    /// Whether the call took too long.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.shared.lock() = None;
    }
}

/// Sleeps to the deadline of whatever is armed, for ever if nothing is.
fn watch(shared: &Shared) {
    let mut armed = shared.lock();
    loop {
        let Some(current) = &*armed else {
            armed = shared.changed.wait(armed).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = current.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            current.fired.store(true, Ordering::Release);
            // It can only fail if the connection is down already.
            let _ = current.socket.shutdown(Shutdown::Both);
            *armed = None;
        } else {
            let waited = shared.changed.wait_timeout(armed, left);
            armed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_read_that_would_wait_for_ever_ends() {
        let watchdog = Watchdog::start(Limits::default()).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(ours);
        let guard = watchdog.arm(&ours, Duration::from_millis(20));
        assert_eq!((&*ours).read(&mut [0]).unwrap(), 0);
        assert!(guard.has_fired());
    }

    #[test]
    fn a_call_that_returns_in_time_is_left_alone() {
        let watchdog = Watchdog::start(Limits::default()).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(ours);
        for _ in 0..100 {
            let guard = watchdog.arm(&ours, Duration::from_secs(60));
            assert!(!guard.has_fired());
        }
        (&theirs).write_all(&[7]).unwrap();
        let mut byte = [0];
        (&*ours).read_exact(&mut byte).unwrap();
        assert_eq!(byte, [7]);
    }
}
