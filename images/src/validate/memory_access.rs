// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a manifest gives away on purpose.

use crate::diagnostics::Diagnostic;
use crate::manifest::{Manifest, MemoryAccess};

/// Warns of each guest whose memory the driver domain reaches without a grant.
pub(super) fn warnings(manifest: &Manifest) -> Vec<Diagnostic> {
    let is_open = |access: &MemoryAccess| *access == MemoryAccess::All;
    let guests = manifest.guests.iter().filter(|guest| is_open(&guest.memory_access.value));
    let warning = |guest: &crate::manifest::Guest| {
        let (name, memory) = (&guest.name.value, guest.domain.memory.value);
        let title = format!("the driver domain reaches all memory of `{name}`");
        let label = format!("{memory}, to read and to write, at any time");
        let help = format!(
            "the backends of `{name}`, and all that runs as root in the driver domain, reach its kernel and \
             its programs, not only the buffers of its devices; other guests are as before. If its virtio \
             drivers can use grants (Linux: CONFIG_XEN_VIRTIO), leave `memory-access` out"
        );
        Diagnostic::new(guest.memory_access.span, title, label).help(help).warning()
    };
    guests.map(warning).collect()
}
