// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of `backend console` from the guest's side (virtio 1.3, 5.3).

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{read, write};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with,
};
use tempfile::TempDir;

use crate::board::start;
use crate::guest::{Descriptor, Guest, Sent, WRITE};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Size of a receive buffer, as Linux's.
const BUFFER: u32 = 4096;

/// A running daemon, which is killed when this is dropped.
struct Daemon {
    process: Child,
    arguments: Vec<String>,
}

impl Daemon {
    fn start(arguments: &[&str]) -> (Self, UnixStream) {
        let arguments: Vec<_> = ["console"].iter().chain(arguments).map(|text| (*text).to_owned()).collect();
        let (process, socket) = start(&arguments);
        (Self { process, arguments }, socket)
    }

    /// Kills the daemon and starts another in its place.
    fn replace(&mut self) -> UnixStream {
        self.process.kill().expect("a process to kill");
        self.process.wait().expect("a process");
        let (process, socket) = start(&self.arguments);
        self.process = process;
        socket
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A socket that answers requests, as `xen-frontend-shim status` will.
pub(crate) struct Responder {
    _directory: TempDir,
    listener: OwnedFd,
    path: PathBuf,
}

impl Responder {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status");
        let kind = SocketType::SEQPACKET;
        let listener = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("a socket");
        bind(&listener, &SocketAddrUnix::new(&path).expect("a short path")).expect("a path");
        listen(&listener, 1).expect("a socket");
        Self { _directory: directory, listener, path }
    }

    pub(crate) fn arguments(&self) -> [String; 3] {
        [format!("--source=unix:{}", self.path.display()), "--request=json".into(), "--request=text".into()]
    }

    /// Accepts the daemon, which has connected if it answers its frontend.
    pub(crate) fn accept(&self) -> OwnedFd {
        accept(&self.listener).expect("a connection")
    }
}

/// Returns the next request, or `None` if none comes in 10 s.
pub(crate) fn request(connection: &OwnedFd) -> Option<String> {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    poll(&mut [PollFd::new(connection, PollFlags::IN)], Some(&limit)).ok().filter(|ready| *ready > 0)?;
    let mut packet = [0; 128];
    let count = read(connection, &mut packet).ok()?;
    Some(String::from_utf8_lossy(&packet[..count]).into_owned())
}

fn post(guest: &mut Guest) -> Sent {
    guest.send(RECEIVE, &[], BUFFER)
}

/// Returns the text in the next buffer that is used.
fn received(guest: &mut Guest, sent: Sent) -> String {
    let used = guest.wait(RECEIVE);
    String::from_utf8(guest.answer(sent, used)).expect("text")
}

fn transmit(guest: &mut Guest, text: &str) {
    let sent = guest.send(TRANSMIT, text.as_bytes(), 0);
    let used = guest.wait(TRANSMIT);
    assert_eq!((used.head, used.length), (sent.head, 0));
}

/// A file with a line, its daemon and its guest.
struct Log {
    _directory: TempDir,
    file: File,
    daemon: Daemon,
    guest: Guest,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        fs::write(&path, "first\n").expect("a file");
        let file = OpenOptions::new().append(true).open(&path).expect("a file");
        let (daemon, socket) = Daemon::start(&[&format!("--source=file:{}", path.display())]);
        Self { _directory: directory, file, daemon, guest: Guest::connect_recorded(socket, 2) }
    }

    fn append(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).expect("a file");
    }
}

/// 5.3.4: the structure has 12 bytes.
#[test]
fn the_configuration_is_zero_and_no_feature_is_offered() {
    let mut log = Log::new();
    assert_eq!(log.guest.config(12), [0; 12]);
    assert_eq!(log.guest.features() & 0xff_ffff, 0);
}

#[test]
fn a_file_is_followed() {
    let mut log = Log::new();
    let sent = post(&mut log.guest);
    assert_eq!(received(&mut log.guest, sent), "first\n");
    let waiting = post(&mut log.guest);
    log.guest.sync();
    assert_eq!(log.guest.used(RECEIVE), None);
    log.append("second\n");
    assert_eq!(received(&mut log.guest, waiting), "second\n");
    // The guest does not read, and later finds all.
    (0..1000).for_each(|_| log.append("more\n"));
    let mut text = String::new();
    while text.len() < 5000 {
        let sent = post(&mut log.guest);
        text += &received(&mut log.guest, sent);
    }
    assert_eq!(text, "more\n".repeat(1000));
    // What the guest writes to a log is ignored.
    transmit(&mut log.guest, "json\n");
    log.append("last\n");
    let sent = post(&mut log.guest);
    assert_eq!(received(&mut log.guest, sent), "last\n");
}

