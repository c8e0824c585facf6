// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SET_MEM_TABLE messages that are longer than the regions in them.
//!
//! Linux (`arch/um/drivers/virtio_uml.c`) always sends space for two regions, and mostly uses one. The
//! vhost-user specification allows that, but crate `vhost` refuses it. So the start of each message is read
//! with MSG_PEEK, and such a message is handled here.

use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vhost::vhost_user::message::{
    FrontendReq, MAX_ATTACHED_FD_ENTRIES, MAX_MSG_SIZE, VhostUserHeaderFlag, VhostUserMemoryRegion,
    VhostUserMsgValidator,
};
use vhost::vhost_user::{Error, Result, VhostUserBackendReqHandlerMut};
use vm_memory::ByteValued;

/// Size of a message header: the request, flags, and the size of the payload.
const HEADER: usize = 12;
/// Size of the payload before its regions: their number, and padding.
const COUNT: usize = 8;
const REGION: usize = size_of::<VhostUserMemoryRegion>();

/// The header of a message that is longer than its regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PaddedMemTable {
    flags: u32,
    size: usize,
    regions: usize,
}

impl PaddedMemTable {
    /// Returns the next message of `socket`, if it is of this kind. Leaves it in the socket.
    pub(super) fn peek(socket: &UnixStream) -> Option<Self> {
        let mut start = [0; HEADER + 4];
        let mut control = RecvAncillaryBuffer::default();
        let received = recvmsg(socket, &mut [IoSliceMut::new(&mut start)], &mut control, RecvFlags::PEEK);
        let is_whole = received.is_ok_and(|received| received.bytes == start.len());
        is_whole.then(|| Self::parse(&start)).flatten()
    }

    fn parse(start: &[u8; HEADER + 4]) -> Option<Self> {
        let mut words =
            start.chunks_exact(4).filter_map(|word| Some(u32::from_ne_bytes(word.try_into().ok()?)));
        let (request, flags, size, regions) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (size, regions) = (usize::try_from(size).ok()?, usize::try_from(regions).ok()?);
        let is_padded = request == u32::from(FrontendReq::SET_MEM_TABLE)
            && (1..=MAX_ATTACHED_FD_ENTRIES).contains(&regions)
            && (COUNT + regions * REGION + 1..=MAX_MSG_SIZE).contains(&size);
        is_padded.then_some(Self { flags, size, regions })
    }

    /// Takes the message from `socket`, passes it to `handler`, and replies if the frontend asked for that
    /// and REPLY_ACK was negotiated.
    pub(super) fn handle(
        self,
        mut socket: &UnixStream,
        handler: &mut impl VhostUserBackendReqHandlerMut,
        has_reply_ack: bool,
    ) -> Result<()> {
        let (payload, files) = self.receive(socket).map_err(Error::SocketBroken)?;
        let regions: Vec<_> = payload
            .get(COUNT..)
            .unwrap_or_default()
            .chunks_exact(REGION)
            .take(self.regions)
            .filter_map(|bytes| VhostUserMemoryRegion::from_slice(bytes).copied())
            .collect();
        if files.len() != self.regions || !regions.iter().all(VhostUserMsgValidator::is_valid) {
            return Err(Error::InvalidMessage);
        }
        let done = handler.set_mem_table(&regions, files, None).map(drop);
        if has_reply_ack && self.flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0 {
            let header = [u32::from(FrontendReq::SET_MEM_TABLE), 1 | VhostUserHeaderFlag::REPLY.bits(), 8];
            let header = header.map(u32::to_ne_bytes).concat();
            let status = u64::from(done.is_err()).to_ne_bytes();
            socket.write_all(&[&header[..], &status].concat()).map_err(Error::SocketBroken)?;
        }
        done
    }

    /// Receives the payload and its descriptors.
    fn receive(self, socket: &UnixStream) -> io::Result<(Vec<u8>, Vec<File>)> {
        let mut message = vec![0; HEADER + self.size];
        let mut files = Vec::new();
        let mut at = 0;
        while let Some(rest) = message.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_ATTACHED_FD_ENTRIES))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(socket, &mut [IoSliceMut::new(rest)], &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    files.extend(rights.map(File::from));
                }
            }
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += received.bytes;
        }
        Ok((message.split_off(HEADER), files))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn start(request: u32, size: usize, regions: u32) -> [u8; HEADER + 4] {
        let words = [request, 1, u32::try_from(size).unwrap(), regions];
        words.map(u32::to_ne_bytes).concat().try_into().unwrap()
    }

    #[test]
    fn only_a_table_with_space_after_its_regions_is_padded() {
        let is_padded =
            |request, size, regions| PaddedMemTable::parse(&start(request, size, regions)).is_some();
        let table = 5;
        assert!(is_padded(table, COUNT + 2 * REGION, 1));
        assert!(!is_padded(table, COUNT + REGION, 1), "it ends with its regions");
        assert!(!is_padded(table, COUNT + REGION, 2), "it is too short");
        assert!(!is_padded(table, COUNT + REGION, 0));
        assert!(!is_padded(table, COUNT + REGION, u32::MAX));
        assert!(!is_padded(table, MAX_MSG_SIZE + 1, 1));
        assert!(!is_padded(8, COUNT + 2 * REGION, 1), "another message");
    }
}
