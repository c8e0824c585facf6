// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! For tests: a backend that serves nothing, does as it is told, and remembers all that it hears.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

/// Numbers of requests (vhost-user specification, "Front-end message types").
pub(crate) const GET_FEATURES: u32 = 1;
pub(crate) const SET_FEATURES: u32 = 2;
pub(crate) const SET_MEM_TABLE: u32 = 5;
pub(crate) const SET_VRING_NUM: u32 = 8;
pub(crate) const SET_VRING_ADDR: u32 = 9;
pub(crate) const SET_VRING_BASE: u32 = 10;
pub(crate) const GET_VRING_BASE: u32 = 11;
pub(crate) const SET_VRING_KICK: u32 = 12;
pub(crate) const SET_VRING_CALL: u32 = 13;
pub(crate) const SET_VRING_ERR: u32 = 14;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
pub(crate) const SET_VRING_ENABLE: u32 = 18;
const GET_CONFIG: u32 = 24;
const GET_INFLIGHT_FD: u32 = 31;
pub(crate) const SET_INFLIGHT_FD: u32 = 32;
pub(crate) const RESET_DEVICE: u32 = 34;

/// Bytes of its record of requests in flight.
pub(crate) const RECORD: usize = 256;

/// How it is, and what it is to do.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) features: u64,
    pub(crate) config: Vec<u8>,
    pub(crate) tracks_inflight: bool,
    /// Answers this request with an error.
    pub(crate) refuses: Option<u32>,
    /// Answers nothing any more after this request.
    pub(crate) hangs_after: Option<u32>,
    /// Ends when this request comes.
    pub(crate) dies_of: Option<u32>,
}

impl Default for Script {
    fn default() -> Self {
        let features = 1 << 32 | 1 << 33 | 1 << 30 | 1;
        Self {
            features,
            config: b"constant".to_vec(),
            tracks_inflight: true,
            refuses: None,
            hangs_after: None,
            dies_of: None,
        }
    }
}

/// A request that it has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) request: u32,
    pub(crate) payload: Vec<u8>,
    /// What was in the record when it came.
    pub(crate) record: Option<Vec<u8>>,
}

/// All that it has heard.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<Heard>>>);

impl Memory {
    /// The requests so far, and forgets them.
    pub(crate) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Heard {
    /// The second of the 32 bit numbers of a vring's state.
    pub(crate) fn number(&self) -> u32 {
        u32::from_ne_bytes(self.payload[4..8].try_into().unwrap())
    }
}

/// Starts it; the socket ends it.
pub(crate) fn start(script: Script) -> (UnixStream, Memory) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let memory = Memory::default();
    let heard = memory.clone();
    std::thread::spawn(move || serve(theirs, &script, &heard));
    (ours, memory)
}

fn serve(mut socket: UnixStream, script: &Script, memory: &Memory) {
    let mut hangs = false;
    while let Some((request, needs_reply, payload, fds)) = receive(&mut socket) {
        if script.dies_of == Some(request) {
            return;
        }
        let record = fds.first().filter(|_| request == SET_INFLIGHT_FD).map(|fd| {
            let mut record = vec![0; RECORD];
            File::from(fd.try_clone().unwrap()).read_exact_at(&mut record, 0).unwrap();
            record
        });
        let answer = answer(script, request, needs_reply, &payload);
        memory.0.lock().unwrap().push(Heard { request, payload, record });
        if let Some(answer) = answer.filter(|_| !hangs) {
            // It fails if the frontend has gone, which the next read tells.
            let _ = reply(&socket, request, &answer);
        }
        hangs |= script.hangs_after == Some(request);
    }
}

fn answer(script: &Script, request: u32, needs_reply: bool, payload: &[u8]) -> Option<Vec<u8>> {
    let protocol = Protocol::XEN_MMAP | Protocol::REPLY_ACK | Protocol::CONFIG | Protocol::RESET_DEVICE;
    let inflight = if script.tracks_inflight { Protocol::INFLIGHT_SHMFD } else { Protocol::empty() };
    match request {
        GET_FEATURES => Some(script.features.to_ne_bytes().to_vec()),
        GET_PROTOCOL_FEATURES => Some((protocol | inflight).bits().to_ne_bytes().to_vec()),
        GET_QUEUE_NUM => Some(1u64.to_ne_bytes().to_vec()),
        GET_CONFIG => Some([&payload[..12], script.config.as_slice()].concat()),
        GET_VRING_BASE => Some(payload.to_vec()),
        GET_INFLIGHT_FD => {
            let size = u64::try_from(RECORD).unwrap().to_ne_bytes();
            Some([&size, &payload[8..]].concat())
        }
        _ if needs_reply => Some(u64::from(script.refuses == Some(request)).to_ne_bytes().to_vec()),
        _ => None,
    }
}

fn receive(socket: &mut UnixStream) -> Option<(u32, bool, Vec<u8>, Vec<OwnedFd>)> {
    let mut header = [0; 12];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(32))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let length = recvmsg(
        &*socket,
        &mut [IoSliceMut::new(&mut header)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
    );
    if length.map_or(0, |received| received.bytes) != header.len() {
        return None;
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(word(8)).unwrap()];
    socket.read_exact(&mut payload).ok()?;
    Some((word(0), word(4) & 8 != 0, payload, fds))
}

fn reply(mut socket: &UnixStream, request: u32, payload: &[u8]) -> std::io::Result<()> {
    let header = [request, 1 | 4, u32::try_from(payload.len()).unwrap()].map(u32::to_ne_bytes).concat();
    let message = [&header, payload].concat();
    if request != GET_INFLIGHT_FD {
        return socket.write_all(&message);
    }
    let file = File::open("/dev/null")?;
    let fds = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let slices = [std::io::IoSlice::new(&message)];
    sendmsg(socket, &slices, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
