// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! I2C transfers at the rate of the bus, each of them checked.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use i2cdev::core::{I2CMessage, I2CTransfer};
use i2cdev::linux::{LinuxI2CBus, LinuxI2CMessage};

use super::arguments::{Failure, number};

pub(super) fn open(bus: u32) -> Result<LinuxI2CBus, Failure> {
    Ok(LinuxI2CBus::new(PathBuf::from(format!("/dev/i2c-{bus}")))?)
}

/// Transfers `messages` with one system call.
///
/// # Errors
/// Returns an error also if only the first messages were transferred. Linux's virtio adapter then returns
/// their number, which i2c-tools do not treat as an error.
fn transfer(bus: &mut LinuxI2CBus, messages: &mut [LinuxI2CMessage<'_>]) -> Result<(), Failure> {
    let done = usize::try_from(bus.transfer(messages)?)?;
    if done == messages.len() {
        Ok(())
    } else {
        Err(format!("only {done} of {} messages were transferred", messages.len()).into())
    }
}

/// One message of a transfer, with its own address.
struct Message {
    address: u16,
    write: bool,
    bytes: Vec<u8>,
}

impl Message {
    /// Parses `w0x50:0a0b` or `r0x48:2`.
    fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::from(format!("a message is wADDRESS:HEX or rADDRESS:LENGTH, not {text}"));
        let (head, tail) = text.split_once(':').ok_or_else(wrong)?;
        if let Some(address) = head.strip_prefix('w') {
            let digits: Vec<char> = tail.chars().collect();
            let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
            let bytes = digits.chunks(2).map(byte).collect::<Result<_, _>>()?;
            return Ok(Self { address: number(address)?, write: true, bytes });
        }
        let address = head.strip_prefix('r').ok_or_else(wrong)?;
        Ok(Self { address: number(address)?, write: false, bytes: vec![0; number::<u16>(tail)?.into()] })
    }

    fn for_kernel(&mut self) -> LinuxI2CMessage<'_> {
        let message = match self.write {
            true => LinuxI2CMessage::write(&self.bytes),
            false => LinuxI2CMessage::read(&mut self.bytes),
        };
        message.with_address(self.address)
    }
}

/// Makes one transfer and prints what it read, a line for each message that reads.
pub(super) fn request(bus: u32, messages: &[&str]) -> Result<(), Failure> {
    let mut messages: Vec<Message> =
        messages.iter().map(|text| Message::parse(text)).collect::<Result<_, _>>()?;
    transfer(&mut open(bus)?, &mut messages.iter_mut().map(Message::for_kernel).collect::<Vec<_>>())?;
    for message in messages.iter().filter(|message| !message.write) {
        let mut text = String::new();
        message.bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))?;
        println!("{text}");
    }
    Ok(())
}

/// How many errors are printed.
const PRINTED_ERRORS: u32 = 3;

/// The bytes of a target that are written and read. The target has a register pointer of one byte, as EEPROMs
/// and real-time clocks with memory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) address: u16,
    pub(super) offset: u8,
    pub(super) length: u8,
}

/// Returns the pattern of one round. Adjacent bytes differ, and so do the patterns of consecutive rounds.
fn pattern(round: u32, length: u8) -> Vec<u8> {
    (0..length)
        .map(|place| round.wrapping_mul(31).wrapping_add(u32::from(place) * 7).to_le_bytes()[0])
        .collect()
}

/// Makes two transfers in each round: one that writes, and one that sets the register pointer and reads (with
/// a repeated start). Prints the number of errors and of differences.
pub(super) fn stress(bus: u32, place: &Place, rounds: u32) -> Result<(), Failure> {
    let mut bus = open(bus)?;
    let start = Instant::now();
    let (mut errors, mut differences) = (0_u32, 0_u32);
    for round in 0..rounds {
        match check(&mut bus, place, &pattern(round, place.length)) {
            Ok(true) => {}
            Ok(false) => differences += 1,
            Err(error) => {
                errors += 1;
                if errors <= PRINTED_ERRORS {
                    eprintln!("round {round}: {error}");
                }
            }
        }
    }
    let transfers = u64::from(rounds) * 2;
    let seconds = start.elapsed().as_secs_f64();
    println!("transfers={transfers} errors={errors} differences={differences} seconds={seconds:.3}");
    Ok(())
}

/// Writes a pattern, reads it back, and returns whether both are equal.
fn check(bus: &mut LinuxI2CBus, place: &Place, pattern: &[u8]) -> Result<bool, Failure> {
    let mut bytes = vec![place.offset];
    bytes.extend(pattern);
    transfer(bus, &mut [LinuxI2CMessage::write(&bytes).with_address(place.address)])?;
    let mut back = vec![0; pattern.len()];
    read_register(bus, place.address, place.offset, &mut back)?;
    Ok(back == pattern)
}

/// Sets the register pointer and reads from that register on, with a repeated start between.
pub(super) fn read_register(
    bus: &mut LinuxI2CBus,
    address: u16,
    register: u8,
    bytes: &mut [u8],
) -> Result<(), Failure> {
    let pointer = [register];
    let (write, read) = (LinuxI2CMessage::write(&pointer), LinuxI2CMessage::read(bytes));
    transfer(bus, &mut [write.with_address(address), read.with_address(address)])
}

/// Reads two bytes in each of `messages` messages of one transfer.
pub(super) fn read_messages(bus: &mut LinuxI2CBus, address: u16, messages: usize) -> Result<(), Failure> {
    let mut bytes = vec![[0; 2]; messages];
    let read = |bytes| LinuxI2CMessage::read(bytes).with_address(address);
    transfer(bus, &mut bytes.iter_mut().map(|bytes| read(bytes.as_mut_slice())).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_parsed() {
        let write = Message::parse("w0x50:10ff").unwrap();
        assert_eq!((write.address, write.write, write.bytes), (0x50, true, vec![0x10, 0xff]));
        let read = Message::parse("r0x48:2").unwrap();
        assert_eq!((read.address, read.write, read.bytes.len()), (0x48, false, 2));
        for wrong in ["", "x0x48:1", "w0x48", "w0x48:zz", "r0x48:70000"] {
            assert!(Message::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_of_consecutive_rounds_differ() {
        assert_eq!(pattern(3, 8), pattern(3, 8));
        assert_ne!(pattern(3, 8), pattern(4, 8));
    }
}
