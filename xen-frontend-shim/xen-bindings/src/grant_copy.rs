// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copying to and from granted pages: for buffers, which are used once, much cheaper than mapping them.
//!
//! Xen copies while it handles the hypercall; nothing is ever mapped, so a guest can take its pages back at once. What
//! the callers rely on (Linux 6.12, `drivers/xen/gntdev.c`):
//!
//! - The call fails as a whole only if a segment crosses a page of the guest (which [`CopyBatch`] refuses to take) or a local
//!   buffer is not there. What a guest can get wrong, it gets wrong for one segment, and that segment's status says so.
//! - The local buffer may cross pages. The driver issues its hypercalls for 16 pieces at a time.
//! - Put copies from the guest and copies to the guest into separate batches: the driver treats the local pages of 16 pieces as
//!   all written or all read.
//!
//! FLASK checks a copy from the copy's source domain to its destination domain: reading from a guest needs
//! `allow guest_t driver_t:grant copy`, writing to it the reverse.

use std::fmt;

use crate::abi::gntdev as abi;
pub use crate::sys::copy::{CopyBatch, CrossesPage};

/// How one segment of a batch fared (`GNTST_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantStatus {
    /// Copied.
    Okay,
    /// Xen does not say why. A reference that the guest's grant table holds, but grants nobody, comes to this.
    GeneralError,
    /// There is no such domain.
    BadDomain,
    /// The grant reference is beyond the guest's grant table.
    BadGrantRef,
    /// The grant does not allow this, for example writing to a page granted for reading.
    PermissionDenied,
    /// The page behind the grant cannot be used.
    BadPage,
    /// Offset or length do not fit.
    BadCopyArgument,
    /// The page is out of Xen's reach.
    AddressTooBig,
    /// The page is paged out; trying again may help.
    TryAgain,
    /// A status that this crate does not know.
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
