// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The journal entry of a transaction: the bytes on the wire, up to the point where it ended.

use serde::Serialize;

use super::super::bus::{Address, Cause, Data, Failure, Message};

/// A transaction.
#[derive(Debug, Default, Serialize)]
pub(super) struct TransactionEntry {
    messages: Vec<MessageEntry>,
    result: Outcome,
}

/// A message: its address, and its bytes in hexadecimal.
#[derive(Debug, Serialize)]
struct MessageEntry {
    address: u16,
    #[serde(rename = "ten-bit", skip_serializing_if = "is_false")]
    ten_bit: bool,
    #[serde(flatten)]
    bytes: Bytes,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Bytes {
    Write(String),
    Read(String),
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    #[default]
    Ok,
    Nak,
    Timeout,
    Failed,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl TransactionEntry {
    pub(super) fn begin_message(&mut self, message: &Message<'_>) {
        let (address, ten_bit) = match message.address {
            Address::SevenBit(address) => (address, false),
            Address::TenBit(address) => (address, true),
        };
        let bytes = match message.data {
            Data::Write(_) => Bytes::Write(String::new()),
            Data::Read(_) => Bytes::Read(String::new()),
        };
        self.messages.push(MessageEntry { address, ten_bit, bytes });
    }

    pub(super) fn add_byte(&mut self, byte: u8) {
        if let Some(MessageEntry { bytes: Bytes::Write(text) | Bytes::Read(text), .. }) =
            self.messages.last_mut()
        {
            text.extend(format!("{byte:02x}").chars());
        }
    }

    pub(super) fn end(&mut self, result: Result<(), Failure>) {
        self.result = match result {
            Ok(()) => Outcome::Ok,
            Err(Failure { cause: Cause::Nak, .. }) => Outcome::Nak,
            Err(Failure { cause: Cause::Timeout, .. }) => Outcome::Timeout,
            Err(_) => Outcome::Failed,
        };
    }
}
