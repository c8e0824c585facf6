// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An I2C adapter of the kernel, by its device node `/dev/i2c-N`.
//!
//! Where the adapter can, a transaction is one `I2C_RDWR` call, with the repeated starts that the guest asked for.
//! Adapters that only speak SMBus get those transactions that SMBus has a form for: [`smbus`] knows which.

mod functions;
mod locate;
mod smbus;

use std::io;
use std::path::Path;

use anyhow::Context;
use i2cdev::core::{I2CMessage, I2CTransfer};
use i2cdev::linux::{I2CMessageFlags, LinuxI2CBus, LinuxI2CError, LinuxI2CMessage};
use rustix::io::Errno;
use smallvec::SmallVec;

use self::functions::Functions;
use self::smbus::Smbus;
use super::bus::{Address, Bus, Cause, Data, FEW, Failure, Message};
use super::time::Clock;
use super::turn::Turn;
use crate::sysfs::Sysfs;
use crate::watch::Watcher;

/// `I2C_RDWR_IOCTL_MAX_MSGS` of the kernel's interface.
const LONGEST_TRANSACTION: usize = 42;

/// An adapter of the kernel.
pub struct Adapter {
    functions: Functions,
    clock: Clock,
    /// The name of the adapter that has the bus: of this one, if it is not behind a multiplexer.
    root: String,
    way: Way,
}

enum Way {
    Plain(LinuxI2CBus),
    Smbus(Smbus),
}

impl Adapter {
    /// Opens the adapter that `wanted` names: by number, name, or device-tree path.
    ///
    /// # Errors
    /// When there is no such adapter (the message says which there are), or it cannot be opened or used.
    pub fn open(wanted: &str) -> anyhow::Result<Self> {
        let sysfs = Sysfs::default();
        let number = locate::find(&sysfs, wanted)?;
        let (root, frequency) = locate::bus(&sysfs, number)?;
        let clock = frequency.and_then(Clock::new).unwrap_or(Clock::STANDARD);
        let adapter = Self::at(Path::new(&format!("/dev/i2c-{number}")), clock, root)?;
        let said = if frequency.is_some() { "" } else { ", since it does not say" };
        log::info!(
            "adapter {wanted} is {number}, at {} Hz{said}, with {:?}",
            clock.hertz(),
            adapter.functions
        );
        Ok(adapter)
    }

    /// The turns of those who name the same `directory` at this adapter.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub fn turn(&self, directory: &Path) -> anyhow::Result<Turn> {
        Turn::open(directory, &self.root).with_context(|| {
            format!(
                "cannot take turns by files in {}: name another directory with --turns",
                directory.display()
            )
        })
    }

    fn at(node: &Path, clock: Clock, root: String) -> anyhow::Result<Self> {
        let bus = LinuxI2CBus::new(node).map_err(io::Error::from).with_context(|| {
            format!("cannot open {}: is the kernel's i2c-dev there, and the node yours?", node.display())
        })?;
        let functions = functions::of(&bus)
            .with_context(|| format!("{} does not say what an adapter can do", node.display()))?;
        let way = if functions.contains(Functions::I2C) {
            Way::Plain(bus)
        } else if functions.intersects(Functions::ANY_SMBUS) {
            let opened = Smbus::open(node, functions).map_err(io::Error::from);
            Way::Smbus(opened.with_context(|| format!("cannot use {} for SMBus", node.display()))?)
        } else {
            anyhow::bail!("{} can do neither I2C nor SMBus as a controller", node.display());
        };
        Ok(Self { functions, clock, root, way })
    }
}

