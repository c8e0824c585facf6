// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An I2C adapter of the kernel, by its device node `/dev/i2c-N`.
//!
//! A transaction is one `I2C_RDWR` call, with the repeated starts that the guest asked for. An adapter that
//! supports only SMBus is given the transactions that SMBus has a command for ([`smbus`]).

mod cause;
mod functions;
mod locate;
mod smbus;

use std::io;
use std::path::Path;

use anyhow::Context;
use i2cdev::core::{I2CMessage, I2CTransfer};
use i2cdev::linux::{I2CMessageFlags, LinuxI2CBus, LinuxI2CError, LinuxI2CMessage};
use smallvec::SmallVec;

use self::cause::cause;
use self::functions::Functions;
use self::smbus::Smbus;
use super::bus::{Address, Bus, Cause, Data, Failure, INLINE_MESSAGES, Message};
use super::time::Clock;
use super::turn::BusTurn;
use crate::sysfs::Sysfs;
use crate::watch::Watcher;

/// `I2C_RDWR_IOCTL_MAX_MSGS` of the kernel's interface.
const LONGEST_TRANSACTION: usize = 42;

/// An open adapter.
pub struct Adapter {
    functions: Functions,
    clock: Clock,
    /// The name of the adapter that has the bus: this one, unless it is behind a multiplexer.
    root: String,
    interface: Interface,
}

enum Interface {
    I2c(LinuxI2CBus),
    Smbus(Smbus),
}

impl Adapter {
    /// Opens the adapter that `wanted` names: by number, name, or device-tree path.
    ///
    /// # Errors
    /// When there is no such adapter (the error lists the others), or it cannot be opened or used.
    pub fn open(wanted: &str) -> anyhow::Result<Self> {
        let sysfs = Sysfs::default();
        let number = locate::find(&sysfs, wanted)?;
        let (root, frequency) = locate::bus(&sysfs, number)?;
        let clock = frequency.and_then(Clock::new).unwrap_or(Clock::STANDARD);
        let adapter = Self::at(Path::new(&format!("/dev/i2c-{number}")), clock, root)?;
        let note = if frequency.is_some() { "" } else { " (assumed)" };
        log::info!(
            "adapter {wanted} is number {number}, at {} Hz{note}, with {:?}",
            clock.hertz(),
            adapter.functions
        );
        Ok(adapter)
    }

    /// Opens the turns at this adapter of the daemons with the same `directory`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn turn(&self, directory: &Path) -> anyhow::Result<BusTurn> {
        BusTurn::open(directory, &self.root).with_context(|| {
            format!("cannot create locks in {}: name another directory with --turns", directory.display())
        })
    }

    fn at(node: &Path, clock: Clock, root: String) -> anyhow::Result<Self> {
        let bus = LinuxI2CBus::new(node).map_err(io::Error::from).with_context(|| {
            format!("cannot open {}: is i2c-dev loaded, and may this user open it?", node.display())
        })?;
        let functions = functions::of(&bus)
            .with_context(|| format!("{} does not report its functions", node.display()))?;
        let interface = if functions.contains(Functions::I2C) {
            Interface::I2c(bus)
        } else if functions.intersects(Functions::ANY_SMBUS) {
            let opened = Smbus::open(node, functions).map_err(io::Error::from);
            Interface::Smbus(opened.with_context(|| format!("cannot use {} for SMBus", node.display()))?)
        } else {
            anyhow::bail!("{} supports neither I2C nor SMBus as a controller", node.display());
        };
        Ok(Self { functions, clock, root, interface })
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
        match &mut self.interface {
            Interface::I2c(bus) => transfer(bus, messages),
            Interface::Smbus(smbus) => smbus.transfer(messages).map_err(|cause| Failure { done: 0, cause }),
        }
    }

    /// Nothing to watch: the kernel's calls block.
    fn watch(&mut self, _watcher: &Watcher, _first: u32) -> io::Result<()> {
        Ok(())
    }

    fn handle_event(&mut self, _token: u32) {}
}

