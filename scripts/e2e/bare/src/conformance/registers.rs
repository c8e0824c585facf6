// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers of virtio-mmio (virtio 1.3, 4.2.2): which exist, which can be read or written, and the
//! widths of accesses.

use anyhow::{Context, Result, ensure};

use super::case::{Test, test};
use super::devices::{each, works};
use crate::machine::Width;
use crate::virtio::device::{ACKNOWLEDGE, DRIVER, Device, Kind};
use crate::virtio::window::{
    CONFIG, CONFIG_GENERATION, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DEVICE_ID, DRIVER_FEATURES,
    DRIVER_FEATURES_SEL, INTERRUPT_ACK, INTERRUPT_STATUS, MAGIC_VALUE, QUEUE_DESC, QUEUE_DEVICE,
    QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_READY, QUEUE_RESET, QUEUE_SEL, QUEUE_SIZE, QUEUE_SIZE_MAX, SHM_BASE,
    SHM_LEN, SHM_SEL, SIZE, STATUS, VENDOR_ID, VERSION,
};

/// The tests of this group.
pub(super) const TESTS: &[Test] = &[
    test("4.2.2-magic-value", || constant(MAGIC_VALUE, u32::from_le_bytes(*b"virt"))),
    test("4.2.2-version", || constant(VERSION, 2)),
    test("4.2.2-device-id", device_id),
    test("4.2.2-vendor-id", || constant(VENDOR_ID, u32::from_le_bytes(*b"XBA "))),
    test("4.2.2-write-only-registers-read-zero", write_only),
    test("4.2.2-read-only-registers-cannot-be-written", read_only),
    test("4.2.2-reserved-offsets-read-zero-and-ignore-writes", reserved),
    test("4.2.2.2-accesses-of-other-widths-have-no-effect", other_widths),
    test("4.2.2.2-unaligned-accesses-have-no-effect", unaligned),
    test("4.2.2-no-queue-beyond-the-last", no_queue),
    test("4.2.2.1-no-shared-memory", no_shared_memory),
    test("4.2.2.1-generation-changes-only-with-the-configuration", generation),
    test("4.2.2.2-configuration-in-any-width", configuration_widths),
    test("2.5-offsets-after-the-configuration-read-zero", behind_the_configuration),
    test("4.2.2-interrupt-status-is-0-after-a-reset", || constant(INTERRUPT_STATUS, 0)),
];

/// The registers that can only be read.
const READ_ONLY: [u64; 12] = [
    MAGIC_VALUE,
    VERSION,
    DEVICE_ID,
    VENDOR_ID,
    DEVICE_FEATURES,
    QUEUE_SIZE_MAX,
    INTERRUPT_STATUS,
    SHM_LEN,
    SHM_LEN + 4,
    SHM_BASE,
    SHM_BASE + 4,
    CONFIG_GENERATION,
];

/// The registers that can only be written.
const WRITE_ONLY: [u64; 14] = [
    DEVICE_FEATURES_SEL,
    DRIVER_FEATURES,
    DRIVER_FEATURES_SEL,
    QUEUE_SEL,
    QUEUE_SIZE,
    QUEUE_NOTIFY,
    INTERRUPT_ACK,
    QUEUE_DESC,
    QUEUE_DESC + 4,
    QUEUE_DRIVER,
    QUEUE_DRIVER + 4,
    QUEUE_DEVICE,
    QUEUE_DEVICE + 4,
    SHM_SEL,
];

/// The registers that can be read and written.
const BOTH: [u64; 3] = [QUEUE_READY, STATUS, QUEUE_RESET];

fn constant(register: u64, value: u32) -> Result<()> {
    each(|device| expect(device, register, value))
}

/// Checks the value of a register.
fn expect(device: &Device, register: u64, value: u32) -> Result<()> {
    let seen = device.window.read(register)?;
    ensure!(seen == value, "register {register:#x} is {seen:#x}, not {value:#x}");
    Ok(())
}

/// Reads all registers that can be read.
fn readable(device: &Device) -> Result<[u32; READ_ONLY.len() + BOTH.len()]> {
    let mut values = [0; READ_ONLY.len() + BOTH.len()];
    for (value, register) in values.iter_mut().zip(READ_ONLY.into_iter().chain(BOTH)) {
        *value = device.window.read(register)?;
    }
    Ok(values)
}

/// Runs `attempt`, and checks that no register that can be read has changed.
fn without_effect(device: &Device, attempt: impl Fn() -> Result<()>) -> Result<()> {
    device.advance(ACKNOWLEDGE)?;
    device.advance(DRIVER)?;
    let before = readable(device)?;
    attempt()?;
    let after = readable(device)?;
    ensure!(before == after, "the registers were {before:x?}, now they are {after:x?}");
    Ok(())
}

fn device_id() -> Result<()> {
    for kind in Kind::ALL {
        expect(&Device::find(kind)?, DEVICE_ID, kind.id())?;
    }
    Ok(())
}

