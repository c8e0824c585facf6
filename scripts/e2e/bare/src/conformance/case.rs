// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A test.

use anyhow::Result;

/// A test: it passes if it has no error. There is no space in its name.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// The clause, and what of it.
    pub name: &'static str,
    pub(super) run: fn() -> Result<()>,
}

pub(super) const fn test(name: &'static str, run: fn() -> Result<()>) -> Test {
    Test { name, run }
}
