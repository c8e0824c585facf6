// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! For tests: a backend that serves no queue, follows a script and records the requests that it receives.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
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
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::{BackendReq, FrontendReq};

use super::message::{HEADER, NEED_REPLY, REPLY, VERSION, header};

/// Bytes of its record of requests in flight.
pub(crate) const RECORD: usize = 256;

/// What the backend offers, and where it fails.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) features: u64,
    pub(crate) config: Vec<u8>,
    /// The type of the device, for the frontend.
    pub(crate) device_id: u32,
    pub(crate) tracks_inflight: bool,
    /// The protocol features that it lacks.
    pub(crate) lacks: Protocol,
    /// The request that it acknowledges with an error.
    pub(crate) refuses: Option<FrontendReq>,
    /// The request after which it replies no more.
    pub(crate) hangs_after: Option<FrontendReq>,
    /// The request at which it closes the connection.
    pub(crate) ends_at: Option<FrontendReq>,
}

impl Default for Script {
    fn default() -> Self {
        let features = 1 << 32 | 1 << 33 | 1 << 30 | 1;
        Self {
            features,
            config: b"constant".to_vec(),
            device_id: 41,
            tracks_inflight: true,
            lacks: Protocol::empty(),
            refuses: None,
            hangs_after: None,
            ends_at: None,
        }
    }
}

/// A request that the backend has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) code: FrontendReq,
    pub(crate) payload: Vec<u8>,
    /// The content of the record of requests in flight when it came, with SET_INFLIGHT_FD.
    pub(crate) record: Option<Vec<u8>>,
}

#[derive(Default)]
struct Shared {
    requests: Vec<Request>,
    config: Vec<u8>,
    channel: Option<UnixStream>,
}

/// What a test sees of the backend.
#[derive(Clone)]
pub(crate) struct ScriptedBackend(Arc<Mutex<Shared>>);

impl ScriptedBackend {
    /// Takes the requests since the last call.
    pub(crate) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.0.lock().unwrap().requests)
    }

    /// Changes the configuration and reports that.
    pub(crate) fn change_config(&self, config: &[u8]) {
        self.0.lock().unwrap().config = config.to_vec();
        self.send_on_channel(&header(BackendReq::CONFIG_CHANGE_MSG.into(), VERSION, 0));
    }

    /// Sends anything on the channel for changes of the configuration.
    pub(crate) fn send_on_channel(&self, message: &[u8]) {
        self.0.lock().unwrap().channel.as_mut().unwrap().write_all(message).unwrap();
    }
}

/// The codes of the requests.
pub(crate) fn codes(requests: &[Request]) -> Vec<FrontendReq> {
    requests.iter().map(|request| request.code).collect()
}

/// The indices with which rings were started: the second numbers of the payloads of SET_VRING_BASE.
pub(crate) fn bases(requests: &[Request]) -> Vec<u32> {
    let bases = requests.iter().filter(|request| request.code == FrontendReq::SET_VRING_BASE);
    bases.map(|request| u32::from_ne_bytes(request.payload[4..8].try_into().unwrap())).collect()
}

/// What was written to the configuration: the ends of the payloads of SET_CONFIG.
pub(crate) fn writes(requests: &[Request]) -> Vec<Vec<u8>> {
    let writes = requests.iter().filter(|request| request.code == FrontendReq::SET_CONFIG);
    writes.map(|request| request.payload[12..].to_vec()).collect()
}

/// Carries out SET_CONFIG.
fn write_config(config: &mut [u8], payload: &[u8]) {
    let offset = usize::try_from(u32::from_ne_bytes(payload[..4].try_into().unwrap())).unwrap();
    let bytes = &payload[12..];
    config[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// The contents of the record of requests in flight.
pub(crate) fn records(requests: &[Request]) -> Vec<Vec<u8>> {
    requests.iter().filter_map(|request| request.record.clone()).collect()
}

/// Starts a backend. It ends with the connection.
pub(crate) fn start(script: Script) -> (UnixStream, ScriptedBackend) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let shared = Shared { config: script.config.clone(), ..Shared::default() };
    let backend = ScriptedBackend(Arc::new(Mutex::new(shared)));
    let served = backend.clone();
    std::thread::spawn(move || serve(theirs, &script, &served.0));
    (ours, backend)
}

fn serve(mut socket: UnixStream, script: &Script, shared: &Mutex<Shared>) {
    let mut hangs = false;
    while let Some((code, needs_reply, payload, mut fds)) = receive(&mut socket) {
        if script.ends_at == Some(code) {
            return;
        }
        let mut shared = shared.lock().unwrap();
        let mut record = None;
        match code {
            FrontendReq::SET_INFLIGHT_FD => {
                let mut content = vec![0; RECORD];
                File::from(fds.remove(0)).read_exact_at(&mut content, 0).unwrap();
                record = Some(content);
            }
            FrontendReq::SET_CONFIG => write_config(&mut shared.config, &payload),
            FrontendReq::SET_BACKEND_REQ_FD => shared.channel = Some(fds.remove(0).into()),
            _ => {}
        }
        let reply = reply_to(script, &shared.config, code, needs_reply, &payload);
        shared.requests.push(Request { code, payload, record });
        drop(shared);
        if let Some(reply) = reply.filter(|_| !hangs) {
            // It fails if the frontend has closed the connection, which ends the loop.
            let _ = send(&socket, code, &reply);
        }
        hangs |= script.hangs_after == Some(code);
    }
}

fn reply_to(
    script: &Script,
    config: &[u8],
    code: FrontendReq,
    needs_reply: bool,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let protocol = Protocol::XEN_MMAP
        | Protocol::REPLY_ACK
        | Protocol::CONFIG
        | Protocol::BACKEND_REQ
        | Protocol::RESET_DEVICE;
    let inflight = if script.tracks_inflight { Protocol::INFLIGHT_SHMFD } else { Protocol::empty() };
    match code {
        FrontendReq::GET_FEATURES => Some(script.features.to_ne_bytes().to_vec()),
        FrontendReq::GET_PROTOCOL_FEATURES => {
            Some(((protocol | inflight) - script.lacks).bits().to_ne_bytes().to_vec())
        }
        FrontendReq::GET_CONFIG => Some([&payload[..12], config].concat()),
        FrontendReq::GET_VRING_BASE => Some(payload.to_vec()),
        FrontendReq::GET_INFLIGHT_FD => Some([&RECORD.to_ne_bytes(), &payload[8..]].concat()),
        _ if needs_reply => Some(u64::from(script.refuses == Some(code)).to_ne_bytes().to_vec()),
        _ => None,
    }
}

fn receive(socket: &mut UnixStream) -> Option<(FrontendReq, bool, Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = [0; HEADER];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(32))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let length = recvmsg(
        &*socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
    );
    if length.map_or(0, |received| received.bytes) != HEADER {
        return None;
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(word(8)).unwrap()];
    socket.read_exact(&mut payload).ok()?;
    Some((FrontendReq::try_from(word(0)).unwrap(), word(4) & NEED_REPLY != 0, payload, fds))
}

fn send(mut socket: &UnixStream, code: FrontendReq, payload: &[u8]) -> std::io::Result<()> {
    let message = [&header(code.into(), VERSION | REPLY, payload.len()), payload].concat();
    if code != FrontendReq::GET_INFLIGHT_FD {
        return socket.write_all(&message);
    }
    let file = File::open("/dev/null")?;
    let fds = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(&message)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
