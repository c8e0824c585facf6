// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of the exchange between host and agent, over a console that loses and damages characters and
//! interleaves lines.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use e2e::agent::Agent;
use e2e::host::channel::Channel;
use e2e::host::console::Console;
use e2e::request::End;

const LIMIT: Duration = Duration::from_secs(20);

/// A model of Xen's console with agents in the domains 1 and 2. One of `damage` lines is damaged in each of
/// three ways, and one of 25 times as many input characters is lost. With 0, none is.
struct FakeXen {
    output: Mutex<UnixStream>,
    /// The state of a pseudo-random generator.
    random: Mutex<u64>,
    damage: u64,
}

impl FakeXen {
    fn start(damage: u64) -> Arc<Console> {
        let (host_input, output) = UnixStream::pair().unwrap();
        let (host_output, keyboard) = UnixStream::pair().unwrap();
        let xen = Arc::new(Self { output: Mutex::new(output), random: Mutex::new(1), damage });
        let domains: Vec<UnixStream> = (1..=2).map(|domain| xen.start_domain(domain)).collect();
        thread::spawn(move || xen.serve_keyboard(keyboard, &domains));
        let log = tempfile::NamedTempFile::new().unwrap();
        Console::new(host_input, host_output, log.path()).unwrap()
    }

    fn start_domain(self: &Arc<Self>, domain: u16) -> UnixStream {
        let (console, inside) = UnixStream::pair().unwrap();
        thread::spawn(move || Agent::new(inside, domain * 1000).unwrap().serve());
        let (xen, reader) = (Arc::clone(self), console.try_clone().unwrap());
        thread::spawn(move || xen.print_domain(domain, reader));
        console
    }

    /// Returns true at random, once in `one_in` times, and never if that is 0.
    fn is_damaged(&self, one_in: u64) -> bool {
        let mut random = self.random.lock().unwrap();
        *random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        one_in != 0 && (*random >> 33).is_multiple_of(one_in)
    }

    fn print(&self, text: &str) {
        self.output.lock().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Prints the lines of a domain: damaged by another domain's line, a lost prefix or a lost half, or
    /// intact.
    fn print_domain(&self, domain: u16, mut reader: UnixStream) {
        let mut line = String::new();
        let mut byte = [0];
        while reader.read(&mut byte).unwrap_or(0) == 1 {
            if byte[0] != b'\n' {
                line.push(byte[0].into());
                continue;
            }
            assert!(line.len() < 126, "Xen would cut {line}");
            let line = std::mem::take(&mut line);
            let (left, right) = line.split_at(line.len() / 2);
            if self.is_damaged(self.damage) {
                self.print(&format!("(XEN) DOM{domain}: {left}"));
                self.print(&format!("(XEN) DOM{}: it is me\n{right}\n", 3 - domain));
            } else if self.is_damaged(self.damage) {
                self.print(&format!("{left}{right}\n"));
            } else if self.is_damaged(self.damage) {
                self.print(&format!("(XEN) DOM{domain}: {right}\n"));
            } else {
                self.print(&format!("(XEN) DOM{domain}: {left}{right}\n"));
            }
        }
    }

    /// Passes input to the domain with the focus, and moves the focus.
    fn serve_keyboard(&self, mut keyboard: UnixStream, domains: &[UnixStream]) {
        let (mut focus, mut switches) = (0, 0);
        let mut byte = [0];
        while keyboard.read(&mut byte).unwrap_or(0) == 1 {
            if byte[0] == 1 {
                switches += 1;
                if switches == 3 {
                    (focus, switches) = ((focus + 1) % (domains.len() + 1), 0);
                    let name = if focus == 0 { "Xen".to_owned() } else { format!("DOM{focus}") };
                    self.print(&format!("(XEN) *** Serial input to {name} (type 'CTRL-a' three times)\n"));
                }
            } else if let Some(mut domain) = focus.checked_sub(1).map(|place| &domains[place])
                && (byte[0] == b'\n' || !self.is_damaged(self.damage * 25))
            {
                domain.write_all(&byte).unwrap();
            }
        }
    }
}

#[test]
fn program_runs_and_its_output_is_returned() {
    let channel = Channel::new(FakeXen::start(0), 1);
    let output = channel.run(&["sh", "-c", "echo out; echo err >&2; exit 3"], LIMIT).unwrap();
    assert_eq!((output.text().as_str(), output.error_text().as_str()), ("out", "err"));
    assert_eq!(output.end, End::Exited(3));
    assert!(channel.check(&["false"], LIMIT).is_err());
    assert!(channel.run(&["/does/not/exist"], LIMIT).is_err());
}

#[test]
fn program_that_exceeds_its_limit_is_killed() {
    let channel = Channel::new(FakeXen::start(0), 1);
    let output = channel.run(&["sh", "-c", "echo here; sleep 1000"], Duration::from_millis(300)).unwrap();
    assert_eq!((output.end, output.text().as_str()), (End::TimedOut, "here"));
}

#[test]
fn background_program_is_polled_and_killed() {
    let channel = Channel::new(FakeXen::start(0), 2);
    let watched = channel.start(&["sh", "-c", "echo ready; sleep 1000"]).unwrap();
    let output = watched.look_until(LIMIT, |output| output.text() == "ready").unwrap();
    assert_eq!(output.end, End::Running);
    drop(watched);
    assert!(channel.check(&["echo", "still here"], LIMIT).is_ok());
}

#[test]
fn answers_are_correct_over_a_damaged_and_interleaved_console() {
    let console = FakeXen::start(40);
    let channels = [1, 2].map(|domain| Channel::new(Arc::clone(&console), domain));
    thread::scope(|scope| {
        for (place, channel) in channels.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..3 {
                    let from = (place * 100 + round).to_string();
                    let text = channel.check(&["seq", &from, "500"], LIMIT).unwrap();
                    let expected: Vec<String> = (place * 100 + round..=500).map(|n| n.to_string()).collect();
                    assert_eq!(text, expected.join("\n"));
                }
            });
        }
    });
}
