// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A value in a file that is there whole whenever its writer dies: two copies, of which the older is overwritten.
//!
//! A copy has a number and a checksum. A reader takes the newest that is sound. The file never changes its size, so that
//! writing cannot fail for want of memory later.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of one copy.
const COPY: usize = 4096;
/// What is before the value: magic and version, length, number, checksum of all else.
const HEADER: usize = 24;
/// The version is part of it: what another version has written is not understood, and so not read.
const MAGIC: u32 = u32::from_le_bytes(*b"XBT2");

/// What is in the file of a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// Nothing: it has not been written.
    Nothing,
    /// The value.
    Value(T),
    /// What was written cannot be read: it is damaged, or of another version of this program.
    Damaged,
}

impl<T> Found<T> {
    /// The value, if it can be read.
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

/// The file of one value, open for its only writer.
#[derive(Debug)]
pub struct Record {
    file: File,
    /// Of the newest copy. The parity says where it is.
    number: u64,
}

impl Record {
    /// Takes up `file`, and reads the value from it if it has one.
    pub fn open<T: DeserializeOwned>(file: File) -> io::Result<(Self, Found<T>)> {
        file.set_len(2 * u64::try_from(COPY).map_err(io::Error::other)?)?;
        let mut number = 0;
        let found = newest(&file)?.map(|(newest, value)| {
            number = newest;
            value
        });
        Ok((Self { file, number }, found))
    }

    /// Reads the value while somebody else may be writing: the one before, or the one after.
    pub fn peek<T: DeserializeOwned>(file: &File) -> io::Result<Found<T>> {
        newest(file).map(|found| found.map(|(_, value)| value))
    }

    /// Writes `value`. When this fails or does not return, the former value is still there.
    pub fn write<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        let number = self.number.wrapping_add(1);
        self.file.write_all_at(&format(number, value)?, offset(number))?;
        self.number = number;
        Ok(())
    }
}

/// The newest sound copy, and its number.
fn newest<T: DeserializeOwned>(file: &File) -> io::Result<Found<(u64, T)>> {
    let mut newest: Option<(u64, T)> = None;
    let mut is_written = false;
    for place in 0..2 {
        let mut copy = vec![0; COPY];
        match file.read_exact_at(&mut copy, offset(place)) {
            // Nobody has written it yet.
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

/// Where the copy of this number is.
fn offset(number: u64) -> u64 {
    if number.is_multiple_of(2) { 0 } else { 4096 }
}

fn format<T: Serialize>(number: u64, value: &T) -> io::Result<Vec<u8>> {
    let value = postcard::to_allocvec(value).map_err(io::Error::other)?;
    if value.len() > COPY - HEADER {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the state is larger than its place"));
    }
    let length = u32::try_from(value.len()).map_err(io::Error::other)?;
    let mut copy = Vec::with_capacity(HEADER + value.len());
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
    fn a_file_without_a_value_has_none() {
        assert_eq!(read(&file()), Found::Nothing);
    }

    #[test]
    fn both_copies_have_their_place() {
        assert_eq!([0, 1, 2].map(offset), [0, u64::try_from(COPY).unwrap(), 0]);
    }

    #[test]
    fn the_newest_value_is_read_also_by_the_next_writer() {
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
    fn a_writer_that_dies_anywhere_leaves_the_value_before_or_the_one_after() {
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
                // What is not written yet may be there already, as part of an older copy.
                assert!(
                    found == before || (found == after && written > HEADER),
                    "{written} bytes: {found:?}"
                );
            }
            file.write_all_at(&copy, offset(record.number + 1)).unwrap();
            assert_eq!(read(&file), Found::Value(after));
        }
    }

    #[test]
    fn what_is_damaged_or_of_another_version_is_not_taken_for_nothing() {
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
    fn a_value_too_large_is_refused_and_the_former_kept() {
        let file = file();
        let (mut record, _) = Record::open::<State>(file.try_clone().unwrap()).unwrap();
        record.write(&state(1)).unwrap();
        let large = State { config: vec![0; COPY], ..State::default() };
        assert_eq!(record.write(&large).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&file), Found::Value(state(1)));
    }
}
