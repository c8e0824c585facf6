// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbers that Xen gives out, each a type of its own, so that none is passed for another.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the plain number. Xen checks it when it is used.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The plain number.
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
    /// A page that its owner has granted: an index into the owner's grant table (Xen's `grant_ref_t`).
    GrantRef(u32), "grant {}"
}
id! {
    /// An event channel as this domain numbers it.
    Port(u32), "port {}"
}
id! {
    /// An event channel as the other domain numbers it: what Xen leaves in an ioreq slot, to be bound to a [`Port`].
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
    /// An interrupt of a guest's virtual GIC (its INTID; Xen lets a device model raise SPIs only, 32 and up).
    Irq(u32), "INTID {}"
}
