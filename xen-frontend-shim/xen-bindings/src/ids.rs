// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbers of Xen, each with its own type, so that none is mistaken for another.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number. Xen checks it when it is used.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

id! {
    /// A domain (Xen's `domid_t`).
    DomId(u16), "domain {}"
}
id! {
    /// A grant reference: an index into the grant table of the domain that owns the page (Xen's
    /// `grant_ref_t`).
    GrantRef(u32), "grant {}"
}
id! {
    /// An event channel by its number in this domain.
    Port(u32), "port {}"
}
id! {
    /// An event channel by its number in the other domain. Xen writes it to an ioreq slot; binding it gives a
    /// [`Port`].
    RemotePort(u32), "remote port {}"
}
id! {
    /// An ioreq server, unique in its guest (Xen's `ioservid_t`).
    IoreqServerId(u16), "ioreq server {}"
}
id! {
    /// A guest frame number: a guest physical address divided by the page size.
    Gfn(u64), "gfn {:#x}"
}
id! {
    /// An interrupt of a guest's virtual GIC by its INTID. A device model can raise SPIs only (32 and up).
    Irq(u32), "INTID {}"
}
