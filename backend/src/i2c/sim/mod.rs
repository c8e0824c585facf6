// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated I2C bus: the targets of a board, the faults that a test injects, and a journal of what went over the wire.

mod at24c02;
mod ds1307;
mod faults;
mod lm75;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use self::faults::{Fault, Faults, Injection};
use self::wire::Record;
use super::bus::{Address, Bus, Cause, Data, Failure, Message};
use super::time::Clock;
use crate::sim::Parts;
use crate::sim::board::{Model, Target as Description};
use crate::sim::control::Control;
use crate::sim::journal::Journal;
use crate::watch::Watcher;

/// As many as the kernel's adapters join (`I2C_RDWR_IOCTL_MAX_MSGS`).
const LONGEST_TRANSACTION: usize = 42;

/// What answers at an address.
trait Target: Send {
    /// The address went over the bus: whether the target acknowledges it.
    fn start(&mut self) -> bool;
    /// A byte for the target: whether it acknowledges it.
    fn write(&mut self, byte: u8) -> bool;
    /// A byte from the target.
    fn read(&mut self) -> u8;
    /// The transaction is over.
    fn stop(&mut self);
    /// Takes a temperature, if it is a thermometer.
    fn set_temperature(&mut self, _celsius: f64) -> bool {
        false
    }
}

/// A bus with the targets of a board.
pub struct SimulatedBus {
    /// By [`Address::number`].
    targets: BTreeMap<u16, Box<dyn Target>>,
    faults: Faults,
    /// How long the adapter keeps the end of the present transaction to itself.
    late: Duration,
    journal: Journal,
    control: Option<Control>,
}

/// What the control socket takes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Command {
    Inject(Injection),
    SetTemperature { address: u16, celsius: f64 },
}

impl SimulatedBus {
    /// Builds the bus that the board describes.
    ///
    /// # Errors
    /// When two targets have one address, or one has an address that is none.
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        let Parts { board, journal, control } = parts;
        let mut targets = BTreeMap::new();
        for Description { address, model } in board.i2c.targets {
            anyhow::ensure!(
                Address::from_number(address).is_some(),
                "the board has a target at {address:#x}: 0x7f is the last address, and those of 10 bits are 0xa000 \
                 to 0xa3ff"
            );
            let twice = targets.insert(address, build(&model)).is_some();
            anyhow::ensure!(!twice, "the board has two targets at {address:#x}");
        }
        Ok(Self { targets, faults: Faults::default(), late: Duration::ZERO, journal, control })
    }

    fn obey(targets: &mut BTreeMap<u16, Box<dyn Target>>, faults: &mut Faults, command: Command) -> Answer {
        match command {
            Command::Inject(injection) => faults.inject(injection),
            Command::SetTemperature { address, celsius } => {
                let set = targets.get_mut(&address).is_some_and(|target| target.set_temperature(celsius));
                if !set {
                    return Err(format!("there is no thermometer at {address:#x}"));
                }
            }
        }
        Ok(Value::Null)
    }

    /// Carries out one message. Says why it ended, if it did before its time.
    fn message(&mut self, message: &mut Message<'_>, record: &mut Record) -> Result<(), Cause> {
        let address = message.address.number();
        record.begin(message);
        match self.faults.strike(address) {
            Some(Fault::Nak) => return Err(Cause::Nak),
            Some(Fault::Timeout) => return Err(Cause::Timeout),
            Some(Fault::Delay(delay)) => std::thread::sleep(delay),
            Some(Fault::Late(delay)) => self.late = delay,
            None => {}
        }
        let target = self.targets.get_mut(&address).ok_or(Cause::Nak)?;
        if !target.start() {
            return Err(Cause::Nak);
        }
        match &mut message.data {
            Data::Write(bytes) => {
                for byte in *bytes {
                    record.byte(*byte);
                    if !target.write(*byte) {
                        return Err(Cause::Nak);
                    }
                }
            }
            Data::Read(bytes) => {
                for byte in bytes.iter_mut() {
                    *byte = target.read();
                    record.byte(*byte);
                }
            }
        }
        Ok(())
    }
}

type Answer = Result<Value, String>;

fn build(model: &Model) -> Box<dyn Target> {
    match *model {
        Model::Lm75 { temperature } => Box::new(lm75::Lm75::new(temperature)),
        Model::At24c02 { page, write_protect, busy_polls } => {
            Box::new(at24c02::At24c02::new(page, write_protect, busy_polls))
        }
        Model::Ds1307 {} => Box::new(ds1307::Ds1307::default()),
    }
}

impl Bus for SimulatedBus {
    fn longest_transaction(&self) -> usize {
        LONGEST_TRANSACTION
    }

    fn clock(&self) -> Clock {
        Clock::STANDARD
    }

