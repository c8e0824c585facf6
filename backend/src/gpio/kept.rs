// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines that stay requested when this daemon dies.
//!
//! The kernel lets go of a line when the last descriptor of its request is closed. Most GPIO controllers then leave an
//! output as it was; but some turn it off (Linux's gpio-virtio is one), and a lamp would flicker until the next daemon
//! has the line again. So duplicates of the descriptors are left with whoever started this daemon: in the queue of a socket
//! that is connected to itself, and that the parent holds open (KEEP_FD in the environment says which it is). The
//! next daemon finds them there. Edges that came when nobody looked are then in the kernel's record of the request.
//!
//! The queue has one message: the names of all lines that are held, and their descriptors. It is replaced when a line is taken
//! or released, and not when it is driven.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::inherited;

/// Names the descriptor.
const VARIABLE: &str = "KEEP_FD";

/// Most descriptors that a message can have (the kernel's `SCM_MAX_FD`).
const DESCRIPTORS: usize = 253;

/// As many names as that.
const NAME_BYTES: usize = 40 * DESCRIPTORS;

/// The socket where descriptors are kept.
#[derive(Debug)]
pub(super) struct Keeper {
    socket: OwnedFd,
}

/// Requests of lines, by name.
pub(super) type Kept = Vec<(String, File)>;

impl Keeper {
    /// The one that the parent holds, if it does, and what a former daemon has left there.
    pub(super) fn inherited() -> Option<(Self, Kept)> {
        let number = std::env::var(VARIABLE).ok()?;
        let socket = number.parse().map_err(io::Error::other).and_then(inherited::datagram);
        match socket.and_then(Self::open) {
            Ok(found) => Some(found),
            Err(error) => {
                log::warn!(
                    "{VARIABLE}={number} keeps nothing, and lines are let go if this daemon dies: {error}"
                );
                None
            }
        }
    }

    /// From now on the queue has one message, which says what it says now.
    fn open(socket: OwnedFd) -> io::Result<(Self, Kept)> {
        let keeper = Self { socket };
        let mut latest = Vec::new();
        // There are two if the former daemon died over the exchange of them.
        while let Some(kept) = keeper.receive()? {
            latest = kept;
        }
        keeper.send(&mut latest.iter().map(|(name, file)| (name.as_str(), file)))?;
        Ok((keeper, latest))
    }

    /// Keeps these, and nothing else any more.
    pub(super) fn keep<'a>(&self, lines: impl Iterator<Item = (String, &'a File)>) -> io::Result<()> {
        let lines: Vec<_> = lines.collect();
        self.send(&mut lines.iter().map(|(name, file)| (name.as_str(), *file)))?;
        // The former message.
        self.receive().map(drop)
    }

    fn send<'a>(&self, lines: &mut dyn Iterator<Item = (&'a str, &'a File)>) -> io::Result<()> {
        let (names, files): (Vec<_>, Vec<_>) = lines.take(DESCRIPTORS).unzip();
        let files: Vec<BorrowedFd<'_>> = files.into_iter().map(std::os::fd::AsFd::as_fd).collect();
        let mut names = names.join("\n");
        // A message is not empty: that would be the end of a conversation.
        names.push('\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&self.socket, &[IoSlice::new(names.as_bytes())], &mut control, SendFlags::DONTWAIT)?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Option<Kept>> {
        let mut bytes = vec![0; NAME_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let files = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => files.map(File::from).collect(),
            _ => Vec::new(),
        });
        let files: Vec<File> = files.collect();
        bytes.truncate(received.bytes);
        let names = String::from_utf8(bytes).map_err(io::Error::other)?;
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

    /// As the parent makes it.
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

    /// What the next daemon finds, names and contents.
    fn next(socket: OwnedFd) -> (Keeper, Vec<(String, String)>) {
        let (keeper, kept) = Keeper::open(socket).expect("a socket");
        let read = |(name, mut file): (String, File)| {
            let mut text = String::new();
            file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("text");
            (name, text)
        };
        (keeper, kept.into_iter().map(read).collect())
    }

    fn pair(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn what_was_kept_last_is_found_again_and_again() {
        let (mut keeper, kept) = next(socket());
        assert_eq!(kept, []);
        let (one, two) = (file("one"), file("two"));
        keeper.keep([("a:1".to_owned(), &one)].into_iter()).expect("room");
        keeper.keep([("b:2".to_owned(), &two), ("a:1".to_owned(), &one)].into_iter()).expect("room");
        drop((one, two));
        for _ in 0..3 {
            let kept;
            (keeper, kept) = next(keeper.socket);
            assert_eq!(kept, [pair("b:2", "two"), pair("a:1", "one")]);
        }
        for _ in 0..100 {
            keeper.keep([].into_iter()).expect("room");
        }
        assert_eq!(next(keeper.socket).1, []);
    }

    /// A daemon that died after the new message and before the old one was gone.
    #[test]
    fn of_two_messages_the_later_counts() {
        let (keeper, _) = next(socket());
        let (one, two) = (file("one"), file("two"));
        keeper.keep([("a:1".to_owned(), &one)].into_iter()).expect("room");
        keeper.send(&mut [("b:2", &two)].into_iter()).expect("room");
        let (keeper, kept) = next(keeper.socket);
        assert_eq!(kept, [pair("b:2", "two")]);
        keeper.keep([].into_iter()).expect("room");
        assert_eq!(next(keeper.socket).1, []);
    }

    #[test]
    fn more_than_a_message_can_have_is_left_out() {
        let (keeper, _) = next(socket());
        let one = file("one");
        let many = (0..DESCRIPTORS + 50).map(|line| (format!("/dev/gpiochip10:{line}"), &one));
        keeper.keep(many).expect("room");
        assert_eq!(next(keeper.socket).1.len(), DESCRIPTORS);
    }
}