fn write_only() -> Result<()> {
    each(|device| {
        for register in WRITE_ONLY {
            device.window.write(register, if register == QUEUE_NOTIFY { 0xffff } else { 1 })?;
            expect(device, register, 0)?;
        }
        Ok(())
    })
}

fn read_only() -> Result<()> {
    each(|device| {
        without_effect(device, || {
            for register in READ_ONLY {
                for value in [0, 1, u32::MAX] {
                    device.window.write(register, value)?;
                }
            }
            Ok(())
        })
    })
}

fn reserved() -> Result<()> {
    let is_known =
        |offset: &u64| READ_ONLY.contains(offset) || WRITE_ONLY.contains(offset) || BOTH.contains(offset);
    each(|device| {
        without_effect(device, || {
            for offset in (0..CONFIG).step_by(4).filter(|offset| !is_known(offset)) {
                for value in [0, 1, u32::MAX] {
                    device.window.write(offset, value)?;
                    expect(device, offset, 0)?;
                }
            }
            Ok(())
        })
    })
}

fn other_widths() -> Result<()> {
    each(|device| {
        without_effect(device, || {
            for width in [Width::Byte, Width::Half, Width::Double] {
                for offset in (0..CONFIG).step_by(4) {
                    let value = device.window.load(offset, width).unwrap_or(0);
                    ensure!(value == 0, "{width:?} at {offset:#x} reads {value:#x}");
                    // Writing 0 to Status would be a reset, all ones a failure. Xen may answer 64 bits with
                    // an abort.
                    let _ = device.window.store(offset, width, 0);
                    let _ = device.window.store(offset, width, u64::MAX);
                }
            }
            Ok(())
        })
    })
}

fn unaligned() -> Result<()> {
    each(|device| {
        without_effect(device, || {
            for register in READ_ONLY.into_iter().chain(WRITE_ONLY).chain(BOTH) {
                for (offset, width) in
                    [(1, Width::Half), (1, Width::Word), (2, Width::Word), (3, Width::Double)]
                {
                    // An abort is as good as reading 0.
                    let value = device.window.load(register + offset, width).unwrap_or(0);
                    ensure!(value == 0, "{width:?} at {register:#x} + {offset} reads {value:#x}");
                    let _ = device.window.store(register + offset, width, 0);
                }
            }
            Ok(())
        })
    })
}

fn no_queue() -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        for queue in [kind.queues(), kind.queues() + 1, 0x7fff, 0xffff, 0x1_0000, 1 << 31, u32::MAX] {
            let most = device.queue_size_max(queue)?;
            ensure!(most == 0, "{kind:?} has a queue {queue} with {most} entries");
            for register in [QUEUE_SIZE, QUEUE_DESC, QUEUE_DRIVER + 4, QUEUE_DEVICE, QUEUE_READY, QUEUE_RESET]
            {
                device.window.write(register, 1)?;
            }
            expect(&device, QUEUE_READY, 0)?;
            device.window.write(QUEUE_NOTIFY, queue)?;
        }
        works(&mut device, kind)?;
    }
    Ok(())
}

fn no_shared_memory() -> Result<()> {
    each(|device| {
        for region in [0, 1, 255, u32::MAX] {
            device.window.write(SHM_SEL, region)?;
            for register in [SHM_LEN, SHM_LEN + 4, SHM_BASE, SHM_BASE + 4] {
                expect(device, register, u32::MAX)?;
            }
        }
        Ok(())
    })
}

fn generation() -> Result<()> {
    each(|device| {
        let before = device.window.read(CONFIG_GENERATION)?;
        device.window.load(CONFIG, Width::Word).ok().context("the configuration cannot be read")?;
        device.advance(ACKNOWLEDGE)?;
        expect(device, CONFIG_GENERATION, before)
    })
}

fn configuration_widths() -> Result<()> {
    let device = Device::find(Kind::Gpio)?;
    let load = |offset, width| device.window.load(CONFIG + offset, width).ok().context("abort");
    let mut bytes = [0; 8];
    for (offset, byte) in (0..).zip(&mut bytes) {
        *byte = u8::try_from(load(offset, Width::Byte)?)?;
    }
    let [a, b, c, d, e, f, g, h] = bytes;
    ensure!(load(0, Width::Half)? == u64::from(u16::from_le_bytes([a, b])), "16 bits of {bytes:x?}");
    ensure!(load(6, Width::Half)? == u64::from(u16::from_le_bytes([g, h])), "16 bits of {bytes:x?}");
    ensure!(load(0, Width::Word)? == u64::from(u32::from_le_bytes([a, b, c, d])), "32 bits of {bytes:x?}");
    ensure!(load(4, Width::Word)? == u64::from(u32::from_le_bytes([e, f, g, h])), "32 bits of {bytes:x?}");
    Ok(())
}

fn behind_the_configuration() -> Result<()> {
    each(|device| {
        for offset in (CONFIG + 8..SIZE).step_by(4) {
            let before = device.window.read(CONFIG)?;
            for value in [0, u32::MAX] {
                device.window.write(offset, value)?;
                expect(device, offset, 0)?;
            }
            expect(device, CONFIG, before)?;
        }
        Ok(())
    })
}