    fn transfer(&mut self, messages: &mut [Message<'_>]) -> Result<(), Failure> {
        let mut record = Record::default();
        let mut result = Ok(());
        for (done, message) in messages.iter_mut().enumerate() {
            if let Err(cause) = self.message(message, &mut record) {
                result = Err(Failure { done, cause });
                break;
            }
        }
        for message in messages.iter() {
            if let Some(target) = self.targets.get_mut(&message.address.number()) {
                target.stop();
            }
        }
        record.end(result);
        self.journal.record("i2c", &record);
        std::thread::sleep(std::mem::take(&mut self.late));
        result
    }

    fn watch(&mut self, watcher: &Watcher, first: u32) -> io::Result<()> {
        self.control.as_mut().map_or(Ok(()), |control| control.watch(watcher, first))
    }

    fn event(&mut self, token: u32) {
        let Self { targets, faults, control, .. } = self;
        if let Some(control) = control {
            control.event(token, |command| Self::obey(targets, faults, command));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bus(board: &str) -> (SimulatedBus, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let journal = Journal::append_to(file.path()).unwrap();
        let board = toml::from_str(board).unwrap();
        (SimulatedBus::new(Parts { board, journal, control: None }).unwrap(), file)
    }

    fn lm75() -> (SimulatedBus, tempfile::NamedTempFile) {
        bus("[[i2c.target]]\naddress = 0x48\nmodel = \"lm75\"\ntemperature = 23.5")
    }

    fn write(address: u16, bytes: &[u8]) -> Message<'_> {
        Message { address: Address::SevenBit(address), data: Data::Write(bytes) }
    }

    fn read(address: u16, bytes: &mut [u8]) -> Message<'_> {
        Message { address: Address::SevenBit(address), data: Data::Read(bytes) }
    }

    fn journal(file: &tempfile::NamedTempFile) -> Vec<String> {
        std::fs::read_to_string(file.path()).unwrap().lines().map(str::to_owned).collect()
    }

    fn obey(bus: &mut SimulatedBus, command: &str) -> Answer {
        SimulatedBus::obey(&mut bus.targets, &mut bus.faults, serde_json::from_str(command).unwrap())
    }

    #[test]
    fn the_journal_shows_the_wire() {
        let (mut bus, file) = lm75();
        let mut temperature = [0; 2];
        bus.transfer(&mut [write(0x48, &[0]), read(0x48, &mut temperature)]).unwrap();
        assert_eq!(temperature, [0x17, 0x80]);
        let expected = concat!(
            r#"{"seq":1,"bus":"i2c","messages":[{"address":72,"write":"00"},{"address":72,"read":"1780"}],"#,
            r#""result":"ok"}"#
        );
        assert_eq!(journal(&file), [expected]);
    }

    #[test]
    fn nobody_answers_where_nobody_is() {
        let (mut bus, file) = lm75();
        let failure = bus.transfer(&mut [write(0x48, &[0]), write(0x49, &[1, 2])]).unwrap_err();
        assert_eq!(failure, Failure { done: 1, cause: Cause::Nak });
        assert!(
            journal(&file)[0].contains(r#"{"address":73,"write":""}"#),
            "no data follows a refused address"
        );
        assert!(journal(&file)[0].ends_with(r#""result":"nak"}"#));
    }

    #[test]
    fn faults_strike_as_often_as_they_were_asked_to() {
        let (mut bus, file) = lm75();
        obey(&mut bus, r#"{"inject":{"address":72,"fault":"nak","count":2}}"#).unwrap();
        obey(&mut bus, r#"{"inject":{"address":72,"fault":"timeout"}}"#).unwrap();
        obey(&mut bus, r#"{"inject":{"address":72,"fault":{"delay-ms":1}}}"#).unwrap();
        let causes: Vec<_> = (0..5)
            .map(|_| bus.transfer(&mut [write(0x48, &[0])]).err().map(|failure| failure.cause))
            .collect();
        assert_eq!(causes, [Some(Cause::Nak), Some(Cause::Nak), Some(Cause::Timeout), None, None]);
        assert_eq!(journal(&file).len(), 5);
    }

    #[test]
    fn the_temperature_can_be_set_where_there_is_a_thermometer() {
        let (mut bus, _file) = lm75();
        obey(&mut bus, r#"{"set-temperature":{"address":72,"celsius":30.25}}"#).unwrap();
        let mut temperature = [0; 2];
        bus.transfer(&mut [write(0x48, &[0]), read(0x48, &mut temperature)]).unwrap();
        assert_eq!(temperature, [30, 0x40]);
        assert!(obey(&mut bus, r#"{"set-temperature":{"address":73,"celsius":1}}"#).is_err());
    }

    #[test]
    fn a_board_without_sense_is_refused() {
        let twice = "[[i2c.target]]\naddress = 0x68\nmodel = \"ds1307\"\n".repeat(2);
        let board = toml::from_str(&twice).unwrap();
        assert!(SimulatedBus::new(Parts { board, ..Parts::default() }).is_err());
        let nowhere = "[[i2c.target]]\naddress = 0xa400\nmodel = \"ds1307\"\n";
        let board = toml::from_str(nowhere).unwrap();
        assert!(SimulatedBus::new(Parts { board, ..Parts::default() }).is_err());
    }
}
