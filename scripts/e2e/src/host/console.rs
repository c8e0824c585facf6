// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The console: one UART on which Xen and all domains print, and one input focus.
//!
//! Xen prints the output of a domain without the focus by whole lines, with the prefix `(XEN) DOM1: `. Xen
//! therefore has the focus, except while input is sent to a domain. It prints each change of the focus
//! (xen/drivers/char/console.c), so input for the wrong domain is noticed.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Ctrl-a three times, which moves the focus to the next domain, and from the last one to Xen.
const SWITCH: &[u8] = b"\x01\x01\x01";
const FOCUS_MESSAGE: &str = "*** Serial input to ";
const FROM_DOMAIN: &str = "(XEN) DOM";
const FROM_XEN: &str = "(XEN) ";
/// A number that exceeds that of the domains of each test, with Xen as one.
const MOST_DOMAINS: usize = 16;
/// The limit for Xen to print where the focus is.
const FOCUS_LIMIT: Duration = Duration::from_secs(20);

/// The origin of a line, or the receiver of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// Xen.
    Xen,
    /// The domain with this domid.
    Domain(u16),
    /// Not known: a domain that had the focus, or firmware that runs before Xen.
    Unknown,
}

/// One line of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The domain that printed the line, or Xen.
    pub from: Party,
    /// The text without Xen's prefix.
    pub text: String,
}

impl Display for Line {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.from {
            Party::Xen => write!(formatter, "  Xen  {}", self.text),
            Party::Domain(number) => write!(formatter, "  d{number}   {}", self.text),
            Party::Unknown => write!(formatter, "  ?    {}", self.text),
        }
    }
}

impl Line {
    /// Parses one line of the UART. It has two lines if another domain's line interrupted that of the domain
    /// with the focus.
    fn parse(raw: &str) -> Vec<Self> {
        let line = |from, text: &str| Self { from, text: text.to_owned() };
        if let Some((before, after)) = raw.rsplit_once(FROM_DOMAIN)
            && let Some((number, text)) = after.split_once(": ")
            && let Ok(number) = number.parse()
        {
            let before = before.trim_start_matches(FROM_XEN);
            let first = (!before.is_empty()).then(|| line(Party::Unknown, before));
            return first.into_iter().chain([line(Party::Domain(number), text)]).collect();
        }
        match raw.strip_prefix(FROM_XEN) {
            Some(text) => vec![line(Party::Xen, text)],
            None => vec![line(Party::Unknown, raw)],
        }
    }

    /// Returns where the focus is, if this is Xen's message about that.
    pub(super) fn focus(&self) -> Option<Party> {
        let (_, to) = self.text.rsplit_once(FOCUS_MESSAGE)?;
        if to.starts_with("Xen") {
            return Some(Party::Xen);
        }
        let number = to.strip_prefix("DOM")?.split(|digit: char| !digit.is_ascii_digit()).next()?;
        Some(Party::Domain(number.parse().ok()?))
    }
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    partial: Vec<u8>,
    focus: Option<Party>,
    switches: usize,
    ended: bool,
    tap: Option<Box<dyn Write + Send>>,
}

/// The console of one machine.
pub struct Console {
    state: Mutex<State>,
    changed: Condvar,
    keyboard: Mutex<Keyboard>,
}

struct Keyboard {
    output: Box<dyn Write + Send>,
    /// The domains that get the focus, in this order. [`None`] until they are known.
    cycle: Option<Vec<u16>>,
}

