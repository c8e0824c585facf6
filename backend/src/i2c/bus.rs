// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interface between the device and an I2C bus.

use std::io;

use super::time::Clock;
use crate::watch::Watcher;

/// An address that the policy allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// A0 to A6.
    SevenBit(u16),
    /// A0 to A9.
    TenBit(u16),
}

/// Is added to 10-bit addresses where they stand beside 7-bit ones, as in Linux.
const TEN_BIT: u16 = 0xa000;

impl Address {
    /// Returns the address as one number, as it is written in lists and boards.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::SevenBit(address) => address,
            Self::TenBit(address) => TEN_BIT | address,
        }
    }

    /// Returns the address that is written as `number`, if it is valid.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        match number {
            0..=0x7f => Some(Self::SevenBit(number)),
            TEN_BIT..=0xa3ff => Some(Self::TenBit(number - TEN_BIT)),
            _ => None,
        }
    }
}

/// A message of a transaction: the bytes between two start conditions.
#[derive(Debug)]
pub struct Message<'a> {
    /// The target.
    pub address: Address,
    /// The bytes and their direction.
    pub data: Data<'a>,
}

/// The bytes of a message, which may be none.
#[derive(Debug)]
pub enum Data<'a> {
    /// From the guest to the target.
    Write(&'a [u8]),
    /// From the target to the guest.
    Read(&'a mut [u8]),
}

/// Transactions of up to so many messages need no allocation; nearly all have one or two.
pub(super) const INLINE_MESSAGES: usize = 4;

/// A bus, used by one transaction at a time.
pub trait Bus: Send {
    /// Returns the maximum number of messages of a transaction.
    fn longest_transaction(&self) -> usize;

    /// Returns the clock of the bus.
    fn clock(&self) -> Clock;

    /// Carries out `messages` as one transaction: a start condition before each, a stop condition after the
    /// last.
    ///
    /// # Errors
    /// When not all of them were carried out.
    fn transfer(&mut self, messages: &mut [Message<'_>]) -> Result<(), Failure>;

    /// Adds the descriptors of the bus to `watcher`, with tokens from `first` on.
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    fn watch(&mut self, watcher: &Watcher, first: u32) -> io::Result<()>;

    /// Handles an event of the descriptor that the bus watches as `token`.
    fn handle_event(&mut self, token: u32);
}

/// A transaction that was not carried out as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}, after {done} messages")]
pub struct Failure {
    /// Number of messages that are known to be done. Later ones are not done, or not known to be.
    pub done: usize,
    /// The reason.
    pub cause: Cause,
}

/// Why a transaction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The target: no acknowledgement.
    #[error("no acknowledgement")]
    Nak,
    /// The bus: held for too long.
    #[error("timeout")]
    Timeout,
    /// The bus: another controller had it.
    #[error("arbitration lost")]
    ArbitrationLost,
    /// The adapter: it does not support this transaction.
    #[error("not supported by the adapter")]
    Unsupported,
    /// The kernel, with this error number.
    #[error("kernel error {0}")]
    Kernel(i32),
}
