// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A test.

use anyhow::Result;

/// A conformance test. Its name has no spaces.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// The clause and the requirement.
    pub name: &'static str,
    pub(super) run: fn() -> Result<()>,
}

pub(super) const fn test(name: &'static str, run: fn() -> Result<()>) -> Test {
    Test { name, run }
}
