// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A value in a file that survives the end of its writer at any moment.
//!
//! The file has two copies, and a write replaces the older one. Each copy has a number and a checksum; a
//! reader takes the sound copy with the higher number. All of the file is allocated when it is created
//! ([`super::directory`]), so that no later write fails for want of memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The size of a copy in bytes.
const COPY_SIZE: usize = 4096;
/// The offset of the second copy.
const SECOND_COPY: u64 = 4096;
/// The size of the file in bytes.
pub(super) const FILE_SIZE: u64 = 2 * SECOND_COPY;
/// The size in bytes of what precedes the value: magic, length, number, checksum of all of these, padding.
const HEADER_SIZE: usize = 24;
/// Identifies the format. A change of the format or of a value's type changes it: another version's records
/// are damaged.
const MAGIC: u32 = u32::from_le_bytes(*b"XBT2");

/// Reasons why a value is not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The file cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The value cannot be serialised.
    #[error("{0}")]
    Format(#[from] postcard::Error),
    /// The value is larger than a copy.
    #[error("the value has {0} bytes, and a record holds {max}", max = COPY_SIZE - HEADER_SIZE)]
    TooLarge(usize),
}

/// The content of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// Nothing has been written.
    Nothing,
    /// The newest value.
    Value(T),
    /// Neither copy is sound, or another version of this program wrote them.
    Damaged,
}

impl<T> Found<T> {
    /// The value, if there is one that can be read.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Nothing | Self::Damaged => None,
        }
    }

    fn map<U>(self, map: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Nothing => Found::Nothing,
            Self::Value(value) => Found::Value(map(value)),
            Self::Damaged => Found::Damaged,
        }
    }
}

/// A record, open for its only writer.
#[derive(Debug)]
pub struct Record {
    file: File,
    /// The number of the newest copy. Even numbers are in the first copy, odd ones in the second.
    number: u64,
}

impl Record {
    /// Opens the record in `file` for writing, and reads its value.
    pub fn open<T: DeserializeOwned>(file: File) -> io::Result<(Self, Found<T>)> {
        file.set_len(FILE_SIZE)?;
        let mut number = 0;
        let found = newest(&file)?.map(|(newest, value)| {
            number = newest;
            value
        });
        Ok((Self { file, number }, found))
    }

    /// Damages both copies, so that no reader takes a value that is not valid any more. The next write makes
    /// the record sound again.
    pub fn invalidate(&mut self) -> io::Result<()> {
        // The newest copy first: the other one is the older value.
        for number in [self.number, self.number.wrapping_add(1)] {
            self.file.write_all_at(&[0xff; HEADER_SIZE], offset(number))?;
        }
        Ok(())
    }

    /// Reads the value. During a write by another process this is the value before or after the write.
    pub fn peek<T: DeserializeOwned>(file: &File) -> io::Result<Found<T>> {
        newest(file).map(|found| found.map(|(_, value)| value))
    }

    /// Writes `value`. If this fails or the process ends during it, the former value stays.
    pub fn write<T: Serialize>(&mut self, value: &T) -> Result<(), WriteError> {
        let number = self.number.wrapping_add(1);
        self.file.write_all_at(&format(number, value)?, offset(number))?;
        self.number = number;
        Ok(())
    }
}

/// The number and the value of the newest sound copy.
fn newest<T: DeserializeOwned>(file: &File) -> io::Result<Found<(u64, T)>> {
    let mut newest: Option<(u64, T)> = None;
    let mut is_written = false;
    for place in 0..2 {
        let mut copy = vec![0; COPY_SIZE];
        match file.read_exact_at(&mut copy, offset(place)) {
            // No writer has opened it yet.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            result => result?,
        }
        is_written |= copy.iter().any(|byte| *byte != 0);
        if let Some((number, value)) = parse(&copy)
            && newest.as_ref().is_none_or(|(newest, _)| number > *newest)
        {
            newest = Some((number, value));
        }
    }
    Ok(match newest {
        Some(newest) => Found::Value(newest),
        None if is_written => Found::Damaged,
        None => Found::Nothing,
    })
}

/// The offset of the copy with this number.
fn offset(number: u64) -> u64 {
    if number.is_multiple_of(2) { 0 } else { SECOND_COPY }
}

fn format<T: Serialize>(number: u64, value: &T) -> Result<Vec<u8>, WriteError> {
    let value = postcard::to_allocvec(value)?;
    let length = u32::try_from(value.len()).ok().filter(|_| value.len() <= COPY_SIZE - HEADER_SIZE);
    let length = length.ok_or(WriteError::TooLarge(value.len()))?;
    let mut copy = Vec::with_capacity(HEADER_SIZE + value.len());
    copy.extend(MAGIC.to_le_bytes());
    copy.extend(length.to_le_bytes());
    copy.extend(number.to_le_bytes());
    let checksum = checksum(&copy, &value);
    copy.extend(checksum.to_le_bytes());
    copy.extend([0; 4]);
    copy.extend(value);
    Ok(copy)
}

