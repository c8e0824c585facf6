// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams between a guest and the driver domain, by virtio sockets and Unix sockets, as `nc` for TCP.

use std::fs;
use std::io::{self, Read, Write, copy, stdin, stdout};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

use super::arguments::{Failure, number};

/// The maximum length of an answer to `CONNECT`.
const ANSWER_LIMIT: usize = 64;

/// The address of one end of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Address<'a> {
    /// `vsock:CID:PORT`
    Vsock { cid: u32, port: u32 },
    /// `unix:PATH`
    Unix(&'a str),
    /// `unix-vsock:PATH:PORT`: a port of the guest whose virtio socket device has this Unix socket. The
    /// client sends a line with the port, and the device answers with a line.
    Device { path: &'a str, port: u32 },
}

impl<'a> Address<'a> {
    fn parse(text: &'a str) -> Result<Self, Failure> {
        let wrong = || format!("{text} is none of vsock:CID:PORT, unix:PATH, unix-vsock:PATH:PORT");
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        match (kind, rest.rsplit_once(':')) {
            ("vsock", Some((cid, port))) => Ok(Self::Vsock { cid: number(cid)?, port: number(port)? }),
            ("unix-vsock", Some((path, port))) => Ok(Self::Device { path, port: number(port)? }),
            ("unix", _) => Ok(Self::Unix(rest)),
            _ => Err(wrong().into()),
        }
    }
}

/// Sends standard input, and then prints what is received until the peer closes the stream.
pub(super) fn connect(address: &str) -> Result<(), Failure> {
    match Address::parse(address)? {
        Address::Vsock { cid, port } => {
            let stream = VsockStream::connect_with_cid_port(cid, port)?;
            exchange(&stream, &stream, || stream.shutdown(Shutdown::Write))
        }
        Address::Unix(path) => over_unix(&UnixStream::connect(path)?),
        Address::Device { path, port } => {
            let stream = UnixStream::connect(path)?;
            name_port(&stream, port)?;
            over_unix(&stream)
        }
    }
}

/// Accepts one connection, and prints what is received until the peer closes the stream.
pub(super) fn listen(address: &str) -> Result<(), Failure> {
    match Address::parse(address)? {
        Address::Vsock { port, .. } => {
            let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
            eprintln!("listening");
            print(listener.accept()?.0)
        }
        Address::Unix(path) => {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            eprintln!("listening");
            print(listener.accept()?.0)
        }
        Address::Device { .. } => Err("a port of a guest is for `connect`".into()),
    }
}

fn over_unix(stream: &UnixStream) -> Result<(), Failure> {
    exchange(stream, stream, || stream.shutdown(Shutdown::Write))
}

fn exchange(
    from: impl Read,
    mut to: impl Write,
    shut_down: impl FnOnce() -> io::Result<()>,
) -> Result<(), Failure> {
    copy(&mut stdin().lock(), &mut to)?;
    shut_down()?;
    print(from)
}

fn print(mut from: impl Read) -> Result<(), Failure> {
    copy(&mut from, &mut stdout().lock())?;
    stdout().flush()?;
    Ok(())
}

/// Connects a stream of a virtio socket device to a port of its guest.
fn name_port(mut stream: &UnixStream, port: u32) -> Result<(), Failure> {
    writeln!(stream, "CONNECT {port}")?;
    let (mut answer, mut byte) = (Vec::new(), [0]);
    // Byte by byte: what follows the line belongs to the stream of the guest.
    while answer.len() < ANSWER_LIMIT && !answer.ends_with(b"\n") && stream.read(&mut byte)? == 1 {
        answer.extend(byte);
    }
    if answer.starts_with(b"OK ") {
        return Ok(());
    }
    Err(format!("port {port}: the device answers {:?}", String::from_utf8_lossy(&answer)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_each_kind_are_parsed() {
        let parsed = |text| Address::parse(text).ok();
        assert_eq!(parsed("vsock:2:0x400"), Some(Address::Vsock { cid: 2, port: 0x400 }));
        assert_eq!(parsed("unix:/run/a:b"), Some(Address::Unix("/run/a:b")));
        assert_eq!(parsed("unix-vsock:/run/a:7"), Some(Address::Device { path: "/run/a", port: 7 }));
        for wrong in ["", "vsock:2", "vsock:2:x", "tcp:1:2", "unix-vsock:/run/a"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn refused_port_is_an_error_and_the_stream_begins_after_the_answer() {
        for (answer, accepted) in [("OK 5\nrest", true), ("", false), ("NO\n", false)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(answer.as_bytes()).unwrap();
            theirs.shutdown(Shutdown::Write).unwrap();
            assert_eq!(name_port(&ours, 9).is_ok(), accepted, "{answer}");
            let mut rest = String::new();
            (&ours).read_to_string(&mut rest).unwrap();
            assert_eq!(rest, if accepted { "rest" } else { "" });
        }
    }
}
