// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A kick before the queue is ready, and no other access. No process may become busy by it.

use core::time::Duration;

use anyhow::{Result, ensure};

use crate::clock::Moment;
use crate::interrupts;
use crate::jobs::Job;
use crate::virtio::device::{Device, Kind, USUAL};
use crate::virtio::window::QUEUE_NOTIFY;

pub(super) fn run(job: &Job, pause: Duration) -> Result<()> {
    for kind in Kind::ALL {
        let mut device = Device::find(kind)?;
        ensure!(device.agree(USUAL)?, "the device does not accept the features");
        device.window.write(QUEUE_NOTIFY, 0)?;
        interrupts::wait(Some(Moment::after(pause)), || false);
        device.reset()?;
    }
    job.print(format_args!("kicks={}", Kind::ALL.len()));
    Ok(())
}