fn parse<T: DeserializeOwned>(copy: &[u8]) -> Option<(u64, T)> {
    let (begin, rest) = copy.split_first_chunk::<16>()?;
    let (check, rest) = rest.split_first_chunk::<8>()?;
    let word = |at: usize| Some(u32::from_le_bytes(*begin.get(at..)?.first_chunk()?));
    let length = usize::try_from(word(4)?).ok()?;
    let value = rest.get(..length)?;
    let sound = word(0)? == MAGIC && *check.first_chunk()? == checksum(begin, value).to_le_bytes();
    let number = u64::from_le_bytes(*begin.get(8..)?.first_chunk()?);
    sound.then(|| postcard::from_bytes(value).ok().map(|value| (number, value)))?
}

fn checksum(begin: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(begin);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio_mmio::State;

    fn file() -> File {
        tempfile::tempfile().expect("a temporary file")
    }

    fn read(file: &File) -> Found<State> {
        let peeked = Record::peek(file).expect("readable");
        assert_eq!(peeked, Record::open(file.try_clone().unwrap()).unwrap().1);
        peeked
    }

    fn state(generation: u32) -> State {
        State { config_generation: generation, config: vec![7; 100], ..State::default() }
    }

    #[test]
    fn record_that_was_not_written_has_no_value() {
        assert_eq!(read(&file()), Found::Nothing);
    }

    #[test]
    fn numbers_alternate_between_the_copies() {
        assert_eq!([0, 1, 2].map(offset), [0, SECOND_COPY, 0]);
    }

    #[test]
    fn newest_value_is_read_also_after_a_new_open() {
        let file = file();
        for generation in 0..5 {
            let (mut record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
            record.write(&state(2 * generation)).unwrap();
            assert_eq!(read(&file), Found::Value(state(2 * generation)));
            record.write(&state(2 * generation + 1)).unwrap();
            assert_eq!(read(&file), Found::Value(state(2 * generation + 1)));
        }
    }

    #[test]
    fn write_cut_at_any_byte_leaves_the_value_before_or_after() {
        for number in [1, 2] {
            let file = file();
            let (mut record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
            for generation in 0..=number {
                record.write(&state(generation)).unwrap();
            }
            let (before, after) = (state(number), state(99));
            let copy = format(record.number + 1, &after).unwrap();
            for written in 0..copy.len() {
                file.write_all_at(&copy[..written], offset(record.number + 1)).unwrap();
                let found = read(&file).value().unwrap();
                // The bytes that are not written yet may be equal to those of the older copy.
                assert!(
                    found == before || (found == after && written > HEADER_SIZE),
                    "{written} bytes: {found:?}"
                );
            }
            file.write_all_at(&copy, offset(record.number + 1)).unwrap();
            assert_eq!(read(&file), Found::Value(after));
        }
    }

    #[test]
    fn record_damaged_at_any_byte_is_reported_as_damaged() {
        let file = file();
        let (mut record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        record.write(&state(1)).unwrap();
        let copy = format(1, &state(1)).unwrap();
        for place in (0..copy.len()).filter(|place| !(20..24).contains(place)) {
            let mut damaged = copy.clone();
            damaged[place] ^= 0x10;
            file.write_all_at(&damaged, offset(1)).unwrap();
            assert_eq!(read(&file), Found::Damaged, "byte {place}");
        }
        file.write_all_at(&copy, offset(1)).unwrap();
        assert_eq!(read(&file), Found::Value(state(1)));
    }

    #[test]
    fn invalidated_record_is_damaged_until_the_next_write() {
        let file = file();
        let (mut record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        for generation in 0..3 {
            record.write(&state(generation)).unwrap();
            record.invalidate().unwrap();
            assert_eq!(read(&file), Found::Damaged);
            record.write(&state(generation)).unwrap();
            assert_eq!(read(&file), Found::Value(state(generation)));
        }
    }

    #[test]
    fn value_too_large_is_refused_and_the_former_one_stays() {
        let file = file();
        let (mut record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        record.write(&state(1)).unwrap();
        let large = State { config: vec![0; COPY_SIZE], ..State::default() };
        assert!(matches!(record.write(&large), Err(WriteError::TooLarge(COPY_SIZE..))));
        assert_eq!(read(&file), Found::Value(state(1)));
    }
}
