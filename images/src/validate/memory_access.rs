// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests whose memory the driver domain reaches without a grant.

use crate::diagnostics::Diagnostic;
use crate::manifest::{Guest, Manifest, MemoryAccess};

/// Refuses backends of such a guest that the shim does not start. A backend maps the memory by a privcmd
/// descriptor. That is restricted to the guest, but `IOCTL_PRIVCMD_IOEVENTFD` takes any event channel of the
/// driver domain (Linux, drivers/xen/privcmd.c), and only the confinement of a program refuses the request.
pub(super) fn check(manifest: &Manifest, found: &mut Vec<Diagnostic>) {
    for guest in open_guests(manifest) {
        for socket in guest.devices.iter().filter_map(|device| device.device_type.socket()) {
            let title = format!("`socket` in `{}`, which has `memory-access = \"all\"`", guest.name.value);
            let help = "write `command`: the shim confines each program that it starts. Another program \
                        could use event channels of other guests";
            let found_here = Diagnostic::new(socket.span, title, "not started and confined by the shim");
            found.push(found_here.related(guest.memory_access.span, "all memory").help(help));
        }
    }
}

fn open_guests(manifest: &Manifest) -> impl Iterator<Item = &Guest> {
    manifest.guests.iter().filter(|guest| guest.memory_access.value == MemoryAccess::All)
}

/// Warns of each guest whose memory the driver domain reaches without a grant.
pub(super) fn warnings(manifest: &Manifest) -> Vec<Diagnostic> {
    let warning = |guest: &Guest| {
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
    open_guests(manifest).map(warning).collect()
}
