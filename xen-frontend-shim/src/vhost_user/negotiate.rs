// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The negotiation with a backend that has just connected.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Instant;

use shim_config::Properties;
use thiserror::Error;
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::{FrontendReq, VhostUserInflight, VhostUserU64, VhostUserVirtioFeatures};
use vm_memory::ByteValued;

use crate::vhost_user::backend_channel::BackendChannel;
use crate::vhost_user::client::{CallError, Client};
use crate::vhost_user::inflight;
use crate::virtio_mmio::features::VERSION_1;

/// What has been negotiated. It holds until the connection ends.
#[derive(Debug)]
pub(super) struct Agreement {
    /// The backend's feature bits.
    pub(super) features: u64,
    /// The channel on which the backend reports changes of the configuration, if it has BACKEND_REQ.
    pub(super) channel: Option<BackendChannel>,
    /// Bytes of the record of requests in flight, if the backend has INFLIGHT_SHMFD.
    pub(super) inflight_size: Option<u64>,
    /// Whether the backend has RESET_DEVICE.
    pub(super) has_reset: bool,
}

/// Why a backend cannot be used.
#[derive(Debug, Error)]
pub enum NegotiateError {
    /// A call has failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The channel for the backend's requests cannot be opened.
    #[error("cannot open the channel for its requests: {0}")]
    Channel(#[source] io::Error),
    /// It lacks protocol features.
    #[error("it lacks VHOST_USER_F_PROTOCOL_FEATURES")]
    NoProtocolFeatures,
    /// It serves legacy drivers only: a device must offer VIRTIO_F_VERSION_1 (virtio 1.3, 6.2).
    #[error("it lacks VIRTIO_F_VERSION_1: a device of virtio 0.9 cannot be served")]
    Legacy,
    /// It cannot map grants.
    #[error(
        "it lacks the protocol feature XEN_MMAP: use a build of it for Xen (this project's backend and those \
         of rust-vmm: `cargo build --features xen`)"
    )]
    NoXen,
    /// It does not provide the configuration that a driver needs.
    #[error(
        "it lacks the protocol feature CONFIG, and the configuration of a device of type {0} has {1} bytes"
    )]
    NoConfig(String, u32),
    /// Its record of requests in flight is empty or too large.
    #[error("its record of requests in flight has {0} bytes, not 1 to {max}", max = inflight::MAX_SIZE)]
    InflightSize(u64),
    /// It has fewer queues than the device is configured with.
    #[error("it has {has} queues, and the configuration of the shim has {needs}")]
    TooFewQueues {
        /// The queues of the backend.
        has: u64,
        /// The queues in the configuration.
        needs: u16,
    },
}

/// Negotiates over `client`, until `deadline`. Returns what has been agreed on, and the device's
/// configuration.
pub(super) fn negotiate(
    client: &mut Client,
    properties: &Properties,
    queues: u16,
    deadline: Instant,
) -> Result<(Agreement, Vec<u8>), NegotiateError> {
    let get = |client: &mut Client, request| -> Result<u64, CallError> {
        Ok(client.get::<VhostUserU64>(request, &[], deadline)?.value)
    };
    client.set_owner(deadline)?;
    let features = get(client, FrontendReq::GET_FEATURES)?;
    check(features)?;
    let offered = Protocol::from_bits_truncate(get(client, FrontendReq::GET_PROTOCOL_FEATURES)?);
    let protocol = choose(offered, properties)?;
    client.set_protocol_features(protocol, deadline)?;
    let has = |feature| protocol.contains(feature);
    if has(Protocol::MQ) {
        let has = get(client, FrontendReq::GET_QUEUE_NUM)?;
        if has < u64::from(queues) {
            return Err(NegotiateError::TooFewQueues { has, needs: queues });
        }
    }
    let channel = has(Protocol::BACKEND_REQ).then(|| open_channel(client, deadline)).transpose()?;
    let config = client.get_config(properties.config_size, deadline)?;
    let inflight_size =
        has(Protocol::INFLIGHT_SHMFD).then(|| inflight_size(client, properties, queues, deadline));
    let inflight_size = inflight_size.transpose()?;
    Ok((Agreement { features, channel, inflight_size, has_reset: has(Protocol::RESET_DEVICE) }, config))
}

/// Checks that the feature bits of a backend make a device that can be served.
fn check(features: u64) -> Result<(), NegotiateError> {
    if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
        Err(NegotiateError::NoProtocolFeatures)
    } else if features & VERSION_1 == 0 {
        Err(NegotiateError::Legacy)
    } else {
        Ok(())
    }
}

/// Opens the channel on which the backend reports that its configuration has changed.
fn open_channel(client: &mut Client, deadline: Instant) -> Result<BackendChannel, NegotiateError> {
    let (channel, theirs) = BackendChannel::open().map_err(NegotiateError::Channel)?;
    client.set(FrontendReq::SET_BACKEND_REQ_FD, &[], &[theirs.as_raw_fd()], deadline)?;
    Ok(channel)
}

/// The size of the record of requests in flight. The backend allocates one to tell it, of which only the
/// size is used: the record has to outlive the backend.
fn inflight_size(
    client: &mut Client,
    properties: &Properties,
    queues: u16,
    deadline: Instant,
) -> Result<u64, NegotiateError> {
    let wanted = VhostUserInflight::new(0, 0, queues, properties.queue_size);
    let record: VhostUserInflight = client.get(FrontendReq::GET_INFLIGHT_FD, wanted.as_slice(), deadline)?;
    match record.mmap_size {
        size @ 1..=inflight::MAX_SIZE => Ok(size),
        size => Err(NegotiateError::InflightSize(size)),
    }
}

/// The protocol features to use, of those that the backend offers. Not used are those that concern
/// migration, STATUS (the backend learns of start and stop by its rings), and BACKEND_SEND_FD and SHMEM (a
/// backend that maps files into the guest needs a frontend that may map them there: none has this right).
fn choose(offered: Protocol, properties: &Properties) -> Result<Protocol, NegotiateError> {
    if !offered.contains(Protocol::XEN_MMAP) {
        return Err(NegotiateError::NoXen);
    }
    let mut wanted = Protocol::XEN_MMAP
        | Protocol::REPLY_ACK
        | Protocol::MQ
        | Protocol::INFLIGHT_SHMFD
        | Protocol::RESET_DEVICE;
    if properties.config_size > 0 {
        if !offered.contains(Protocol::CONFIG) {
            return Err(NegotiateError::NoConfig(properties.type_name.clone(), properties.config_size));
        }
        wanted |= Protocol::CONFIG | Protocol::BACKEND_REQ;
    }
    Ok(offered & wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhost_user::test_backend::properties;

    #[test]
    fn a_missing_protocol_feature_is_named_in_the_error() {
        let gpio = properties(41);
        let all = Protocol::all();
        for (lacks, word) in [(Protocol::XEN_MMAP, "--features xen"), (Protocol::CONFIG, "gpio has 8 bytes")]
        {
            let error = choose(all - lacks, &gpio).expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
        }
        let without_config = choose(all - Protocol::CONFIG, &properties(34)).unwrap();
        assert!(!without_config.contains(Protocol::BACKEND_REQ));
        assert!(choose(all, &gpio).unwrap().contains(Protocol::BACKEND_REQ));
        assert!(!choose(all - Protocol::MQ, &gpio).unwrap().contains(Protocol::MQ));
    }
}
