// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The temperature sensor LM75 (with the resolution of the LM75A): a pointer and four registers.

use super::TargetModel;

const TEMPERATURE: u8 = 0;
const CONFIGURATION: u8 = 1;
const HYSTERESIS: u8 = 2;
const OVER_TEMPERATURE: u8 = 3;

/// Temperatures are in 1/256 degrees, in steps of 1/8 degree.
const STEPS_PER_DEGREE: f64 = 8.0;
const STEP: i16 = 32;

pub(super) struct Lm75 {
    temperature: i16,
    configuration: u8,
    hysteresis: u16,
    over_temperature: u16,
    pointer: u8,
    /// Number of bytes of this message so far. The first byte of a write is the pointer.
    position: u8,
}

impl Lm75 {
    pub(super) fn new(celsius: f64) -> Self {
        let mut sensor = Self {
            temperature: 0,
            configuration: 0,
            hysteresis: 75 << 8,
            over_temperature: 80 << 8,
            pointer: TEMPERATURE,
            position: 0,
        };
        sensor.set_temperature(celsius);
        sensor
    }

    fn register(&self) -> u16 {
        match self.pointer {
            TEMPERATURE => self.temperature.cast_unsigned(),
            // One byte, which is repeated.
            CONFIGURATION => u16::from_be_bytes([self.configuration; 2]),
            HYSTERESIS => self.hysteresis,
            _ => self.over_temperature,
        }
    }
}

impl TargetModel for Lm75 {
    fn start(&mut self) -> bool {
        self.position = 0;
        true
    }

    fn write(&mut self, byte: u8) -> bool {
        let limit = match self.pointer {
            HYSTERESIS => Some(&mut self.hysteresis),
            OVER_TEMPERATURE => Some(&mut self.over_temperature),
            _ => None,
        };
        match (self.position, limit) {
            (0, _) => self.pointer = byte & 3,
            (1, None) if self.pointer == CONFIGURATION => self.configuration = byte,
            (1, Some(limit)) => *limit = (*limit & 0x00ff) | (u16::from(byte) << 8),
            (2, Some(limit)) => *limit = (*limit & 0xff00) | u16::from(byte & 0x80),
            _ => {}
        }
        self.position = self.position.saturating_add(1);
        true
    }

    fn read(&mut self) -> u8 {
        let [high, low] = self.register().to_be_bytes();
        let byte = if self.position.is_multiple_of(2) { high } else { low };
        self.position = self.position.wrapping_add(1);
        byte
    }

    fn stop(&mut self) {}

    fn set_temperature(&mut self, celsius: f64) -> bool {
        // Within the range of the sensor, so that the cast drops only the fraction.
        let steps = (celsius.clamp(-55.0, 125.0) * STEPS_PER_DEGREE).round();
        #[allow(clippy::cast_possible_truncation, reason = "clamped, and casts of floats saturate")]
        let steps = steps as i16;
        self.temperature = steps * STEP;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sensor: &mut Lm75, pointer: u8) -> u16 {
        assert!(sensor.start() && sensor.write(pointer) && sensor.start());
        u16::from_be_bytes([sensor.read(), sensor.read()])
    }

    #[test]
    fn temperatures_are_in_twos_complement() {
        assert_eq!(read(&mut Lm75::new(23.5), TEMPERATURE), 0x1780);
        assert_eq!(read(&mut Lm75::new(-0.5), TEMPERATURE), 0xff80);
        assert_eq!(read(&mut Lm75::new(1000.0), TEMPERATURE), 0x7d00);
    }

    #[test]
    fn limits_have_defaults_and_can_be_written() {
        let mut sensor = Lm75::new(20.0);
        assert_eq!(read(&mut sensor, HYSTERESIS), 0x4b00);
        assert_eq!(read(&mut sensor, OVER_TEMPERATURE), 0x5000);
        sensor.start();
        for byte in [OVER_TEMPERATURE, 0x55, 0xff] {
            assert!(sensor.write(byte));
        }
        assert_eq!(read(&mut sensor, OVER_TEMPERATURE), 0x5580, "limits have nine bits");
    }

    #[test]
    fn the_configuration_has_one_byte() {
        let mut sensor = Lm75::new(20.0);
        assert!(sensor.start() && sensor.write(CONFIGURATION) && sensor.write(0x12));
        assert_eq!(read(&mut sensor, CONFIGURATION), 0x1212);
    }
}
