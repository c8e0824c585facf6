// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated I2C bus: the targets of a board, injected faults, and a journal of the transactions.

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
use self::wire::TransactionEntry;
use super::bus::{Address, Bus, Cause, Data, Failure, Message};
use super::time::Clock;
use crate::sim::Simulation;
use crate::sim::board::{I2cTarget, Model};
use crate::sim::control::Control;
use crate::sim::journal::Journal;
use crate::watch::Watcher;

/// The kernel's maximum (`I2C_RDWR_IOCTL_MAX_MSGS`).
const LONGEST_TRANSACTION: usize = 42;

/// A model of a target.
trait TargetModel: Send {
    /// Handles a start condition with the target's address. Returns whether the target acknowledges it.
    fn start(&mut self) -> bool;
    /// Takes a byte. Returns whether the target acknowledges it.
    fn write(&mut self, byte: u8) -> bool;
    /// Returns a byte.
    fn read(&mut self) -> u8;
    /// Handles the stop condition.
    fn stop(&mut self);
    /// Sets the temperature of a thermometer. Returns whether the target is one.
    fn set_temperature(&mut self, _celsius: f64) -> bool {
        false
    }
}

/// A bus with the targets of a board.
pub struct SimulatedBus {
    /// By [`Address::number`].
    targets: BTreeMap<u16, Box<dyn TargetModel>>,
    faults: Faults,
    /// Time by which the adapter returns late from the present transaction.
    late: Duration,
    journal: Journal,
    control: Option<Control>,
}

/// A command of the control socket.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum ControlCommand {
    Inject(Injection),
    SetTemperature { address: u16, celsius: f64 },
}

impl SimulatedBus {
    /// Creates the bus that the board describes.
    ///
    /// # Errors
    /// When two targets have the same address, or an address is invalid.
    pub fn new(simulation: Simulation) -> anyhow::Result<Self> {
        let Simulation { board, journal, control } = simulation;
        let mut targets = BTreeMap::new();
        for I2cTarget { address, model } in board.i2c.targets {
            anyhow::ensure!(
                Address::from_number(address).is_some(),
                "the board has a target at {address:#x}: 0x7f is the last address, and those of 10 bits are \
                 0xa000 to 0xa3ff"
            );
            let twice = targets.insert(address, build(&model)).is_some();
            anyhow::ensure!(!twice, "the board has two targets at {address:#x}");
        }
        Ok(Self { targets, faults: Faults::default(), late: Duration::ZERO, journal, control })
    }

    fn execute(
        targets: &mut BTreeMap<u16, Box<dyn TargetModel>>,
        faults: &mut Faults,
        command: ControlCommand,
    ) -> Result<Value, String> {
        match command {
            ControlCommand::Inject(injection) => faults.inject(injection),
            ControlCommand::SetTemperature { address, celsius } => {
                let set = targets.get_mut(&address).is_some_and(|target| target.set_temperature(celsius));
                if !set {
                    return Err(format!("there is no thermometer at {address:#x}"));
                }
            }
        }
        Ok(Value::Null)
    }

    /// Transfers one message.
    fn message(&mut self, message: &mut Message<'_>, entry: &mut TransactionEntry) -> Result<(), Cause> {
        let address = message.address.number();
        entry.begin_message(message);
        match self.faults.take(address) {
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
                    entry.add_byte(*byte);
                    if !target.write(*byte) {
                        return Err(Cause::Nak);
                    }
                }
            }
            Data::Read(bytes) => {
                for byte in bytes.iter_mut() {
                    *byte = target.read();
                    entry.add_byte(*byte);
                }
            }
        }
        Ok(())
    }
}

fn build(model: &Model) -> Box<dyn TargetModel> {
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
        let mut entry = TransactionEntry::default();
        let mut result = Ok(());
        for (done, message) in messages.iter_mut().enumerate() {
            if let Err(cause) = self.message(message, &mut entry) {
                result = Err(Failure { done, cause });
                break;
            }
        }
        for message in messages.iter() {
            if let Some(target) = self.targets.get_mut(&message.address.number()) {
                target.stop();
            }
        }
        entry.end(result);
        self.journal.append("i2c", &entry);
        std::thread::sleep(std::mem::take(&mut self.late));
        result
    }

    fn watch(&mut self, watcher: &Watcher, first: u32) -> io::Result<()> {
        self.control.as_mut().map_or(Ok(()), |control| control.watch(watcher, first))
    }

    fn handle_event(&mut self, token: u32) {
        let Self { targets, faults, control, .. } = self;
        if let Some(control) = control {
            control.handle_event(token, |command| Self::execute(targets, faults, command));
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
        (SimulatedBus::new(Simulation { board, journal, control: None }).unwrap(), file)
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

    fn execute(bus: &mut SimulatedBus, command: &str) -> Result<Value, String> {
        SimulatedBus::execute(&mut bus.targets, &mut bus.faults, serde_json::from_str(command).unwrap())
    }

    #[test]
    fn the_journal_has_the_messages_of_a_transaction() {
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
    fn an_address_without_a_target_is_not_acknowledged() {
        let (mut bus, file) = lm75();
        let failure = bus.transfer(&mut [write(0x48, &[0]), write(0x49, &[1, 2])]).unwrap_err();
        assert_eq!(failure, Failure { done: 1, cause: Cause::Nak });
        assert!(
            journal(&file)[0].contains(r#"{"address":73,"write":""}"#),
            "no data after an address that is not acknowledged"
        );
        assert!(journal(&file)[0].ends_with(r#""result":"nak"}"#));
    }

    #[test]
    fn faults_apply_as_often_as_they_were_injected() {
        let (mut bus, file) = lm75();
        execute(&mut bus, r#"{"inject":{"address":72,"fault":"nak","count":2}}"#).unwrap();
        execute(&mut bus, r#"{"inject":{"address":72,"fault":"timeout"}}"#).unwrap();
        execute(&mut bus, r#"{"inject":{"address":72,"fault":{"delay-ms":1}}}"#).unwrap();
        let causes: Vec<_> = (0..5)
            .map(|_| bus.transfer(&mut [write(0x48, &[0])]).err().map(|failure| failure.cause))
            .collect();
        assert_eq!(causes, [Some(Cause::Nak), Some(Cause::Nak), Some(Cause::Timeout), None, None]);
        assert_eq!(journal(&file).len(), 5);
    }

    #[test]
    fn the_temperature_of_a_thermometer_can_be_set() {
        let (mut bus, _file) = lm75();
        execute(&mut bus, r#"{"set-temperature":{"address":72,"celsius":30.25}}"#).unwrap();
        let mut temperature = [0; 2];
        bus.transfer(&mut [write(0x48, &[0]), read(0x48, &mut temperature)]).unwrap();
        assert_eq!(temperature, [30, 0x40]);
        assert!(execute(&mut bus, r#"{"set-temperature":{"address":73,"celsius":1}}"#).is_err());
    }

    #[test]
    fn a_board_with_repeated_or_invalid_addresses_is_an_error() {
        let twice = "[[i2c.target]]\naddress = 0x68\nmodel = \"ds1307\"\n".repeat(2);
        let board = toml::from_str(&twice).unwrap();
        assert!(SimulatedBus::new(Simulation { board, ..Simulation::default() }).is_err());
        let nowhere = "[[i2c.target]]\naddress = 0xa400\nmodel = \"ds1307\"\n";
        let board = toml::from_str(nowhere).unwrap();
        assert!(SimulatedBus::new(Simulation { board, ..Simulation::default() }).is_err());
    }
}
