// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::sync::{Arc, Mutex};

use super::*;
use crate::console::spec::TRANSMIT_QUEUE;

/// What a test sees of a source.
#[derive(Default)]
struct Seen {
    pieces: VecDeque<Result<String, io::ErrorKind>>,
    requests: Vec<String>,
    awaited: bool,
    reads: usize,
    resets: usize,
}

/// A source that returns one piece at each read.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<Seen>>);

impl Pieces {
    fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    fn add(&self, text: &str) {
        self.with(|seen| seen.pieces.push_back(Ok(text.into())));
    }
}

impl Source for Pieces {
    fn read(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        self.with(|seen| {
            seen.reads += 1;
            let piece = seen.pieces.pop_front().transpose()?;
            text.extend_from_slice(piece.unwrap_or_default().as_bytes());
            Ok(())
        })
    }

    fn watch(&mut self, _: &Watcher) -> io::Result<()> {
        Ok(())
    }

    fn set_awaited(&mut self, awaited: bool) -> io::Result<()> {
        self.with(|seen| seen.awaited = awaited);
        Ok(())
    }

    fn request(&mut self, line: &[u8]) -> io::Result<()> {
        let line = String::from_utf8_lossy(line).into_owned();
        self.with(|seen| seen.requests.push(line));
        Ok(())
    }

    fn reset(&mut self) {
        self.with(|seen| seen.resets += 1);
    }
}

/// A console and its source.
struct Bench {
    console: Console,
    source: Pieces,
}

impl Bench {
    fn new() -> Self {
        let source = Pieces::default();
        Self { console: Console::new(Box::new(source.clone())), source }
    }

    fn process(&mut self, queue: usize, chains: Vec<Chain>) -> Vec<String> {
        let (mut chains, mut finished) = (chains, Vec::new());
        self.console.process(queue, &mut chains, &mut finished);
        assert!(chains.is_empty());
        texts(&finished)
    }

    fn post(&mut self, rooms: &[usize]) -> Vec<String> {
        self.process(RECEIVE_QUEUE, rooms.iter().map(|room| buffer(*room)).collect())
    }

    fn write(&mut self, text: &str) -> Vec<String> {
        self.process(TRANSMIT_QUEUE, vec![Chain::detached(TRANSMIT_QUEUE, text.as_bytes(), 0)])
    }

    /// The source has more text.
    fn event(&mut self) -> Vec<String> {
        let mut finished = Vec::new();
        self.console.handle_event(0, &mut finished);
        texts(&finished)
    }
}

fn buffer(room: usize) -> Chain {
    Chain::detached(RECEIVE_QUEUE, &[], room)
}

