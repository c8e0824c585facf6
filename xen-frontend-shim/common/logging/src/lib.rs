// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The log of each process of the driver domain: one line for each message on standard error, with the name
//! of the process.
//!
//! A guest can cause messages, and a slow console delays the process that writes them. So the rate of each
//! call site is limited: a burst, then one message for each period with the number of those that were
//! dropped. The limit is in the logger, so that no call site can lack it.

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use env_logger::{Builder, Env};
use log::{Level, Record};
use rustix::fs::{FileType, fstat};

/// The default of RUST_LOG. virtio-queue logs each mistake of a guest as an error; the backend logs those
/// that matter.
const FILTER: &str = "info,virtio_queue=off";
/// The number of messages of a call site that are logged at any rate.
const BURST: u32 = 10;
/// The time after which one more message is logged.
const PERIOD: Duration = Duration::from_secs(10);

/// Starts the log of this process, with `name` before each message. RUST_LOG sets the levels. The levels
/// debug and trace are not limited.
pub fn start(name: Option<&str>) {
    let prefix = name.map(|name| format!("{name}: ")).unwrap_or_default();
    let limiter = Mutex::new(Limiter::default());
    Builder::from_env(Env::default().default_filter_or(FILTER))
        .format(move |out, record| {
            let (level, message) = (record.level(), record.args());
            let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
            match limiter.check(record, Instant::now()) {
                Decision::Drop => return Ok(()),
                Decision::Log { dropped: 0 } => {}
                Decision::Log { dropped } => {
                    writeln!(out, "{level:<5} {prefix}{dropped} messages like the next one were not logged")?;
                }
            }
            writeln!(out, "{level:<5} {prefix}{message}")
        })
        .init();
}

/// Whether the log goes to a file.
#[must_use]
pub fn is_to_file() -> bool {
    fstat(stderr()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Drop the message.
    Drop,
    /// Log the message, after this number of dropped ones of its call site.
    Log { dropped: u32 },
}

/// The token buckets of all call sites.
#[derive(Default)]
struct Limiter(BTreeMap<CallSite, TokenBucket>);

type CallSite = (Option<&'static str>, Option<u32>);

/// The token bucket of a call site.
struct TokenBucket {
    tokens: u32,
    /// The time of the last added token, or of the last message while the bucket is full.
    since: Instant,
    dropped: u32,
}

impl Limiter {
    fn check(&mut self, record: &Record<'_>, now: Instant) -> Decision {
        if record.level() > Level::Info {
            return Decision::Log { dropped: 0 };
        }
        let call_site = (record.file_static(), record.line());
        self.0.entry(call_site).or_insert(TokenBucket { tokens: BURST, since: now, dropped: 0 }).check(now)
    }
}

impl TokenBucket {
    fn check(&mut self, now: Instant) -> Decision {
        while self.tokens < BURST && now.duration_since(self.since) >= PERIOD {
            self.tokens += 1;
            self.since += PERIOD;
        }
        if self.tokens == BURST {
            self.since = now;
        }
        let Some(tokens) = self.tokens.checked_sub(1) else {
            self.dropped = self.dropped.saturating_add(1);
            return Decision::Drop;
        };
        self.tokens = tokens;
        Decision::Log { dropped: std::mem::take(&mut self.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(limiter: &mut Limiter, level: Level, line: u32, now: Instant) -> Decision {
        let mut record = Record::builder();
        record.level(level).file_static(Some("queue.rs")).line(Some(line));
        limiter.check(&record.build(), now)
    }

    #[test]
    fn call_site_logs_a_burst_and_then_one_message_per_period() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let logged = Decision::Log { dropped: 0 };
        for _ in 0..BURST {
            assert_eq!(at(&mut limiter, Level::Error, 1, start), logged);
        }
        for _ in 0..3 {
            assert_eq!(at(&mut limiter, Level::Error, 1, start), Decision::Drop);
        }
        assert_eq!(at(&mut limiter, Level::Warn, 2, start), logged, "another call site");
        let later = start + PERIOD;
        assert_eq!(at(&mut limiter, Level::Error, 1, later), Decision::Log { dropped: 3 });
        assert_eq!(at(&mut limiter, Level::Error, 1, later), Decision::Drop);
        let much_later = later + 1000 * PERIOD;
        assert_eq!(at(&mut limiter, Level::Error, 1, much_later), Decision::Log { dropped: 1 });
        for _ in 1..BURST {
            assert_eq!(at(&mut limiter, Level::Error, 1, much_later), logged);
        }
        assert_eq!(
            at(&mut limiter, Level::Error, 1, much_later),
            Decision::Drop,
            "a bucket holds no more than a burst"
        );
    }

    #[test]
    fn debug_messages_are_not_limited() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for _ in 0..=BURST {
            assert_eq!(at(&mut limiter, Level::Debug, 1, start), Decision::Log { dropped: 0 });
        }
    }
}
