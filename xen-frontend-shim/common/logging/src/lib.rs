// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The log of each process of the driver domain: to standard error, a line for each message, with a name in front that
//! says whose it is.
//!
//! A guest can cause messages, and each may go out over a slow UART while everybody waits: a place in the source says some
//! at once, then one in a while, and how many more there would have been. The limit is here, and not where messages are
//! made, so that none can be forgotten.

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use env_logger::{Builder, Env};
use log::{Level, Record};
use rustix::fs::{FileType, fstat};

/// What is logged unless RUST_LOG says otherwise. virtio-queue reports every mistake of a guest as an error of ours; what is
/// to be said of it, the backend says.
const FILTER: &str = "info,virtio_queue=off";
/// So many messages of a place are said however fast they come.
const BURST: u32 = 10;
/// And one more for each of these.
const PERIOD: Duration = Duration::from_secs(10);

/// Starts the log of this process. `name` says whose messages these are; RUST_LOG sets what is logged. What is for debugging
/// is not limited.
pub fn start(name: Option<&str>) {
    let prefix = name.map(|name| format!("{name}: ")).unwrap_or_default();
    let limiter = Mutex::new(Limiter::default());
    Builder::from_env(Env::default().default_filter_or(FILTER))
        .format(move |out, record| {
            let (level, message) = (record.level(), record.args());
            let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
            match limiter.judge(record, Instant::now()) {
                Verdict::Drop => return Ok(()),
                Verdict::Say { dropped: 0 } => {}
                Verdict::Say { dropped } => {
                    writeln!(out, "{level:<5} {prefix}{dropped} messages like the next one were not logged")?;
                }
            }
            writeln!(out, "{level:<5} {prefix}{message}")
        })
        .init();
}

/// Whether what is logged makes a file grow.
#[must_use]
pub fn is_to_file() -> bool {
    fstat(stderr()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is one of too many.
    Drop,
    /// It is said, after so many of its place that were not.
    Say { dropped: u32 },
}

/// What each place in the source may still say. There are as many as the program has.
#[derive(Default)]
struct Limiter(BTreeMap<Place, Allowance>);

type Place = (Option<&'static str>, Option<u32>);

/// A token bucket.
struct Allowance {
    left: u32,
    /// When `left` last grew, or could have.
    since: Instant,
    dropped: u32,
}

impl Limiter {
    fn judge(&mut self, record: &Record<'_>, now: Instant) -> Verdict {
        if record.level() > Level::Info {
            return Verdict::Say { dropped: 0 };
        }
        let place = (record.file_static(), record.line());
        self.0.entry(place).or_insert(Allowance { left: BURST, since: now, dropped: 0 }).judge(now)
    }
}

impl Allowance {
    fn judge(&mut self, now: Instant) -> Verdict {
        while self.left < BURST && now.duration_since(self.since) >= PERIOD {
            self.left += 1;
            self.since += PERIOD;
        }
        if self.left == BURST {
            self.since = now;
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.dropped = self.dropped.saturating_add(1);
            return Verdict::Drop;
        };
        self.left = left;
        Verdict::Say { dropped: std::mem::take(&mut self.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(limiter: &mut Limiter, level: Level, line: u32, now: Instant) -> Verdict {
        let mut record = Record::builder();
        record.level(level).file_static(Some("queue.rs")).line(Some(line));
        limiter.judge(&record.build(), now)
    }

    #[test]
    fn a_place_says_some_and_then_one_in_a_while() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let said = Verdict::Say { dropped: 0 };
        for _ in 0..BURST {
            assert_eq!(at(&mut limiter, Level::Error, 1, start), said);
        }
        for _ in 0..3 {
            assert_eq!(at(&mut limiter, Level::Error, 1, start), Verdict::Drop);
        }
        assert_eq!(at(&mut limiter, Level::Warn, 2, start), said, "another place");
        let later = start + PERIOD;
        assert_eq!(at(&mut limiter, Level::Error, 1, later), Verdict::Say { dropped: 3 });
        assert_eq!(at(&mut limiter, Level::Error, 1, later), Verdict::Drop);
        let much_later = later + 1000 * PERIOD;
        assert_eq!(at(&mut limiter, Level::Error, 1, much_later), Verdict::Say { dropped: 1 });
        for _ in 1..BURST {
            assert_eq!(at(&mut limiter, Level::Error, 1, much_later), said);
        }
        assert_eq!(
            at(&mut limiter, Level::Error, 1, much_later),
            Verdict::Drop,
            "quiet is not saved up for ever"
        );
    }

    #[test]
    fn what_is_for_debugging_is_not_limited() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for _ in 0..=BURST {
            assert_eq!(at(&mut limiter, Level::Debug, 1, start), Verdict::Say { dropped: 0 });
        }
    }
}
