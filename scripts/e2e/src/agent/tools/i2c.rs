// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! I2C at the rate the bus can do, each transfer checked.

use std::path::PathBuf;
use std::time::Instant;

use i2cdev::core::{I2CMessage, I2CTransfer};
use i2cdev::linux::{LinuxI2CBus, LinuxI2CMessage};

use super::Failure;

/// Which bytes of which target are written and read. The target has a register pointer of one byte, as EEPROMs and
/// clocks with memory have.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) address: u16,
    pub(super) offset: u8,
    pub(super) length: u8,
}

/// The pattern of one round: no two neighbours alike, no two rounds in a row alike.
fn pattern(round: u32, length: u8) -> Vec<u8> {
    (0..length)
        .map(|place| round.wrapping_mul(31).wrapping_add(u32::from(place) * 7).to_le_bytes()[0])
        .collect()
}

/// Two transfers a round: one that writes, one that sets the register pointer and reads (with a repeated start).
pub(super) fn stress(bus: u32, place: &Place, rounds: u32) -> Result<(), Failure> {
    let mut bus = LinuxI2CBus::new(PathBuf::from(format!("/dev/i2c-{bus}")))?;
    let start = Instant::now();
    let (mut errors, mut differences) = (0_u32, 0_u32);
    for round in 0..rounds {
        match check(&mut bus, place, &pattern(round, place.length)) {
            Ok(true) => {}
            Ok(false) => differences += 1,
            Err(error) => {
                errors += 1;
                eprintln!("round {round}: {error}");
            }
        }
    }
    let transfers = u64::from(rounds) * 2;
    let seconds = start.elapsed().as_secs_f64();
    println!("transfers={transfers} errors={errors} differences={differences} seconds={seconds:.3}");
    Ok(())
}

fn check(bus: &mut LinuxI2CBus, place: &Place, pattern: &[u8]) -> Result<bool, Failure> {
    let mut bytes = vec![place.offset];
    bytes.extend(pattern);
    bus.transfer(&mut [LinuxI2CMessage::write(&bytes).with_address(place.address)])?;
    let mut back = vec![0; pattern.len()];
    bus.transfer(&mut [
        LinuxI2CMessage::write(&[place.offset]).with_address(place.address),
        LinuxI2CMessage::read(&mut back).with_address(place.address),
    ])?;
    Ok(back == pattern)
}
