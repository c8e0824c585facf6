// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The request of a vCPU, parsed: a read or write of a valid width, or a request that is only acknowledged.

use xen_bindings::{Direction, Kind, RawRequest};

use crate::virtio_mmio::Width;

/// The location of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The guest physical address.
    pub address: u64,
    /// The width.
    pub width: Width,
}

/// A parsed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read a register.
    Read(Access),
    /// Write a register.
    Write(Access, u64),
    /// Any other request: to invalidate cached mappings, of which the shim has none, or of a type or form
    /// that does not exist on Arm. It is answered and has no other effect.
    Acknowledge,
}

impl From<RawRequest> for Request {
    fn from(raw: RawRequest) -> Self {
        let Some(width) = Width::of(raw.size) else { return Self::Acknowledge };
        if raw.kind != Kind::Copy || raw.count != 1 || raw.data_is_ptr {
            return Self::Acknowledge;
        }
        let access = Access { address: raw.addr, width };
        match raw.direction {
            Direction::Read => Self::Read(access),
            Direction::Write => Self::Write(access, raw.data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawRequest {
        crate::hypervisor::fake::write(0x200_0050, 4, 3)
    }

    #[test]
    fn plain_accesses_are_parsed() {
        let access = Access { address: 0x200_0050, width: Width::Four };
        assert_eq!(Request::from(raw()), Request::Write(access, 3));
        assert_eq!(Request::from(RawRequest { direction: Direction::Read, ..raw() }), Request::Read(access));
    }

    #[test]
    fn other_requests_are_only_acknowledged() {
        for kind in [Kind::Invalidate, Kind::Pio, Kind::PciConfig, Kind::TimeOffset, Kind::Unknown(77)] {
            assert_eq!(Request::from(RawRequest { kind, ..raw() }), Request::Acknowledge, "{kind:?}");
        }
        for size in [0, 3, 5, 16, u32::MAX] {
            assert_eq!(Request::from(RawRequest { size, ..raw() }), Request::Acknowledge, "size {size}");
        }
        for count in [0, 2, u32::MAX] {
            assert_eq!(Request::from(RawRequest { count, ..raw() }), Request::Acknowledge, "count {count}");
        }
        assert_eq!(Request::from(RawRequest { data_is_ptr: true, ..raw() }), Request::Acknowledge);
    }
}