fn texts(chains: &[Chain]) -> Vec<String> {
    chains.iter().map(|chain| String::from_utf8_lossy(chain.answer()).into_owned()).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_buffer_waits_until_there_is_text() {
    let mut bench = Bench::new();
    assert_eq!(bench.post(&[100, 100]), NOTHING);
    assert!(bench.source.with(|seen| seen.awaited));
    bench.source.add("one\n");
    bench.source.add("two\n");
    assert_eq!(bench.event(), ["one\ntwo\n"], "text that is there shares a buffer");
    bench.source.add("three\n");
    assert_eq!(bench.event(), ["three\n"]);
    assert!(!bench.source.with(|seen| seen.awaited), "no buffer is left");
}

/// A guest that does not read costs no memory.
#[test]
fn without_a_buffer_the_source_is_not_read() {
    let mut bench = Bench::new();
    bench.source.add("one\n");
    assert_eq!(bench.event(), NOTHING);
    assert_eq!(bench.source.with(|seen| (seen.reads, seen.awaited)), (0, false));
    assert_eq!(bench.post(&[100]), ["one\n"]);
}

#[test]
fn text_is_cut_to_the_room_of_the_buffers() {
    let mut bench = Bench::new();
    bench.source.add("abcdefgh");
    assert_eq!(bench.post(&[3]), ["abc"]);
    assert_eq!(bench.post(&[1, 100]), ["d", "efgh"]);
    bench.source.add(&"a".repeat(2 * FILL_MAX + 1));
    let lengths: Vec<_> = bench.post(&[BUFFER_MAX; 4]).iter().map(String::len).collect();
    assert_eq!(lengths, [FILL_MAX, FILL_MAX, 1]);
}

/// 5.3.6.1: a driver must not put a device-readable buffer there.
#[test]
fn a_receive_buffer_without_room_is_returned_alone() {
    let mut bench = Bench::new();
    bench.source.add("one\n");
    assert_eq!(bench.post(&[0, 100, 0]), ["", "", "one\n"]);
    let readable = Chain::detached(RECEIVE_QUEUE, b"json\n", 0);
    assert_eq!(bench.process(RECEIVE_QUEUE, vec![readable]), [""]);
    assert_eq!(bench.source.with(|seen| seen.requests.len()), 0);
}

/// A driver can make the same descriptor available again and again.
#[test]
fn more_buffers_than_the_ring_has_entries_are_returned() {
    let mut bench = Bench::new();
    for _ in 0..SIZE {
        assert_eq!(bench.post(&[10]), NOTHING);
    }
    assert_eq!(bench.post(&[10, 10]), ["", ""]);
    bench.source.add("a");
    assert_eq!(bench.event(), ["a"]);
    assert_eq!(bench.post(&[10]), NOTHING);
}

#[test]
fn lines_of_the_driver_are_requests() {
    let mut bench = Bench::new();
    assert_eq!(bench.write("json\nopen"), [""]);
    assert_eq!(bench.write("metrics\n"), [""]);
    assert_eq!(bench.source.with(|seen| seen.requests.clone()), ["json", "openmetrics"]);
}

#[test]
fn a_request_that_a_former_daemon_took_is_not_repeated() {
    let mut bench = Bench::new();
    let taken = Chain::detached(TRANSMIT_QUEUE, b"json\n", 0).after_interruption();
    assert_eq!(bench.process(TRANSMIT_QUEUE, vec![taken]), [""]);
    assert_eq!(bench.source.with(|seen| seen.requests.len()), 0);
}

#[test]
fn a_buffer_that_a_former_daemon_kept_is_filled() {
    let mut bench = Bench::new();
    bench.source.add("one\n");
    assert_eq!(bench.process(RECEIVE_QUEUE, vec![buffer(9).after_interruption()]), ["one\n"]);
}

#[test]
fn a_pause_returns_the_buffers_and_keeps_the_text() {
    let mut bench = Bench::new();
    bench.source.add("abcdef");
    assert_eq!(bench.post(&[3]), ["abc"]);
    assert_eq!(bench.write("js"), [""]);
    assert_eq!(bench.post(&[1]), ["d"]);
    bench.source.with(|seen| seen.pieces.clear());
    let mut finished = Vec::new();
    bench.console.stop(TRANSMIT_QUEUE, QueueStop::QueueOnly, &mut finished);
    bench.console.stop(RECEIVE_QUEUE, QueueStop::QueueOnly, &mut finished);
    bench.console.start(RECEIVE_QUEUE, QueueStart::SameDriver);
    assert_eq!(bench.post(&[100]), ["ef"]);
    assert_eq!(bench.post(&[100, 100]), NOTHING);
    bench.console.stop(RECEIVE_QUEUE, QueueStop::MaybeReset, &mut finished);
    assert_eq!(texts(&finished), ["", ""]);
    assert!(!bench.source.with(|seen| seen.awaited));
    bench.write("on\n");
    assert_eq!(bench.source.with(|seen| seen.requests.clone()), ["json"]);
}

#[test]
fn a_new_driver_has_nothing_of_the_former_one() {
    let resets: [fn(&mut Console); 3] = [
        Console::reset,
        |console| console.start(RECEIVE_QUEUE, QueueStart::NewDriver),
        |console| console.disconnect(Disconnect::Final),
    ];
    for reset in resets {
        let mut bench = Bench::new();
        bench.source.add("abcdef");
        assert_eq!(bench.post(&[3]), ["abc"]);
        bench.write("js");
        reset(&mut bench.console);
        assert_eq!(bench.source.with(|seen| seen.resets), 1);
        bench.write("on\n");
        assert_eq!(bench.source.with(|seen| seen.requests.clone()), ["on"]);
        bench.source.add("new\n");
        assert_eq!(bench.post(&[100]), ["new\n"]);
    }
}

#[test]
fn a_source_that_fails_ends_the_daemon_once() {
    let mut bench = Bench::new();
    bench.source.with(|seen| seen.pieces.push_back(Err(io::ErrorKind::BrokenPipe)));
    assert_eq!(bench.post(&[100]), NOTHING);
    let failure = bench.console.failure().map(|error| error.kind());
    assert_eq!(failure, Some(io::ErrorKind::BrokenPipe));
    assert!(bench.console.failure().is_none());
}

#[test]
fn a_position_has_two_halves() {
    assert_eq!(halves(0x1234_5678_9abc_def0), [0x9abc_def0, 0x1234_5678]);
}

/// 5.3.4: each field needs a feature.
#[test]
fn no_feature_is_offered_and_the_configuration_is_zero() {
    let bench = Bench::new();
    assert_eq!((bench.console.features(), bench.console.config()), (0, &[0; 12][..]));
    assert_eq!(bench.console.queues().len(), 2);
}
