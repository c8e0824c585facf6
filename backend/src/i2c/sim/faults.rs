// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults that a test injects. Each applies to the next messages to its address, in the order of injection.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;

/// A fault, and the number of messages that it applies to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Injection {
    address: u16,
    fault: Kind,
    #[serde(default = "once")]
    count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Nak,
    Timeout,
    #[serde(rename = "delay-ms")]
    Delay(u64),
    #[serde(rename = "late-ms")]
    Late(u64),
}

fn once() -> u32 {
    1
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The address is not acknowledged.
    Nak,
    /// The bus hangs until the adapter's time-out, which is not waited for.
    Timeout,
    /// The target stretches the clock.
    Delay(Duration),
    /// The transfer succeeds, but the adapter returns late.
    Late(Duration),
}

/// The faults that were injected and did not apply yet.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: VecDeque<Injection>,
}

impl Faults {
    pub(super) fn inject(&mut self, injection: Injection) {
        self.waiting.push_back(injection);
    }

    /// Returns the fault for a message to `address`, if there is one.
    pub(super) fn take(&mut self, address: u16) -> Option<Fault> {
        self.waiting.retain(|injection| injection.count > 0);
        let injection = self.waiting.iter_mut().find(|injection| injection.address == address)?;
        injection.count -= 1;
        Some(match injection.fault {
            Kind::Nak => Fault::Nak,
            Kind::Timeout => Fault::Timeout,
            Kind::Delay(milliseconds) => Fault::Delay(Duration::from_millis(milliseconds)),
            Kind::Late(milliseconds) => Fault::Late(Duration::from_millis(milliseconds)),
        })
    }
}
