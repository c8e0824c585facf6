// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device needs of an I2C bus. Behind it is an adapter of the kernel, or a model of a board.

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

/// Linux, too, writes 10-bit addresses with this added, where they stand beside 7-bit ones.
const TEN_BIT: u16 = 0xa000;

impl Address {
    /// The address as one number, as it is written in lists and boards.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::SevenBit(address) => address,
            Self::TenBit(address) => TEN_BIT | address,
        }
    }

    /// The address that is written as `number`, if one is.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        match number {
            0..=0x7f => Some(Self::SevenBit(number)),
            TEN_BIT..=0xa3ff => Some(Self::TenBit(number - TEN_BIT)),
            _ => None,
        }
    }
}

/// One message of a transaction: what is between two start conditions.
#[derive(Debug)]
pub struct Message<'a> {
    /// Who is spoken to.
    pub address: Address,
    /// What is said.
    pub data: Data<'a>,
}

/// The bytes of a message. None at all is a message too.
#[derive(Debug)]
pub enum Data<'a> {
    /// From the guest to the target.
    Write(&'a [u8]),
    /// From the target to the guest.
    Read(&'a mut [u8]),
}

/// Transactions of no more messages than this need no memory of their own: nearly all have one or two.
pub(super) const FEW: usize = 4;

/// A bus, used by one transaction at a time.
pub trait Bus: Send {
    /// How many messages one transaction can have.
    fn longest_transaction(&self) -> usize;

    /// Its clock.
    fn clock(&self) -> Clock;

    /// Carries out `messages` as one transaction: a start condition before each, a stop condition after the last.
    ///
    /// # Errors
    /// When not all of them were carried out.
    fn transfer(&mut self, messages: &mut [Message<'_>]) -> Result<(), Failure>;

    /// Registers what the bus itself waits for, with tokens from `first` on.
    ///
    /// # Errors
    /// When a descriptor cannot be watched.
    fn watch(&mut self, watcher: &Watcher, first: u32) -> io::Result<()>;

    /// Something happened on a descriptor that the bus watches as `token`.
    fn event(&mut self, token: u32);
}

/// A transaction that was not carried out as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}, after {done} messages")]
pub struct Failure {
    /// How many messages are known to be done. What comes after is not, or is not known to be.
    pub done: usize,
    /// Why it ended.
    pub cause: Cause,
}

/// Which layer failed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The target: no acknowledgement.
    #[error("nobody acknowledged")]
    Nak,
    /// The bus: held too long by someone.
    #[error("timeout")]
    Timeout,
    /// The bus: another controller had it.
    #[error("arbitration lost")]
    ArbitrationLost,
    /// The adapter: it cannot form this transaction.
    #[error("the adapter cannot do this")]
    Unsupported,
    /// The kernel, with this error number.
    #[error("error number {0} of the kernel")]
    Kernel(i32),
}