/// A buffer that was posted stays posted, and nothing of the log is repeated.
#[test]
fn the_next_daemon_fills_the_buffers_of_the_former_one() {
    let mut log = Log::new();
    let sent = post(&mut log.guest);
    assert_eq!(received(&mut log.guest, sent), "first\n");
    for round in 0..3 {
        let waiting = post(&mut log.guest);
        log.guest.wait_marked(waiting);
        let socket = log.daemon.replace();
        log.guest.continue_with(socket);
        log.append(&format!("round {round}\n"));
        assert_eq!(received(&mut log.guest, waiting), format!("round {round}\n"));
    }
}

#[test]
fn a_stop_returns_the_buffers_empty() {
    let mut log = Log::new();
    let sent = post(&mut log.guest);
    received(&mut log.guest, sent);
    let waiting = [post(&mut log.guest), post(&mut log.guest)];
    log.guest.sync();
    log.guest.stop();
    for sent in waiting {
        let used = log.guest.wait(RECEIVE);
        assert_eq!((used.head, used.length), (sent.head, 0));
    }
    log.append("later\n");
    log.guest.start();
    let sent = post(&mut log.guest);
    assert_eq!(received(&mut log.guest, sent), "later\n");
}

/// 5.3.6.1.
#[test]
fn buffers_of_the_wrong_direction_are_returned_alone() {
    let mut log = Log::new();
    let readable = log.guest.send(RECEIVE, b"json\n", 0);
    let used = log.guest.wait(RECEIVE);
    assert_eq!((used.head, used.length), (readable.head, 0));
    let writable = log.guest.send(TRANSMIT, &[], 16);
    let used = log.guest.wait(TRANSMIT);
    assert_eq!((used.head, used.length), (writable.head, 0));
    let nowhere = Descriptor { address: u64::MAX - 64, length: 16, flags: WRITE, next: 0 };
    let head = log.guest.send_raw(RECEIVE, &[nowhere]);
    let used = log.guest.wait(RECEIVE);
    assert_eq!((used.head, used.length), (head, 0));
    log.append("second\n");
    let sent = post(&mut log.guest);
    assert_eq!(received(&mut log.guest, sent), "second\n");
}

#[test]
fn a_request_is_answered_and_other_lines_are_not() {
    let responder = Responder::new();
    let arguments = responder.arguments();
    let (_daemon, socket) = Daemon::start(&arguments.each_ref().map(String::as_str));
    let mut guest = Guest::connect_recorded(socket, 2);
    let connection = responder.accept();
    transmit(&mut guest, "reboot\n{\"echo\":1}\njs");
    transmit(&mut guest, "on\r\n");
    assert_eq!(request(&connection).as_deref(), Some("json"));
    // An answer waits for a buffer, and is longer than one.
    let answer = format!("{{\"a\":\"{}\"}}", "b".repeat(6000));
    write(&connection, answer.as_bytes()).expect("a connection");
    let sent = [post(&mut guest), post(&mut guest)];
    let text = sent.map(|sent| received(&mut guest, sent)).concat();
    assert_eq!(text, format!("{answer}\n"));
    transmit(&mut guest, "text\n");
    assert_eq!(request(&connection).as_deref(), Some("text"));
}

/// Its parent process starts another, which connects again.
#[test]
fn the_daemon_ends_with_its_source() {
    let responder = Responder::new();
    let arguments = responder.arguments();
    let (mut daemon, socket) = Daemon::start(&arguments.each_ref().map(String::as_str));
    let mut guest = Guest::connect_recorded(socket, 2);
    let waiting = post(&mut guest);
    guest.wait_marked(waiting);
    drop(responder.accept());
    assert!(!daemon.process.wait().expect("a process").success());
    let (process, socket) = start(&daemon.arguments);
    daemon.process = process;
    guest.continue_with(socket);
    let connection = responder.accept();
    transmit(&mut guest, "json\n");
    assert_eq!(request(&connection).as_deref(), Some("json"));
    write(&connection, b"{}\n").expect("a connection");
    assert_eq!(received(&mut guest, waiting), "{}\n");
}

/// The log of the kernel under the tests. Not all machines permit to read it.
#[test]
fn the_log_of_the_kernel_begins_with_its_oldest_message() {
    let Ok(mut log) = File::open(Path::new("/dev/kmsg")) else {
        eprintln!("skipped: /dev/kmsg cannot be opened");
        return;
    };
    let (_daemon, socket) = Daemon::start(&["--source=kmsg"]);
    let mut guest = Guest::connect_recorded(socket, 2);
    let sent = post(&mut guest);
    let text = received(&mut guest, sent);
    let mut message = [0; 8192];
    let count = log.read(&mut message).expect("a message");
    let oldest = String::from_utf8_lossy(&message[..count]).into_owned();
    let (_, oldest) = oldest.lines().next().and_then(|line| line.split_once(';')).expect("a message");
    let first = text.lines().next().expect("a line");
    assert!(first.starts_with('[') && first.ends_with(oldest), "{first:?} {oldest:?}");
}
