// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Resource limits, which a process cannot raise again.

use rustix::io::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The resource limits of a process. Those that are `None` stay as they are. Core dumps are always disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Processes and threads of its user. Existing ones stay.
    pub processes: Option<u64>,
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Bytes of private memory: heap, stacks of threads, private mappings.
    pub data: Option<u64>,
    /// Bytes of a file that it writes.
    pub file_size: Option<u64>,
}

impl ResourceLimits {
    /// Applies the limits to the process.
    pub(crate) fn apply(self) -> Result<()> {
        let limits = [
            (Resource::Nofile, self.descriptors),
            (Resource::Nproc, self.processes),
            (Resource::As, self.address_space),
            (Resource::Data, self.data),
            (Resource::Fsize, self.file_size),
            (Resource::Core, Some(0)),
        ];
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                lower(resource, limit)?;
            }
        }
        Ok(())
    }
}

/// Lowers a limit. A lower limit stays.
fn lower(resource: Resource, limit: u64) -> Result<()> {
    let present = getrlimit(resource);
    let least = |present: Option<u64>| Some(present.map_or(limit, |present| present.min(limit)));
    setrlimit(resource, Rlimit { current: least(present.current), maximum: least(present.maximum) })
}
