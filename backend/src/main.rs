// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `backend i2c`, `backend gpio` and `backend console`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    backend::cli::main()
}
