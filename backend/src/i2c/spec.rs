// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The wire format of virtio-i2c: virtio 1.3, 5.16.3 and 5.16.6.1.

/// Bit of `VIRTIO_I2C_F_ZERO_LENGTH_REQUEST`, which is mandatory for both sides (5.16.3).
pub(crate) const F_ZERO_LENGTH_REQUEST: u32 = 0;

/// `VIRTIO_I2C_MSG_OK`: the request was carried out.
pub(crate) const MSG_OK: u8 = 0;
/// `VIRTIO_I2C_MSG_ERR`: the request was not carried out.
pub(crate) const MSG_ERR: u8 = 1;

/// `flags`: if this request fails, the next one fails too. All requests of a group but the last have it.
const FLAG_FAIL_NEXT: u32 = 1 << 0;
/// `flags`: the request reads.
const FLAG_READ: u32 = 1 << 1;

/// `struct virtio_i2c_out_hdr`, with which each request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) address: WireAddress,
    flags: u32,
}

impl Header {
    pub(crate) const BYTES: usize = 8;

    /// Splits a request into its header and the bytes after it.
    pub(crate) fn split(request: &[u8]) -> Option<(Self, &[u8])> {
        let ([a0, a1, _, _, f0, f1, f2, f3], rest) = request.split_first_chunk::<{ Self::BYTES }>()?;
        let header = Self {
            address: WireAddress(u16::from_le_bytes([*a0, *a1])),
            flags: u32::from_le_bytes([*f0, *f1, *f2, *f3]),
        };
        Some((header, rest))
    }

    pub(crate) fn fail_next(self) -> bool {
        self.flags & FLAG_FAIL_NEXT != 0
    }

    pub(crate) fn reads(self) -> bool {
        self.flags & FLAG_READ != 0
    }

    /// Whether `flags` has reserved bits, which a driver must not set (5.16.6.3).
    pub(crate) fn has_reserved_flags(self) -> bool {
        self.flags & !(FLAG_FAIL_NEXT | FLAG_READ) != 0
    }
}

/// `addr`: the address in the form of 5.16.6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireAddress(pub(crate) u16);

/// An address that a guest requests. The policy turns it to a [`super::bus::Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestedAddress {
    /// A0 to A6.
    SevenBit(u16),
    /// A0 to A9.
    TenBit(u16),
}

impl WireAddress {
    /// Decodes the address by the table of 5.16.6.1. The 10-bit form begins with 11110, which no 7-bit
    /// address does.
    pub(crate) fn decode(self) -> Option<RequestedAddress> {
        let [low, high] = self.0.to_le_bytes();
        match (low, high) {
            _ if low & 0b1111_1001 == 0b1111_0000 => {
                let top = u16::from(low & 0b110) << 7;
                Some(RequestedAddress::TenBit(top | u16::from(high)))
            }
            (_, 0) if low & 1 == 0 => Some(RequestedAddress::SevenBit(u16::from(low >> 1))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_decode_by_the_table() {
        let decode = |wire| WireAddress(wire).decode();
        assert_eq!(decode(0x48 << 1), Some(RequestedAddress::SevenBit(0x48)));
        assert_eq!(decode(0), Some(RequestedAddress::SevenBit(0)));
        assert_eq!(decode(0x34f6), Some(RequestedAddress::TenBit(0x334)));
        assert_eq!(decode(0xfff0), Some(RequestedAddress::TenBit(0x0ff)));
        assert_eq!(decode(0x0091), None, "bit 0 is set");
        assert_eq!(decode(0x0190), None, "a 7-bit address with bits above bit 7");
    }

    #[test]
    fn a_header_needs_all_its_bytes() {
        assert!(Header::split(&[0; 7]).is_none());
        let (header, rest) = Header::split(&[0x90, 0, 0, 0, 3, 0, 0, 0, 7]).unwrap_or_else(|| unreachable!());
        assert!(header.fail_next() && header.reads() && !header.has_reserved_flags());
        assert_eq!(rest, [7]);
    }
}