impl Bus for Adapter {
    fn longest_transaction(&self) -> usize {
        LONGEST_TRANSACTION
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn transfer(&mut self, messages: &mut [Message<'_>]) -> Result<(), Failure> {
        let ten_bit = messages.iter().any(|message| matches!(message.address, Address::TenBit(_)));
        if ten_bit && !self.functions.contains(Functions::TEN_BIT_ADDRESS) {
            return Err(Failure { done: 0, cause: Cause::Unsupported });
        }
        match &mut self.way {
            Way::Plain(bus) => plain(bus, messages),
            Way::Smbus(smbus) => smbus.transfer(messages).map_err(|cause| Failure { done: 0, cause }),
        }
    }

    /// The kernel's calls block; there is nothing to wait for otherwise.
    fn watch(&mut self, _watcher: &Watcher, _first: u32) -> io::Result<()> {
        Ok(())
    }

    fn event(&mut self, _token: u32) {}
}

fn plain(bus: &mut LinuxI2CBus, messages: &mut [Message<'_>]) -> Result<(), Failure> {
    let mut calls: SmallVec<[LinuxI2CMessage<'_>; FEW]> = messages.iter_mut().map(call).collect();
    outcome(calls.len(), bus.transfer(&mut calls))
}

/// What `I2C_RDWR` says of `count` messages. It is a number of messages, which some adapters let be smaller than `count`, as
/// Linux's own for virtio does; or an error, and then the kernel does not say how far it came.
fn outcome(count: usize, said: Result<u32, LinuxI2CError>) -> Result<(), Failure> {
    match said.map(|done| usize::try_from(done).unwrap_or(0)) {
        Ok(done) if done < count => Err(Failure { done, cause: Cause::Nak }),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure { done: 0, cause: cause(error) }),
    }
}

/// What `I2C_RDWR` takes for a message. Its length fits in 16 bits: the device's limit is the kernel's.
fn call<'a>(message: &'a mut Message<'_>) -> LinuxI2CMessage<'a> {
    let (address, form) = target(message.address);
    let (call, direction) = match &mut message.data {
        Data::Write(bytes) => (LinuxI2CMessage::write(bytes), I2CMessageFlags::empty()),
        Data::Read(bytes) => (LinuxI2CMessage::read(bytes), I2CMessageFlags::READ),
    };
    call.with_address(address).with_flags(direction | form)
}

/// The bits of an address, and the flag that says of which form they are.
fn target(address: Address) -> (u16, I2CMessageFlags) {
    match address {
        Address::SevenBit(address) => (address, I2CMessageFlags::empty()),
        Address::TenBit(address) => (address, I2CMessageFlags::TEN_BIT_ADDRESS),
    }
}

/// The kernel's error numbers, by its document "I2C/SMBus fault codes".
fn cause(error: LinuxI2CError) -> Cause {
    let number = io::Error::from(error).raw_os_error().unwrap_or(0);
    match Errno::from_raw_os_error(number) {
        Errno::NXIO | Errno::REMOTEIO => Cause::Nak,
        Errno::TIMEDOUT => Cause::Timeout,
        Errno::AGAIN => Cause::ArbitrationLost,
        Errno::OPNOTSUPP => Cause::Unsupported,
        _ => Cause::Kernel(number),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A message is OK only where it is known to be done: to say so of one that was not is worse than the reverse.
    #[test]
    fn what_the_kernel_does_not_say_was_done_was_not() {
        for done in 0..3 {
            let said = outcome(3, Ok(done));
            assert_eq!(said, Err(Failure { done: usize::try_from(done).unwrap(), cause: Cause::Nak }));
        }
        assert_eq!(outcome(3, Ok(3)), Ok(()));
        for (error, cause) in [
            (Errno::NXIO, Cause::Nak),
            (Errno::REMOTEIO, Cause::Nak),
            (Errno::TIMEDOUT, Cause::Timeout),
            (Errno::AGAIN, Cause::ArbitrationLost),
            (Errno::OPNOTSUPP, Cause::Unsupported),
            (Errno::IO, Cause::Kernel(Errno::IO.raw_os_error())),
        ] {
            let said = outcome(3, Err(LinuxI2CError::Errno(error.raw_os_error())));
            assert_eq!(said, Err(Failure { done: 0, cause }));
        }
    }

    #[test]
    fn a_node_that_is_no_adapter_is_named() {
        let root = tempfile::tempdir().unwrap();
        let complaint =
            |node: &Path| format!("{:#}", Adapter::at(node, Clock::STANDARD, String::new()).err().unwrap());
        // Not to be opened by anybody, whatever this test may.
        let (nothing, directory) = (root.path().join("nothing"), root.path());
        for node in [&nothing, directory] {
            let why = "is the kernel's i2c-dev there, and the node yours?";
            let expected = format!("cannot open {}: {why}: ", node.display());
            assert!(complaint(node).starts_with(&expected), "{}", complaint(node));
        }
        let (null, expected) = (Path::new("/dev/null"), "/dev/null does not say what an adapter can do: ");
        assert!(complaint(null).starts_with(expected), "{}", complaint(null));
    }

    /// `I2C_M_TEN` of the kernel's interface, without the 0xa000 that Linux writes before such addresses elsewhere.
    #[test]
    fn an_address_of_ten_bits_is_its_bits_and_a_flag() {
        for bits in [0, 0x48, 0x7f] {
            let (address, flags) = target(Address::SevenBit(bits));
            assert_eq!((address, flags.bits()), (bits, 0));
        }
        for bits in [0, 0x48, 0x150, 0x3ff] {
            let (address, flags) = target(Address::from_number(0xa000 | bits).unwrap());
            assert_eq!((address, flags.bits()), (bits, 0x10));
        }
    }

    /// No message of such a transaction reaches the kernel. What does ends with the error of a node that is no adapter.
    #[test]
    fn an_adapter_without_ten_bit_addresses_is_not_given_any() {
        let (seven, ten) = (Address::SevenBit(0x50), Address::TenBit(0x50));
        let said = |functions, addresses: &[Address]| {
            let way = Way::Plain(LinuxI2CBus::new("/dev/null").unwrap());
            let message = |address: &Address| Message { address: *address, data: Data::Write(&[7]) };
            let mut messages: Vec<_> = addresses.iter().map(message).collect();
            let (clock, root) = (Clock::STANDARD, String::new());
            Adapter { functions, clock, root, way }.transfer(&mut messages).map_err(|failure| failure.cause)
        };
        let reached = Err(Cause::Kernel(Errno::NOTTY.raw_os_error()));
        for addresses in [&[ten][..], &[ten, seven], &[seven, ten]] {
            assert_eq!(said(Functions::I2C, addresses), Err(Cause::Unsupported));
            assert_eq!(said(Functions::I2C | Functions::TEN_BIT_ADDRESS, addresses), reached);
        }
        assert_eq!(said(Functions::I2C, &[seven, seven]), reached);
    }

    /// An adapter with an EEPROM of 256 bytes at 0x50 and nothing at 0x57: BACKEND_TEST_ADAPTER names it.
    const EEPROM: Address = Address::SevenBit(0x50);
    const NOBODY: Address = Address::SevenBit(0x57);

    fn adapter() -> Adapter {
        Adapter::open(&std::env::var("BACKEND_TEST_ADAPTER").unwrap()).unwrap()
    }

    fn write(adapter: &mut Adapter, address: Address, bytes: &[u8]) -> Result<(), Cause> {
        let mut messages = [Message { address, data: Data::Write(bytes) }];
        adapter.transfer(&mut messages).map_err(|failure| failure.cause)
    }

    fn read<const N: usize>(adapter: &mut Adapter, from: u8) -> Result<[u8; N], Cause> {
        let mut bytes = [0; N];
        let mut messages = [
            Message { address: EEPROM, data: Data::Write(&[from]) },
            Message { address: EEPROM, data: Data::Read(&mut bytes) },
        ];
        adapter.transfer(&mut messages).map_err(|failure| failure.cause)?;
        Ok(bytes)
    }

    fn works(adapter: &mut Adapter) {
        assert_eq!(write(adapter, EEPROM, &[0x10, 1, 2, 3, 4]), Ok(()));
        assert_eq!(read(adapter, 0x10), Ok([1, 2, 3, 4]));
        assert_eq!(write(adapter, EEPROM, &[0x11, 9]), Ok(()));
        assert_eq!(read(adapter, 0x11), Ok([9]));
        assert_eq!(write(adapter, EEPROM, &[0x12, 7, 8]), Ok(()));
        assert_eq!(read(adapter, 0x12), Ok([7, 8]));
        assert_eq!(write(adapter, EEPROM, &[]), Ok(()));
        assert!(write(adapter, NOBODY, &[]).is_err());
    }

    #[test]
    #[ignore = "needs an adapter"]
    fn an_adapter_that_speaks_i2c() {
        let mut adapter = adapter();
        assert!(matches!(adapter.way, Way::Plain(_)));
        works(&mut adapter);
        assert_eq!(read::<64>(&mut adapter, 0).map(|_| ()), Ok(()));
        let ten_bit = write(&mut adapter, Address::TenBit(0x150), &[1]);
        assert_eq!(ten_bit, Err(Cause::Unsupported), "where the adapter does not say that it can");
    }

    #[test]
    #[ignore = "needs an adapter"]
    fn an_adapter_that_speaks_smbus_only() {
        let mut adapter = adapter();
        let number =
            locate::find(&Sysfs::default(), &std::env::var("BACKEND_TEST_ADAPTER").unwrap()).unwrap();
        let node = format!("/dev/i2c-{number}");
        adapter.way = Way::Smbus(Smbus::open(Path::new(&node), adapter.functions).unwrap());
        works(&mut adapter);
        assert_eq!(read::<64>(&mut adapter, 0), Err(Cause::Unsupported));
    }
}
