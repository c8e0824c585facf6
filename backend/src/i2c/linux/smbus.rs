// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Transactions for adapters that support only SMBus.
//!
//! SMBus has a fixed set of commands ([SMBus 3.2], 6.5), each of which is a pattern of I2C messages. A
//! transaction of such a pattern is sent as the command that is the same on the wire. [`Command::of`] decides
//! by lengths and contents alone; any other transaction is refused, not approximated.
//!
//! [SMBus 3.2]: http://smbus.org/specs/

use std::path::Path;

use i2cdev::core::I2CDevice;
use i2cdev::linux::{LinuxI2CDevice, LinuxI2CError};

use super::super::bus::{Address, Cause, Data, Message};
use super::cause::cause;
use super::functions::Functions;

/// Maximum size of a block (SMBus 2.0, and Linux's `I2C_SMBUS_BLOCK_MAX`).
const BLOCK_MAX: usize = 32;
/// Maximum size of a block from a target, which begins with its count.
const BLOCK_WITH_COUNT: usize = 1 + BLOCK_MAX;
/// Maximum size of a block process call: crate i2cdev drops further bytes.
const CALL_MAX: usize = 31;

/// An open SMBus adapter.
pub(super) struct Smbus {
    functions: Functions,
    device: LinuxI2CDevice,
}

/// The initial target address, which crate i2cdev requires: the general call address, which no target has.
const NO_TARGET: u16 = 0;

