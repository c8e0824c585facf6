// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests of an I2C adapter (virtio 1.3, 5.16.6).

/// VIRTIO_I2C_FLAGS_FAIL_NEXT.
pub const FAIL_NEXT: u32 = 1;
/// VIRTIO_I2C_FLAGS_M_RD.
pub const READ: u32 = 2;

/// VIRTIO_I2C_MSG_OK.
pub const OK: u8 = 0;
/// VIRTIO_I2C_MSG_ERR.
pub const ERR: u8 = 1;

/// Returns the address field for a 7-bit address.
#[must_use]
pub const fn seven_bits(address: u16) -> u16 {
    address << 1
}

/// Returns a `struct virtio_i2c_out_hdr`. `address` is the address field as it is.
#[must_use]
pub fn header(address: u16, flags: u32) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (address.to_le_bytes(), flags.to_le_bytes());
    [a, b, 0, 0, c, d, e, f]
}
