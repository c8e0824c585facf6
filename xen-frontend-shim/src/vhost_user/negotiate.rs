// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a backend is asked once, when it is connected, and what it must be able to do.

use thiserror::Error;
use vhost::VhostBackend;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};

use crate::vhost_user::kind::DeviceKind;

/// What a backend offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its feature bits.
    pub features: u64,
    /// The device's configuration.
    pub config: Vec<u8>,
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
    let config = read_config(frontend, kind).map_err(at("GET_CONFIG"))?;
    Ok(Offer { features, config })
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
        chosen |= VhostUserProtocolFeatures::CONFIG;
    }
    Ok(chosen | has & VhostUserProtocolFeatures::MQ)
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
        assert!(choose(all - VhostUserProtocolFeatures::CONFIG, &DeviceKind::of(34)).is_ok());
        assert!(
            !choose(all - VhostUserProtocolFeatures::MQ, &gpio)
                .unwrap()
                .contains(VhostUserProtocolFeatures::MQ)
        );
    }
}
