// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The requests of a group, and the failure of a group in the in-flight record.

use super::bus::Address;
use super::policy::AllowList;
use super::request::{DATA, Direction, parse};
use super::spec::{MSG_ERR, MSG_OK};
use crate::chain::Chain;
use crate::inflight::DeviceRecord;

/// Maximum length of a message in Linux (`i2c-dev`), in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 8192;

/// A request of a group.
pub(super) struct GroupedRequest {
    pub(super) chain: Chain,
    /// The message, if the request is one and is allowed.
    pub(super) message: Option<AllowedMessage>,
}

/// A message that the guest may send.
#[derive(Clone, Copy)]
pub(super) struct AllowedMessage {
    pub(super) address: Address,
    pub(super) direction: Direction,
    pub(super) length: usize,
}

impl GroupedRequest {
    /// Parses and authorises a request. Also returns whether the next request belongs to its group, if there
    /// is a header. `may_be_empty`: whether the driver may send messages of length 0.
    pub(super) fn new(chain: Chain, policy: &AllowList, may_be_empty: bool) -> (Self, Option<bool>) {
        let parsed = parse(chain.request(), chain.room());
        let message = match parsed.request {
            // It may have been carried out already, and must not be repeated.
            _ if chain.is_interrupted() => None,
            Ok(request) if request.length == 0 && !may_be_empty => {
                log::debug!("refused: a message of length 0 without VIRTIO_I2C_F_ZERO_LENGTH_REQUEST");
                None
            }
            Ok(request) if request.length > MESSAGE_BYTES_MAX => {
                log::debug!("refused: a message of {} bytes is too long for Linux", request.length);
                None
            }
            Ok(request) => {
                let address = policy.authorise(request.address);
                if address.is_none() {
                    log::debug!("refused: the guest may not reach {:?}", request.address);
                }
                let (direction, length) = (request.direction, request.length);
                address.map(|address| AllowedMessage { address, direction, length })
            }
            Err(error) => {
                log::debug!("malformed I2C request: {error}");
                None
            }
        };
        (Self { chain, message }, parsed.fail_next)
    }

    /// Returns the number of bytes that are neither header nor status.
    pub(super) fn bytes(&self) -> usize {
        (self.chain.request().len() + self.chain.room()).saturating_sub(DATA + 1)
    }

    /// Answers that the request was carried out, with the bytes of a read.
    pub(super) fn succeed(&mut self, bytes: &[u8]) {
        if let Some(AllowedMessage { direction: Direction::Read, .. }) = self.message {
            self.chain.set_answer(bytes);
        }
        self.set_status(MSG_OK);
    }

    /// Answers that the request failed, with zeros for the bytes of a read.
    pub(super) fn fail(&mut self) {
        self.chain.set_answer(&[]);
        self.set_status(MSG_ERR);
    }

    /// Sets the status, which is the last byte that there is room for.
    fn set_status(&mut self, value: u8) {
        let room = self.chain.room();
        if let (_, [.., status]) = self.chain.request_and_answer(room) {
            *status = value;
            self.chain.set_failure_status(room - 1, MSG_ERR);
        }
    }
}

/// Whether the present group has failed, in the only word of the device's record.
///
/// It may be older than the used ring by the answers of one batch. Their requests are in flight then, fail as
/// such, and end the group where they ended it before.
pub(super) struct GroupRecord(DeviceRecord);

impl GroupRecord {
    pub(super) const BYTES: usize = DeviceRecord::WORD;

    pub(super) fn new(record: DeviceRecord) -> Self {
        Self(record)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.0.word(0) != 0
    }

    pub(super) fn set_failed(&self, failed: bool) {
        self.0.set_word(0, failed.into());
    }
}
