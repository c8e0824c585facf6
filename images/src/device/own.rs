// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keys of devices that the backend of this project serves.

use shim_config::backend::FD;
use shim_config::{Backend, Program};
use toml_span::Spanned;
use toml_span::de_helpers::TableHelper;

use super::{Checks, Place};
use crate::diagnostics::Diagnostic;
use crate::emit::ramdisk::BACKEND;
use crate::manifest::MemoryAccess;

/// The microseconds of polling that a backend accepts.
const BUSY_POLL: std::ops::RangeInclusive<i64> = 0..=1000;

/// The keys.
#[derive(Debug)]
pub(super) struct Own {
    /// The microseconds for which the backend polls for the next request before it sleeps.
    busy_poll: Option<Spanned<i64>>,
}

impl Own {
    /// Takes the keys out of `table`.
    pub(super) fn read(table: &mut TableHelper<'_>) -> Self {
        Self { busy_poll: table.optional("busy-poll-us") }
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        let Some(Spanned { value, span }) = &self.busy_poll else { return };
        if !BUSY_POLL.contains(value) {
            let title = format!("a backend cannot poll for {value} microseconds");
            let help = format!(
                "write up to {}, or leave `busy-poll-us` out: then the guest's kick wakes the backend",
                BUSY_POLL.end()
            );
            checks.found.push(Diagnostic::new(*span, title, "out of range").help(help));
        } else if *value > 0 && checks.manifest.driver_domain.domain.vcpus.value < 2 {
            let title = "a backend that polls occupies the only vCPU of the driver domain";
            checks.found.push(
                Diagnostic::new(*span, title, "each request would take longer")
                    .help("write `vcpus = 2` in [driver-domain], or leave `busy-poll-us` out"),
            );
        }
    }

    /// The command of the backend for devices of type `name`, with its arguments. The backend opens its
    /// hardware as root, and then changes its user by itself.
    pub(super) fn backend(&self, name: &str, arguments: Vec<String>, place: &Place<'_>) -> Backend {
        let mut words = vec![BACKEND.to_owned(), name.to_owned()];
        words.extend(arguments);
        words.extend(["--user".to_owned(), place.user.to_string()]);
        if place.guest.memory_access.value == MemoryAccess::All {
            words.push("--memory-access=all".to_owned());
        }
        words.extend(self.busy_poll.as_ref().map(|period| format!("--busy-poll={}", period.value)));
        words.push(format!("--fd={FD}"));
        Backend::Program(Program::new(words))
    }
}