fn transfer(bus: &mut LinuxI2CBus, messages: &mut [Message<'_>]) -> Result<(), Failure> {
    let mut calls: SmallVec<[LinuxI2CMessage<'_>; INLINE_MESSAGES]> =
        messages.iter_mut().map(kernel_message).collect();
    outcome(calls.len(), bus.transfer(&mut calls))
}

/// Converts the result of `I2C_RDWR` for `count` messages. It is the number of messages that were done, which
/// some adapters (such as Linux's for virtio) return smaller than `count`; or an error, after which that
/// number is unknown.
fn outcome(count: usize, result: Result<u32, LinuxI2CError>) -> Result<(), Failure> {
    match result.map(|done| usize::try_from(done).unwrap_or(0)) {
        Ok(done) if done < count => Err(Failure { done, cause: Cause::Nak }),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure { done: 0, cause: cause(error) }),
    }
}

/// Converts a message for `I2C_RDWR`. Its length fits in 16 bits, since the device has the kernel's limit.
fn kernel_message<'a>(message: &'a mut Message<'_>) -> LinuxI2CMessage<'a> {
    let (address, form) = kernel_address(message.address);
    let (message, direction) = match &mut message.data {
        Data::Write(bytes) => (LinuxI2CMessage::write(bytes), I2CMessageFlags::empty()),
        Data::Read(bytes) => (LinuxI2CMessage::read(bytes), I2CMessageFlags::READ),
    };
    message.with_address(address).with_flags(direction | form)
}

/// Returns the bits of an address, and the flag of its form.
fn kernel_address(address: Address) -> (u16, I2CMessageFlags) {
    match address {
        Address::SevenBit(address) => (address, I2CMessageFlags::empty()),
        Address::TenBit(address) => (address, I2CMessageFlags::TEN_BIT_ADDRESS),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// A message must not be reported as done unless it is known to be.
    #[test]
    fn messages_after_a_kernel_error_count_as_not_done() {
        for done in 0..3 {
            let result = outcome(3, Ok(done));
            assert_eq!(result, Err(Failure { done: usize::try_from(done).unwrap(), cause: Cause::Nak }));
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
            let result = outcome(3, Err(LinuxI2CError::Errno(error.raw_os_error())));
            assert_eq!(result, Err(Failure { done: 0, cause }));
        }
    }

    #[test]
    fn a_node_that_is_not_an_adapter_is_an_error_with_its_path() {
        let root = tempfile::tempdir().unwrap();
        let error =
            |node: &Path| format!("{:#}", Adapter::at(node, Clock::STANDARD, String::new()).err().unwrap());
        // These cannot be opened, not even by root.
        let (nothing, directory) = (root.path().join("nothing"), root.path());
        for node in [&nothing, directory] {
            let why = "is i2c-dev loaded, and may this user open it?";
            let expected = format!("cannot open {}: {why}: ", node.display());
            assert!(error(node).starts_with(&expected), "{}", error(node));
        }
        let (null, expected) = (Path::new("/dev/null"), "/dev/null does not report its functions: ");
        assert!(error(null).starts_with(expected), "{}", error(null));
    }

    /// `I2C_M_TEN` of the kernel's interface, without the 0xa000 that Linux adds to such addresses elsewhere.
    #[test]
    fn a_10_bit_address_is_its_bits_and_a_flag() {
        for bits in [0, 0x48, 0x7f] {
            let (address, flags) = kernel_address(Address::SevenBit(bits));
            assert_eq!((address, flags.bits()), (bits, 0));
        }
        for bits in [0, 0x48, 0x150, 0x3ff] {
            let (address, flags) = kernel_address(Address::from_number(0xa000 | bits).unwrap());
            assert_eq!((address, flags.bits()), (bits, 0x10));
        }
    }

    /// No message of such a transaction reaches the kernel: one that does fails, because the node is not an
    /// adapter.
    #[test]
    fn an_adapter_without_10_bit_addresses_is_given_none() {
        let (seven, ten) = (Address::SevenBit(0x50), Address::TenBit(0x50));
        let result = |functions, addresses: &[Address]| {
            let interface = Interface::I2c(LinuxI2CBus::new("/dev/null").unwrap());
            let message = |address: &Address| Message { address: *address, data: Data::Write(&[7]) };
            let mut messages: Vec<_> = addresses.iter().map(message).collect();
            let (clock, root) = (Clock::STANDARD, String::new());
            let mut adapter = Adapter { functions, clock, root, interface };
            adapter.transfer(&mut messages).map_err(|failure| failure.cause)
        };
        let reached = Err(Cause::Kernel(Errno::NOTTY.raw_os_error()));
        for addresses in [&[ten][..], &[ten, seven], &[seven, ten]] {
            assert_eq!(result(Functions::I2C, addresses), Err(Cause::Unsupported));
            assert_eq!(result(Functions::I2C | Functions::TEN_BIT_ADDRESS, addresses), reached);
        }
        assert_eq!(result(Functions::I2C, &[seven, seven]), reached);
    }

    /// The adapter of BACKEND_TEST_ADAPTER must have an EEPROM of 256 bytes at 0x50 and nothing at 0x57.
    const EEPROM: Address = Address::SevenBit(0x50);
    const UNUSED: Address = Address::SevenBit(0x57);

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
        assert!(write(adapter, UNUSED, &[]).is_err());
    }

    #[test]
    #[ignore = "needs an adapter"]
    fn an_i2c_adapter_transfers_messages() {
        let mut adapter = adapter();
        assert!(matches!(adapter.interface, Interface::I2c(_)));
        works(&mut adapter);
        assert_eq!(read::<64>(&mut adapter, 0).map(|_| ()), Ok(()));
        let ten_bit = write(&mut adapter, Address::TenBit(0x150), &[1]);
        assert_eq!(ten_bit, Err(Cause::Unsupported), "unless the adapter reports that function");
    }

    #[test]
    #[ignore = "needs an adapter"]
    fn an_smbus_adapter_transfers_messages_that_are_commands() {
        let mut adapter = adapter();
        let number =
            locate::find(&Sysfs::default(), &std::env::var("BACKEND_TEST_ADAPTER").unwrap()).unwrap();
        let node = format!("/dev/i2c-{number}");
        adapter.interface = Interface::Smbus(Smbus::open(Path::new(&node), adapter.functions).unwrap());
        works(&mut adapter);
        assert_eq!(read::<64>(&mut adapter, 0), Err(Cause::Unsupported));
    }
}