impl Console {
    /// Reads `input` to its end in a thread of its own, and writes it to the file `log`.
    ///
    /// # Errors
    /// Returns an error if the log cannot be created.
    pub fn new(
        mut input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
        log: &Path,
    ) -> Result<Arc<Self>> {
        let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let keyboard = Mutex::new(Keyboard { output: Box::new(output), cycle: None });
        let state = Mutex::new(State::default());
        let console = Arc::new(Self { state, changed: Condvar::new(), keyboard });
        let reader = Arc::clone(&console);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = input.read(&mut buffer) {
                let bytes = buffer.get(..count).unwrap_or_default();
                // The tests do not need the log: they continue without it.
                let _ = log.write_all(bytes);
                reader.take(bytes);
            }
            reader.lock().ended = true;
            reader.changed.notify_all();
        });
        Ok(console)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if let Some(tap) = &mut state.tap {
            let _ = tap.write_all(bytes).and_then(|()| tap.flush());
        }
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let raw = std::mem::take(&mut state.partial);
                    for line in Line::parse(&String::from_utf8_lossy(&raw)) {
                        if let Some(focus) = line.focus() {
                            state.focus = Some(focus);
                            state.switches += 1;
                        }
                        state.lines.push(line);
                    }
                }
                b'\r' => {}
                _ => state.partial.push(byte),
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Returns the number of lines so far.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.lock().lines.len()
    }

    /// Returns the lines from `mark` on.
    #[must_use]
    pub fn since(&self, mark: usize) -> Vec<Line> {
        self.lock().lines.iter().skip(mark).cloned().collect()
    }

    /// Returns the lines of `party`.
    #[must_use]
    pub fn lines_of(&self, party: Party) -> Vec<String> {
        self.lock().lines.iter().filter(|line| line.from == party).map(|line| line.text.clone()).collect()
    }

    /// Waits for the first line from `mark` on for which `wanted` returns a value. Returns the value and the
    /// mark after the line, or [`None`] after `limit`.
    ///
    /// # Errors
    /// Returns an error if the console ends.
    pub fn wait<T>(
        &self,
        mark: usize,
        limit: Duration,
        mut wanted: impl FnMut(&Line) -> Option<T>,
    ) -> Result<Option<(T, usize)>> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        let mut next = mark;
        loop {
            while let Some(line) = state.lines.get(next) {
                next += 1;
                if let Some(found) = wanted(line) {
                    return Ok(Some((found, next)));
                }
            }
            ensure!(!state.ended, "the console has ended: QEMU has ended");
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return Ok(None);
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends `text` to a domain. Before and after that Xen has the focus.
    ///
    /// # Errors
    /// Returns an error if Xen does not move the focus there.
    pub fn type_to(&self, domain: u16, text: &[u8]) -> Result<()> {
        let mut keyboard = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        if keyboard.cycle.is_none() {
            self.learn_cycle(&mut keyboard)?;
        }
        let cycle = keyboard.cycle.clone().unwrap_or_default();
        let place = cycle.iter().position(|&number| number == domain);
        let place = place.with_context(|| format!("domain {domain} does not get the console's focus"))?;
        let switches = self.lock().switches;
        let burst = [SWITCH.repeat(place + 1), text.to_vec(), SWITCH.repeat(cycle.len() - place)].concat();
        keyboard.output.write_all(&burst)?;
        keyboard.output.flush()?;
        let arrived = self.wait_focus(switches + cycle.len() + 1)?;
        if arrived != Some(Party::Xen) {
            // A domain was created or has ended. The input is lost, so the sender gets no answer and repeats
            // it.
            self.learn_cycle(&mut keyboard)?;
        }
        Ok(())
    }

    /// Sends debug keys to Xen.
    ///
    /// # Errors
    /// Returns an error if Xen does not get the focus.
    pub fn type_to_xen(&self, text: &[u8]) -> Result<()> {
        let mut keyboard = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock().focus != Some(Party::Xen) {
            self.learn_cycle(&mut keyboard)?;
        }
        keyboard.output.write_all(text)?;
        Ok(keyboard.output.flush()?)
    }

    /// Moves the focus until Xen had it twice, and stores the domains between.
    fn learn_cycle(&self, keyboard: &mut Keyboard) -> Result<()> {
        let mut cycle = None;
        for _ in 0..2 * MOST_DOMAINS {
            match (self.switch(keyboard)?, &mut cycle) {
                (Party::Xen, None) => cycle = Some(Vec::new()),
                (Party::Xen, Some(_)) => {
                    keyboard.cycle = cycle;
                    return Ok(());
                }
                (Party::Domain(number), Some(cycle)) => cycle.push(number),
                _ => {}
            }
        }
        bail!("the console's focus does not return to Xen")
    }

    /// Moves the focus once, and returns where it is.
    fn switch(&self, keyboard: &mut Keyboard) -> Result<Party> {
        let switches = self.lock().switches;
        keyboard.output.write_all(SWITCH)?;
        keyboard.output.flush()?;
        let arrived = self.wait_focus(switches + 1)?;
        arrived.context("Xen does not print where the console's focus is")
    }

    /// Waits until the focus has moved `count` times in all, and returns where it is then. Returns [`None`]
    /// after [`FOCUS_LIMIT`].
    fn wait_focus(&self, count: usize) -> Result<Option<Party>> {
        let state = self.lock();
        let waiting = |state: &mut State| state.switches < count && !state.ended;
        let waited = self.changed.wait_timeout_while(state, FOCUS_LIMIT, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(!state.ended, "the console has ended: QEMU has ended");
        Ok(state.focus.filter(|_| state.switches >= count))
    }

    /// Gives a domain the focus, and copies its output to `output` and `input` to it, until `input` returns
    /// [`None`]. Then Xen has the focus again.
    ///
    /// # Errors
    /// Returns an error if Xen does not move the focus, or the input cannot be read.
    pub fn hand_over(
        &self,
        domain: u16,
        mut input: impl FnMut() -> Result<Option<Vec<u8>>>,
        output: impl Write + Send + 'static,
    ) -> Result<()> {
        let mut keyboard = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        while self.switch(&mut keyboard)? != Party::Domain(domain) {}
        self.lock().tap = Some(Box::new(output));
        let copied = loop {
            match input() {
                Ok(None) => break Ok(()),
                Ok(Some(bytes)) => {
                    // Keyboard input fits the UART's FIFO of 32 characters.
                    keyboard.output.write_all(&bytes)?;
                    keyboard.output.flush()?;
                }
                Err(error) => break Err(error),
            }
        };
        self.lock().tap = None;
        while self.switch(&mut keyboard)? != Party::Xen {}
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_of_a_line_is_parsed() {
        let domain = |number, text: &str| Line { from: Party::Domain(number), text: text.to_owned() };
        let other = |from, text: &str| Line { from, text: text.to_owned() };
        assert_eq!(Line::parse("(XEN) DOM2: [    1.0] hello: you"), [domain(2, "[    1.0] hello: you")]);
        assert_eq!(Line::parse("(XEN) Xen version 4.20"), [other(Party::Xen, "Xen version 4.20")]);
        assert_eq!(Line::parse("UEFI"), [other(Party::Unknown, "UEFI")]);
        assert_eq!(
            Line::parse("(XEN) ab(XEN) DOM10: x"),
            [other(Party::Unknown, "ab"), domain(10, "x")],
            "characters of the domain with the focus, interrupted by a line of another"
        );
    }

    #[test]
    fn focus_is_parsed_from_xens_message() {
        let focus = |text: &str| Line { from: Party::Xen, text: text.to_owned() }.focus();
        assert_eq!(
            focus("*** Serial input to DOM2 (type 'CTRL-a' three times to switch input)"),
            Some(Party::Domain(2))
        );
        assert_eq!(
            focus("*** Serial input to Xen (type 'CTRL-a' three times to switch input)"),
            Some(Party::Xen)
        );
        assert_eq!(focus("*** Serial input to DOM2(XEN) avc: denied"), Some(Party::Domain(2)));
        assert_eq!(focus("*** Serial output"), None);
    }
}
