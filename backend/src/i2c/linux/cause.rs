// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The errors of the kernel's adapters.

use std::io;

use i2cdev::linux::LinuxI2CError;
use rustix::io::Errno;

use crate::i2c::bus::Cause;

/// Converts an error of the kernel, by its document "I2C/SMBus fault codes".
pub(super) fn cause(error: LinuxI2CError) -> Cause {
    let number = io::Error::from(error).raw_os_error().unwrap_or(0);
    match Errno::from_raw_os_error(number) {
        Errno::NXIO | Errno::REMOTEIO => Cause::Nak,
        Errno::TIMEDOUT => Cause::Timeout,
        Errno::AGAIN => Cause::ArbitrationLost,
        Errno::OPNOTSUPP => Cause::Unsupported,
        _ => Cause::Kernel(number),
    }
}
