// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copying to and from granted pages. For buffers, which are used once, this is much cheaper than mapping
//! them.
//!
//! Xen copies during the hypercall. Nothing is mapped, so a guest can revoke its grants at once. Callers rely
//! on (Linux 6.12, `drivers/xen/gntdev.c`):
//!
//! - The call fails as a whole only if a segment crosses a page of the guest (which [`CopyBatch`] refuses) or
//!   a local buffer is not mapped. A mistake of the guest fails one segment, which its status reports.
//! - The local buffer may cross pages. The driver makes one hypercall for 16 pieces.
//! - Copies from the guest and copies to the guest need separate batches: the driver treats the local pages
//!   of 16 pieces as all written or all read.
//!
//! FLASK checks a copy from the source domain to the destination domain: reading from a guest needs
//! `allow guest_t driver_t:grant copy`, writing to it the reverse.

use std::fmt;

use crate::abi::gntdev as abi;
pub use crate::sys::copy::{CopyBatch, CrossesPage};

/// The result of one segment of a batch (`GNTST_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantStatus {
    /// Copied.
    Okay,
    /// Unspecified error, for example an entry of the guest's grant table that is not in use.
    GeneralError,
    /// The domain does not exist.
    BadDomain,
    /// The grant reference is beyond the guest's grant table.
    BadGrantRef,
    /// The grant does not permit the access, for example writing to a page granted for reading.
    PermissionDenied,
    /// The page behind the grant cannot be used.
    BadPage,
    /// Offset or length are invalid.
    BadCopyArgument,
    /// The address is beyond Xen's address space.
    AddressTooBig,
    /// The page is paged out: try again.
    TryAgain,
    /// Another status.
    Unknown(i16),
}

impl GrantStatus {
    pub(crate) const fn from_wire(status: i16) -> Self {
        match status {
            abi::GNTST_OKAY => Self::Okay,
            abi::GNTST_GENERAL_ERROR => Self::GeneralError,
            abi::GNTST_BAD_DOMAIN => Self::BadDomain,
            abi::GNTST_BAD_GNTREF => Self::BadGrantRef,
            abi::GNTST_PERMISSION_DENIED => Self::PermissionDenied,
            abi::GNTST_BAD_PAGE => Self::BadPage,
            abi::GNTST_BAD_COPY_ARG => Self::BadCopyArgument,
            abi::GNTST_ADDRESS_TOO_BIG => Self::AddressTooBig,
            abi::GNTST_EAGAIN => Self::TryAgain,
            unknown => Self::Unknown(unknown),
        }
    }

    /// The status as a result.
    pub const fn ok(self) -> Result<(), Self> {
        match self {
            Self::Okay => Ok(()),
            failed => Err(failed),
        }
    }
}

impl fmt::Display for GrantStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Okay => "copied",
            Self::GeneralError => "not granted, or another error",
            Self::BadDomain => "no such domain",
            Self::BadGrantRef => "no such grant",
            Self::PermissionDenied => {
                "the grant does not permit it, or Xen's policy does not (FLASK: grant copy)"
            }
            Self::BadPage => "bad page",
            Self::BadCopyArgument => "bad offset or length",
            Self::AddressTooBig => "page out of reach",
            Self::TryAgain => "page is paged out",
            Self::Unknown(status) => return write!(f, "grant status {status}"),
        })
    }
}

impl std::error::Error for GrantStatus {}