/// An SMBus command, without the bytes that it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command<'a> {
    Quick { read: bool },
    ReceiveByte,
    SendByte(u8),
    ReadByte(u8),
    WriteByte(u8, u8),
    ReadWord(u8),
    WriteWord(u8, u16),
    ProcessCall(u8, u16),
    ReadBlock(u8),
    WriteBlock(u8, &'a [u8]),
    ReadI2cBlock(u8, u8),
    WriteI2cBlock(u8, &'a [u8]),
    BlockProcessCall(u8, &'a [u8]),
}

impl<'a> Command<'a> {
    /// Returns the command that writes `written`, if anything, and then reads `read` bytes, if it reads;
    /// `None` if there is none, or the adapter does not support it.
    fn of(written: Option<&'a [u8]>, read: Option<usize>, can: Functions) -> Option<Self> {
        let smbus = match (written, read) {
            (Some([]), None) => Self::Quick { read: false },
            (None, Some(0)) => Self::Quick { read: true },
            (None, Some(1)) => Self::ReceiveByte,
            (Some([byte]), None) => Self::SendByte(*byte),
            (Some([command, data @ ..]), None) => Self::write(*command, data, can)?,
            (Some([command]), Some(length)) => Self::read(*command, length, can)?,
            (Some([command, low, high]), Some(2)) => {
                Self::ProcessCall(*command, u16::from_le_bytes([*low, *high]))
            }
            (Some([command, count, data @ ..]), Some(2..=BLOCK_WITH_COUNT))
                if is_block(*count, data) && data.len() <= CALL_MAX =>
            {
                Self::BlockProcessCall(*command, data)
            }
            _ => return None,
        };
        can.contains(smbus.needs()).then_some(smbus)
    }

    fn write(command: u8, data: &'a [u8], can: Functions) -> Option<Self> {
        Some(match data {
            [byte] => Self::WriteByte(command, *byte),
            [low, high] if can.contains(Functions::WRITE_WORD_DATA) => {
                Self::WriteWord(command, u16::from_le_bytes([*low, *high]))
            }
            [count, block @ ..] if is_block(*count, block) && can.contains(Functions::WRITE_BLOCK_DATA) => {
                Self::WriteBlock(command, block)
            }
            _ if data.len() <= BLOCK_MAX => Self::WriteI2cBlock(command, data),
            _ => return None,
        })
    }

    fn read(command: u8, length: usize, can: Functions) -> Option<Self> {
        Some(match length {
            1 => Self::ReadByte(command),
            2 if can.contains(Functions::READ_WORD_DATA) => Self::ReadWord(command),
            1..=BLOCK_MAX if can.contains(Functions::READ_I2C_BLOCK) => {
                Self::ReadI2cBlock(command, u8::try_from(length).ok()?)
            }
            2..=BLOCK_WITH_COUNT => Self::ReadBlock(command),
            _ => return None,
        })
    }

    fn needs(self) -> Functions {
        match self {
            Self::Quick { .. } => Functions::QUICK,
            Self::ReceiveByte => Functions::READ_BYTE,
            Self::SendByte(_) => Functions::WRITE_BYTE,
            Self::ReadByte(_) => Functions::READ_BYTE_DATA,
            Self::WriteByte(..) => Functions::WRITE_BYTE_DATA,
            Self::ReadWord(_) => Functions::READ_WORD_DATA,
            Self::WriteWord(..) => Functions::WRITE_WORD_DATA,
            Self::ProcessCall(..) => Functions::PROCESS_CALL,
            Self::ReadBlock(_) => Functions::READ_BLOCK_DATA,
            Self::WriteBlock(..) => Functions::WRITE_BLOCK_DATA,
            Self::ReadI2cBlock(..) => Functions::READ_I2C_BLOCK,
            Self::WriteI2cBlock(..) => Functions::WRITE_I2C_BLOCK,
            Self::BlockProcessCall(..) => Functions::BLOCK_PROCESS_CALL,
        }
    }

    /// Executes the command, and returns the bytes for the guest's read message.
    fn run(self, device: &mut impl I2CDevice<Error = LinuxI2CError>) -> Result<Vec<u8>, Cause> {
        let nothing = |()| Vec::new();
        match self {
            Self::Quick { read } => device.smbus_write_quick(read).map(nothing),
            Self::ReceiveByte => device.smbus_read_byte().map(|byte| vec![byte]),
            Self::SendByte(byte) => device.smbus_write_byte(byte).map(nothing),
            Self::ReadByte(command) => device.smbus_read_byte_data(command).map(|byte| vec![byte]),
            Self::WriteByte(command, byte) => device.smbus_write_byte_data(command, byte).map(nothing),
            Self::ReadWord(command) => {
                device.smbus_read_word_data(command).map(|word| word.to_le_bytes().to_vec())
            }
            Self::WriteWord(command, word) => device.smbus_write_word_data(command, word).map(nothing),
            Self::ProcessCall(command, word) => {
                device.smbus_process_word(command, word).map(|word| word.to_le_bytes().to_vec())
            }
            Self::ReadBlock(command) => device.smbus_read_block_data(command).map(with_count),
            Self::WriteBlock(command, block) => device.smbus_write_block_data(command, block).map(nothing),
            Self::ReadI2cBlock(command, length) => device.smbus_read_i2c_block_data(command, length),
            Self::WriteI2cBlock(command, data) => {
                device.smbus_write_i2c_block_data(command, data).map(nothing)
            }
            Self::BlockProcessCall(command, block) => {
                device.smbus_process_block(command, block).map(with_count)
            }
        }
        .map_err(cause)
    }
}

/// Whether a count byte and the bytes after it are an SMBus block.
fn is_block(count: u8, data: &[u8]) -> bool {
    usize::from(count) == data.len() && (1..=BLOCK_MAX).contains(&data.len())
}

/// Adds the count with which a block from a target begins on the wire.
fn with_count(block: Vec<u8>) -> Vec<u8> {
    let count = u8::try_from(block.len()).unwrap_or(u8::MAX);
    [vec![count], block].concat()
}

impl Smbus {
    /// Opens `node` a second time, for SMBus commands.
    pub(super) fn open(node: &Path, functions: Functions) -> Result<Self, LinuxI2CError> {
        Ok(Self { functions, device: LinuxI2CDevice::new(node, NO_TARGET)? })
    }

    pub(super) fn transfer(&mut self, messages: &mut [Message<'_>]) -> Result<(), Cause> {
        let (address, written, read) = match messages {
            [Message { address, data: Data::Write(bytes) }] => (*address, Some(*bytes), None),
            [Message { address, data: Data::Read(bytes) }] => (*address, None, Some(&mut **bytes)),
            [
                Message { address, data: Data::Write(out) },
                Message { address: same, data: Data::Read(back) },
            ] if address == same => (*address, Some(*out), Some(&mut **back)),
            _ => return Err(Cause::Unsupported),
        };
        let command = Command::of(written, read.as_ref().map(|bytes| bytes.len()), self.functions);
        let command = command.ok_or(Cause::Unsupported)?;
        let received = command.run(self.device_at(address)?)?;
        match read {
            // A block of another length than the guest's message is a different transaction on the wire.
            Some(bytes) if bytes.len() == received.len() => bytes.copy_from_slice(&received),
            Some(_) => return Err(Cause::Unsupported),
            None => {}
        }
        Ok(())
    }

    fn device_at(&mut self, address: Address) -> Result<&mut LinuxI2CDevice, Cause> {
        // SMBus has 7-bit addresses only.
        let Address::SevenBit(address) = address else { return Err(Cause::Unsupported) };
        self.device.set_slave_address(address).map_err(cause)?;
        Ok(&mut self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(written: Option<&[u8]>, read: Option<usize>) -> Option<Command<'_>> {
        Command::of(written, read, Functions::all())
    }

    #[test]
    fn each_command_has_its_pattern_of_messages() {
        assert_eq!(command(Some(&[]), None), Some(Command::Quick { read: false }));
        assert_eq!(command(None, Some(0)), Some(Command::Quick { read: true }));
        assert_eq!(command(None, Some(1)), Some(Command::ReceiveByte));
        assert_eq!(command(Some(&[7]), None), Some(Command::SendByte(7)));
        assert_eq!(command(Some(&[7]), Some(1)), Some(Command::ReadByte(7)));
        assert_eq!(command(Some(&[7, 1]), None), Some(Command::WriteByte(7, 1)));
        assert_eq!(command(Some(&[7]), Some(2)), Some(Command::ReadWord(7)));
        assert_eq!(command(Some(&[7, 0x34, 0x12]), None), Some(Command::WriteWord(7, 0x1234)));
        assert_eq!(command(Some(&[7, 0x34, 0x12]), Some(2)), Some(Command::ProcessCall(7, 0x1234)));
        assert_eq!(command(Some(&[7, 3, 1, 2, 3]), None), Some(Command::WriteBlock(7, &[1, 2, 3])));
        assert_eq!(command(Some(&[7, 9, 1, 2, 3]), None), Some(Command::WriteI2cBlock(7, &[9, 1, 2, 3])));
        assert_eq!(command(Some(&[7]), Some(8)), Some(Command::ReadI2cBlock(7, 8)));
        assert_eq!(command(Some(&[7, 1, 5]), Some(6)), Some(Command::BlockProcessCall(7, &[5])));
    }

    #[test]
    fn messages_without_a_command_are_refused() {
        assert_eq!(command(None, Some(2)), None);
        assert_eq!(command(Some(&[7]), Some(0)), None);
        assert_eq!(command(Some(&[7]), Some(34)), None);
        assert_eq!(command(Some(&[7, 9, 9]), Some(3)), None);
        let long = [0; 34];
        assert_eq!(command(Some(&long), None), None);
        let call = |bytes: u8| [&[7, bytes][..], &vec![5; bytes.into()]].concat();
        assert!(command(Some(&call(31)), Some(33)).is_some());
        assert_eq!(command(Some(&call(32)), Some(33)), None);
        assert_eq!(command(Some(&call(1)), Some(0)), None);
        assert_eq!(command(Some(&call(1)), Some(34)), None);
    }

    #[test]
    fn an_adapter_gets_only_commands_that_it_supports() {
        let can = Functions::all() - Functions::READ_I2C_BLOCK;
        assert_eq!(Command::of(Some(&[7]), Some(8), can), Some(Command::ReadBlock(7)));
        let can = Functions::all() - Functions::WRITE_WORD_DATA;
        assert_eq!(Command::of(Some(&[7, 8, 9]), None, can), Some(Command::WriteI2cBlock(7, &[8, 9])));
        assert_eq!(Command::of(Some(&[]), None, Functions::READ_BYTE), None);
    }
}
