// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of the transport in its window.

mod conformance;
mod driver;
mod properties;
pub(crate) mod test_driver;
