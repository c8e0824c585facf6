// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The permitted ioctl requests, by their interfaces.

use rustix::ioctl::{Direction, Opcode, opcode};
use xen_bindings::abi::{evtchn, gntdev, privcmd};

/// I2C adapters (`linux/i2c-dev.h`): `I2C_SLAVE`, `I2C_RDWR`, `I2C_SMBUS`.
pub(crate) const I2C: &[Opcode] = &[0x0703, 0x0707, 0x0720];

/// GPIO chips and requested lines (`linux/gpio.h`, version 2).
pub(crate) const GPIO: &[Opcode] = &[
    gpio(Direction::ReadWrite, 0x05, 256), // GPIO_V2_GET_LINEINFO_IOCTL
    gpio(Direction::ReadWrite, 0x07, 592), // GPIO_V2_GET_LINE_IOCTL
    gpio(Direction::ReadWrite, 0x0d, 272), // GPIO_V2_LINE_SET_CONFIG_IOCTL
    gpio(Direction::ReadWrite, 0x0e, 16),  // GPIO_V2_LINE_GET_VALUES_IOCTL
    gpio(Direction::ReadWrite, 0x0f, 16),  // GPIO_V2_LINE_SET_VALUES_IOCTL
];

/// Grants of a guest: rings are mapped, buffers are copied.
pub(crate) const GRANTS: &[Opcode] = &[
    gntdev::IOCTL_GNTDEV_MAP_GRANT_REF,
    gntdev::IOCTL_GNTDEV_UNMAP_GRANT_REF,
    gntdev::IOCTL_GNTDEV_GRANT_COPY,
];

/// Pages of a guest that has no grants. The descriptor is restricted to the guest.
pub(crate) const FOREIGN: &[Opcode] = &[privcmd::IOCTL_PRIVCMD_MMAPBATCH_V2];

/// The memory of a guest, for a program that uses the crate vm-memory: grants, or its pages if the guest's
/// configuration gives all of them. All other requests of gntdev and privcmd reach more.
pub(crate) const MEMORY: &[(u8, &[Opcode])] = &[(b'G', GRANTS), (b'P', FOREIGN)];

/// Requests that make input of a terminal, or redirect it: TIOCSTI, TIOCLINUX, TIOCCONS.
pub(crate) const TERMINAL: &[Opcode] = &[0x5412, 0x541c, 0x541d];

/// Bound event channels of a guest's vCPUs.
pub(crate) const CHANNELS: &[Opcode] = &[evtchn::IOCTL_EVTCHN_NOTIFY];

/// Device model operations. The descriptor is restricted to one guest.
pub(crate) const DEVICE_MODEL: &[Opcode] = &[privcmd::IOCTL_PRIVCMD_DM_OP];

/// The request by which the standard library makes a socket non-blocking.
pub(crate) const FIONBIO: Opcode = 0x5421;

const fn gpio(direction: Direction, number: u8, size: usize) -> Opcode {
    opcode::from_components(direction, 0xb4, number, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those of Linux 6.12, `include/uapi/linux/gpio.h`, on all architectures that the filter
    /// supports.
    #[test]
    fn gpio_requests_have_the_numbers_of_the_header() {
        assert_eq!(GPIO, [0xc100_b405, 0xc250_b407, 0xc110_b40d, 0xc010_b40e, 0xc010_b40f]);
    }
}
