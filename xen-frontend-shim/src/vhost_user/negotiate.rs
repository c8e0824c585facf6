// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a backend is asked once, when it is connected, and what it must be able to do.

use thiserror::Error;
use vhost::VhostBackend;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};

use crate::vhost_user::inflight;
use crate::vhost_user::requests::Requests;
use crate::virtio_mmio::features::VERSION_1;
use shim_config::DeviceKind;

/// What a backend offers.
#[derive(Debug)]
pub struct Offer {
    /// Its feature bits.
    pub features: u64,
    /// The device's configuration.
    pub config: Vec<u8>,
    /// Where it says that the configuration has changed, if it can.
    pub requests: Option<Requests>,
    /// Bytes that it needs to record which requests it has taken, if it can.
    pub inflight_size: Option<u64>,
    /// Whether it can be told that no driver uses the device any more.
    pub hears_resets: bool,
}

/// Why a backend cannot be used.
#[derive(Debug, Error)]
pub enum NegotiateError {
    /// It does not answer as the protocol demands.
    #[error("it fails at {0}: {1}")]
    Protocol(&'static str, vhost::Error),
    /// It is too old, or none at all.
    #[error("it lacks VHOST_USER_F_PROTOCOL_FEATURES")]
    NoProtocolFeatures,
    /// It serves legacy drivers only, and a device must offer VIRTIO_F_VERSION_1 (virtio 1.3, 6.2).
    #[error("it lacks VIRTIO_F_VERSION_1: a device of virtio 0.9 cannot be served")]
    Legacy,
    /// It cannot map grants.
    #[error(
        "it lacks the protocol feature XEN_MMAP: use a build of it for Xen (this project's backend and those of \
         rust-vmm: `cargo build --features xen`)"
    )]
    NoXen,
    /// It cannot say when it has unmapped the guest's memory.
    #[error("it lacks the protocol feature REPLY_ACK, without which a reset cannot be waited for")]
    NoReplyAck,
    /// It does not give the configuration that a driver needs.
    #[error(
        "it lacks the protocol feature CONFIG, and the configuration of a device of type {0} has {1} bytes"
    )]
    NoConfig(&'static str, u32),
    /// It needs more memory than any record of requests in flight has.
    #[error("its record of requests in flight would have {0} bytes, at most {max} are given", max = inflight::MAX_SIZE)]
    InflightSize(u64),
    /// It has another idea of the device.
    #[error("it has {has} queues, and the configuration says that the device has {needs}")]
    TooFewQueues {
        /// What it has.
        has: u64,
        /// What is configured.
        needs: u16,
    },
}

/// Asks the backend behind `frontend`, and agrees with it on the protocol.
pub fn negotiate(frontend: &mut Frontend, kind: &DeviceKind, queues: u16) -> Result<Offer, NegotiateError> {
    let at = |step| move |error| NegotiateError::Protocol(step, error);
    frontend.set_owner().map_err(at("SET_OWNER"))?;
    let features = frontend.get_features().map_err(at("GET_FEATURES"))?;
    if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
        return Err(NegotiateError::NoProtocolFeatures);
    }
    if features & VERSION_1 == 0 {
        return Err(NegotiateError::Legacy);
    }
    let protocol = frontend.get_protocol_features().map_err(at("GET_PROTOCOL_FEATURES"))?;
    let protocol = choose(protocol, kind)?;
    frontend.set_protocol_features(protocol).map_err(at("SET_PROTOCOL_FEATURES"))?;
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    if protocol.contains(VhostUserProtocolFeatures::MQ) {
        let has = frontend.get_queue_num().map_err(at("GET_QUEUE_NUM"))?;
        if has < u64::from(queues) {
            return Err(NegotiateError::TooFewQueues { has, needs: queues });
        }
    }
    let requests = open_requests(frontend, protocol)?;
    let config = read_config(frontend, kind).map_err(at("GET_CONFIG"))?;
    let inflight_size = match protocol.contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD) {
        true => Some(inflight_size(frontend, kind, queues)?),
        false => None,
    };
    let hears_resets = protocol.contains(VhostUserProtocolFeatures::RESET_DEVICE);
    Ok(Offer { features, config, requests, inflight_size, hears_resets })
}

