// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The real-time clock DS1307: seven registers of time in BCD, one of control, 56 bytes of RAM. Its time is
//! the host's in UTC, until it is set.

use std::time::{SystemTime, UNIX_EPOCH};

use super::TargetModel;

/// Number of the time registers, seconds to years. The control register follows.
const CLOCK: usize = 7;
/// Number of registers. The pointer wraps around in them.
const REGISTERS: u8 = 64;
/// The bit in the register of the seconds that stops the oscillator.
const HALT: u8 = 0x80;
const DAY: i64 = 86_400;

pub(super) struct Ds1307 {
    registers: [u8; REGISTERS as usize],
    /// Seconds by which this clock is ahead of the host's; unused while it is halted.
    offset: i64,
    halted: bool,
    pointer: u8,
    /// The next byte written is the pointer.
    addressed: bool,
    /// The time registers were written in this transaction.
    set: bool,
}

impl Default for Ds1307 {
    fn default() -> Self {
        Self {
            registers: [0; REGISTERS as usize],
            offset: 0,
            halted: false,
            pointer: 0,
            addressed: false,
            set: false,
        }
    }
}

fn host_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(0)
}

impl Ds1307 {
    /// Writes the present time to the registers, as the chip does at each start condition.
    fn latch(&mut self) {
        if !self.halted {
            let time = Calendar::from_seconds(host_time() + self.offset).to_registers();
            for (register, value) in self.registers.iter_mut().zip(time) {
                *register = value;
            }
        }
    }

    /// Sets the clock to the time in the registers.
    fn set_clock(&mut self) {
        let mut time = [0; CLOCK];
        for (byte, register) in time.iter_mut().zip(self.registers) {
            *byte = register;
        }
        self.halted = time.first().is_some_and(|seconds| seconds & HALT != 0);
        self.offset = Calendar::from_registers(time).to_seconds() - host_time();
    }
}

impl TargetModel for Ds1307 {
    fn start(&mut self) -> bool {
        self.addressed = false;
        if !self.set {
            self.latch();
        }
        true
    }

    fn write(&mut self, byte: u8) -> bool {
        if !self.addressed {
            self.pointer = byte % REGISTERS;
            self.addressed = true;
            return true;
        }
        let at = usize::from(self.pointer);
        if let Some(register) = self.registers.get_mut(at) {
            *register = byte;
        }
        self.set |= at < CLOCK;
        self.pointer = (self.pointer + 1) % REGISTERS;
        true
    }

    fn read(&mut self) -> u8 {
        let byte = self.registers.get(usize::from(self.pointer)).copied().unwrap_or(0);
        self.pointer = (self.pointer + 1) % REGISTERS;
        byte
    }

    fn stop(&mut self) {
        if std::mem::take(&mut self.set) {
            self.set_clock();
        }
    }
}

/// A date and time of the years 2000 to 2099, in the order of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calendar {
    second: u8,
    minute: u8,
    hour: u8,
    /// 1 to 7; 1 is Sunday.
    weekday: u8,
    day: u8,
    month: u8,
    /// Years since 2000.
    year: u8,
}

/// 2000-01-01 in seconds since 1970.
const EPOCH: i64 = 946_684_800;

impl Calendar {
    fn from_seconds(seconds: i64) -> Self {
        let since = (seconds - EPOCH).clamp(0, 36_525 * DAY - 1);
        let (mut days, rest) = (since / DAY, since % DAY);
        let weekday = small((days + 6) % 7 + 1);
        let mut year = 0;
        while days >= days_of_year(year) {
            days -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while days >= days_of_month(year, month) {
            days -= days_of_month(year, month);
            month += 1;
        }
        Self {
            second: small(rest % 60),
            minute: small(rest / 60 % 60),
            hour: small(rest / 3600),
            weekday,
            day: small(days + 1),
            month,
            year,
        }
    }

    fn to_seconds(self) -> i64 {
        let years: i64 = (0..self.year).map(days_of_year).sum();
        let months: i64 = (1..self.month.min(12)).map(|month| days_of_month(self.year, month)).sum();
        let days = years + months + i64::from(self.day.max(1)) - 1;
        EPOCH
            + days * DAY
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }

    fn to_registers(self) -> [u8; CLOCK] {
        let Self { second, minute, hour, weekday, day, month, year } = self;
        [second, minute, hour, weekday, day, month, year].map(|value| ((value / 10) << 4) | (value % 10))
    }

    /// The bits above each value have other meanings: halt, 12-hour mode. The latter is not modelled.
    fn from_registers(registers: [u8; CLOCK]) -> Self {
        let bcd = |value: u8, mask: u8| ((value & mask) >> 4) * 10 + (value & mask & 0x0f).min(9);
        let [second, minute, hour, weekday, day, month, year] = registers;
        Self {
            second: bcd(second, 0x7f),
            minute: bcd(minute, 0x7f),
            hour: bcd(hour, 0x3f),
            weekday: bcd(weekday, 0x07),
            day: bcd(day, 0x3f),
            month: bcd(month, 0x1f),
            year: bcd(year, 0xff),
        }
    }
}

fn days_of_year(year: u8) -> i64 {
    if year.is_multiple_of(4) { 366 } else { 365 }
}

fn days_of_month(year: u8, month: u8) -> i64 {
    match month {
        2 if year.is_multiple_of(4) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Converts a value that is small by its computation.
fn small(value: i64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_converted_to_registers_and_back() {
        // 2024-02-29 12:34:56, a Thursday.
        let seconds = 1_709_210_096;
        let date = Calendar::from_seconds(seconds);
        let expected = Calendar { second: 56, minute: 34, hour: 12, weekday: 5, day: 29, month: 2, year: 24 };
        assert_eq!(date, expected);
        assert_eq!(date.to_registers(), [0x56, 0x34, 0x12, 5, 0x29, 2, 0x24]);
        assert_eq!(Calendar::from_registers(date.to_registers()).to_seconds(), seconds);
        for day in 0..36_525 {
            let seconds = EPOCH + day * DAY;
            assert_eq!(
                Calendar::from_registers(Calendar::from_seconds(seconds).to_registers()).to_seconds(),
                seconds
            );
        }
    }

    fn write(clock: &mut Ds1307, bytes: &[u8]) {
        assert!(clock.start() && bytes.iter().all(|byte| clock.write(*byte)));
        clock.stop();
    }

    fn read(clock: &mut Ds1307, pointer: u8, count: usize) -> Vec<u8> {
        assert!(clock.start() && clock.write(pointer) && clock.start());
        let bytes = (0..count).map(|_| clock.read()).collect();
        clock.stop();
        bytes
    }

    #[test]
    fn a_clock_continues_from_the_time_that_was_set() {
        let mut clock = Ds1307::default();
        write(&mut clock, &[0, 0, 0x34, 0x12, 5, 0x29, 2, 0x24]);
        assert_eq!(read(&mut clock, 1, 6), [0x34, 0x12, 5, 0x29, 2, 0x24]);
    }

    #[test]
    fn a_halted_clock_keeps_its_time() {
        let mut clock = Ds1307::default();
        write(&mut clock, &[0, HALT | 0x30, 0x34, 0x12, 5, 0x29, 2, 0x24]);
        assert_eq!(read(&mut clock, 0, 2), [HALT | 0x30, 0x34]);
    }

    #[test]
    fn ram_keeps_its_bytes_and_the_pointer_wraps_around() {
        let mut clock = Ds1307::default();
        write(&mut clock, &[62, 1, 2]);
        assert_eq!(read(&mut clock, 62, 2), [1, 2]);
    }
}
