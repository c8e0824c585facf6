// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines that stay requested when this daemon dies.
//!
//! The kernel releases a line when the last descriptor of its request is closed. Most GPIO controllers then
//! leave an output as it was, but some turn it off (Linux's gpio-virtio is one), until the next daemon
//! requests the line again. So duplicates of the descriptors are sent to a socket that is connected to itself
//! and that the parent process holds open (KEEP_FD in the environment is its number). The next daemon
//! receives them there, together with the edges that the kernel recorded meanwhile.
//!
//! The socket's queue has one message: the names of all held lines, and their descriptors. It is replaced
//! when a line is requested or released, and not when it is driven.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::num::ParseIntError;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::string::FromUtf8Error;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::inherited;

/// The environment variable with the number of the socket.
const VARIABLE: &str = "KEEP_FD";

/// Maximum number of descriptors in a message (the kernel's `SCM_MAX_FD`).
const DESCRIPTORS: usize = 253;

/// Space for as many names.
const NAME_BYTES: usize = 40 * DESCRIPTORS;

/// The socket that holds the descriptors.
#[derive(Debug)]
pub(super) struct LineHolder {
    socket: OwnedFd,
}

/// Why lines cannot be held.
#[derive(Debug, thiserror::Error)]
pub(super) enum HolderError {
    #[error("not the number of a descriptor: {0}")]
    Number(#[from] ParseIntError),
    #[error("the names of the lines are not UTF-8: {0}")]
    Names(#[from] FromUtf8Error),
    #[error(transparent)]
    Kernel(#[from] io::Error),
}

/// Requests of lines, by name.
pub(super) type HeldLines = Vec<(String, File)>;

impl LineHolder {
    /// Opens the socket that the parent holds, if it does, and returns the requests that a former daemon left
    /// there.
    pub(super) fn inherited() -> Option<(Self, HeldLines)> {
        let number = std::env::var(VARIABLE).ok()?;
        match Self::from_number(&number) {
            Ok(found) => Some(found),
            Err(error) => {
                log::warn!(
                    "{VARIABLE}={number} cannot hold lines, they are released if this daemon dies: {error}"
                );
                None
            }
        }
    }

    fn from_number(number: &str) -> Result<(Self, HeldLines), HolderError> {
        Self::open(inherited::datagram(number.parse()?)?)
    }

    /// Receives the latest message and leaves it as the only one.
    fn open(socket: OwnedFd) -> Result<(Self, HeldLines), HolderError> {
        let holder = Self { socket };
        let mut latest = Vec::new();
        // There are two if the former daemon died while it replaced the message.
        while let Some(lines) = holder.receive()? {
            latest = lines;
        }
        holder.send(&mut latest.iter().map(|(name, file)| (name.as_str(), file)))?;
        Ok((holder, latest))
    }

    /// Replaces the held lines.
    pub(super) fn hold<'a>(
        &self,
        lines: impl Iterator<Item = (String, &'a File)>,
    ) -> Result<(), HolderError> {
        let lines: Vec<_> = lines.collect();
        self.send(&mut lines.iter().map(|(name, file)| (name.as_str(), *file)))?;
        // Removes the former message.
        self.receive().map(drop)
    }

    fn send<'a>(&self, lines: &mut dyn Iterator<Item = (&'a str, &'a File)>) -> io::Result<()> {
        let (names, files): (Vec<_>, Vec<_>) = lines.take(DESCRIPTORS).unzip();
        let files: Vec<BorrowedFd<'_>> = files.into_iter().map(std::os::fd::AsFd::as_fd).collect();
        let mut names = names.join("\n");
        // An empty message would mean the end of the connection.
        names.push('\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&self.socket, &[IoSlice::new(names.as_bytes())], &mut control, SendFlags::DONTWAIT)?;
        Ok(())
    }

    fn receive(&self) -> Result<Option<HeldLines>, HolderError> {
        let mut bytes = vec![0; NAME_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let files = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => files.map(File::from).collect(),
            _ => Vec::new(),
        });
        let files: Vec<File> = files.collect();
        bytes.truncate(received.bytes);
        let names = String::from_utf8(bytes)?;
        Ok(Some(names.lines().map(str::to_owned).zip(files).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, socket_with,
    };

    use super::*;

    /// Creates the socket as the parent does.
    fn socket() -> OwnedFd {
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .expect("a socket");
        bind(&socket, &SocketAddrUnix::new_unnamed()).expect("a name");
        connect(&socket, &getsockname(&socket).expect("a name")).expect("itself");
        socket
    }

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("text");
        file
    }

    /// Opens the socket as the next daemon, and returns the names and contents that it finds.
    fn next(socket: OwnedFd) -> (LineHolder, Vec<(String, String)>) {
        let (holder, lines) = LineHolder::open(socket).expect("a socket");
        let read = |(name, mut file): (String, File)| {
            let mut text = String::new();
            file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("text");
            (name, text)
        };
        (holder, lines.into_iter().map(read).collect())
    }

    fn pair(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn the_lines_held_last_are_found_by_every_later_daemon() {
        let (mut holder, lines) = next(socket());
        assert_eq!(lines, []);
        let (one, two) = (file("one"), file("two"));
        holder.hold([("a:1".to_owned(), &one)].into_iter()).expect("room");
        holder.hold([("b:2".to_owned(), &two), ("a:1".to_owned(), &one)].into_iter()).expect("room");
        drop((one, two));
        for _ in 0..3 {
            let lines;
            (holder, lines) = next(holder.socket);
            assert_eq!(lines, [pair("b:2", "two"), pair("a:1", "one")]);
        }
        for _ in 0..100 {
            holder.hold([].into_iter()).expect("room");
        }
        assert_eq!(next(holder.socket).1, []);
    }

    /// The daemon died after it had sent the new message and before it had removed the old one.
    #[test]
    fn of_two_messages_the_later_counts() {
        let (holder, _) = next(socket());
        let (one, two) = (file("one"), file("two"));
        holder.hold([("a:1".to_owned(), &one)].into_iter()).expect("room");
        holder.send(&mut [("b:2", &two)].into_iter()).expect("room");
        let (holder, lines) = next(holder.socket);
        assert_eq!(lines, [pair("b:2", "two")]);
        holder.hold([].into_iter()).expect("room");
        assert_eq!(next(holder.socket).1, []);
    }

    #[test]
    fn lines_beyond_the_size_of_a_message_are_not_held() {
        let (holder, _) = next(socket());
        let one = file("one");
        let many = (0..DESCRIPTORS + 50).map(|line| (format!("/dev/gpiochip10:{line}"), &one));
        holder.hold(many).expect("room");
        assert_eq!(next(holder.socket).1.len(), DESCRIPTORS);
    }
}