/// Gives the backend the means to say that its configuration has changed.
fn open_requests(
    frontend: &mut Frontend,
    protocol: VhostUserProtocolFeatures,
) -> Result<Option<Requests>, NegotiateError> {
    let at = |error| NegotiateError::Protocol("SET_BACKEND_REQ_FD", error);
    if !protocol.contains(VhostUserProtocolFeatures::BACKEND_REQ) {
        return Ok(None);
    }
    let (requests, theirs) = Requests::open().map_err(vhost::Error::IOError).map_err(at)?;
    frontend.set_backend_request_fd(&theirs).map_err(at)?;
    Ok(Some(requests))
}

/// How large the record of requests in flight is. The backend makes one to say so; the shim has its own.
fn inflight_size(frontend: &mut Frontend, kind: &DeviceKind, queues: u16) -> Result<u64, NegotiateError> {
    let wanted = VhostUserInflight::new(0, 0, queues, kind.queue_size_max);
    let given = frontend.get_inflight_fd(&wanted);
    let (given, _) = given.map_err(|error| NegotiateError::Protocol("GET_INFLIGHT_FD", error))?;
    match given.mmap_size {
        size @ 1..=inflight::MAX_SIZE => Ok(size),
        size => Err(NegotiateError::InflightSize(size)),
    }
}

/// The whole configuration, as it is now.
pub fn read_config(frontend: &mut Frontend, kind: &DeviceKind) -> vhost::Result<Vec<u8>> {
    let size = kind.config_size;
    if size == 0 {
        return Ok(Vec::new());
    }
    let room = vec![0; usize::try_from(size).unwrap_or(0)];
    let (_, config) = frontend.get_config(0, size, VhostUserConfigFlags::empty(), &room)?;
    Ok(config)
}

/// The protocol features to use, of those that the backend has.
fn choose(
    has: VhostUserProtocolFeatures,
    kind: &DeviceKind,
) -> Result<VhostUserProtocolFeatures, NegotiateError> {
    let mut chosen = VhostUserProtocolFeatures::XEN_MMAP | VhostUserProtocolFeatures::REPLY_ACK;
    if !has.contains(VhostUserProtocolFeatures::XEN_MMAP) {
        return Err(NegotiateError::NoXen);
    }
    if !has.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        return Err(NegotiateError::NoReplyAck);
    }
    if kind.config_size > 0 {
        if !has.contains(VhostUserProtocolFeatures::CONFIG) {
            return Err(NegotiateError::NoConfig(kind.name, kind.config_size));
        }
        chosen |= VhostUserProtocolFeatures::CONFIG | has & VhostUserProtocolFeatures::BACKEND_REQ;
    }
    let wanted = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
        | VhostUserProtocolFeatures::RESET_DEVICE;
    Ok(chosen | has & wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backend_lacks_is_named() {
        let gpio = DeviceKind::of(41);
        let all = VhostUserProtocolFeatures::all();
        for (lacks, word) in [
            (VhostUserProtocolFeatures::XEN_MMAP, "--features xen"),
            (VhostUserProtocolFeatures::REPLY_ACK, "REPLY_ACK"),
            (VhostUserProtocolFeatures::CONFIG, "GPIO has 8 bytes"),
        ] {
            let error = choose(all - lacks, &gpio).expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
        }
        let without_config = choose(all - VhostUserProtocolFeatures::CONFIG, &DeviceKind::of(34)).unwrap();
        assert!(!without_config.contains(VhostUserProtocolFeatures::BACKEND_REQ));
        assert!(choose(all, &gpio).unwrap().contains(VhostUserProtocolFeatures::BACKEND_REQ));
        assert!(
            !choose(all - VhostUserProtocolFeatures::MQ, &gpio)
                .unwrap()
                .contains(VhostUserProtocolFeatures::MQ)
        );
    }
}
