// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Compares this crate's structures with the headers of Linux and Xen.
//!
//! A C file with a static assertion for each size, offset and number is generated and compiled against the
//! headers for the target's ABI. It does not run, so a cross compiler is enough.
//!
//! Environment:
//!
//! - `XBA_HEADERS`: the directory with `linux/` (from `make headers_install` of Linux) and `xen/` (Xen's
//!   public headers). The default is `target/artefacts/headers`, which `scripts/artefacts` creates.
//! - `XBA_REQUIRE_HEADERS=1`: the test fails if the headers or a compiler are missing. Otherwise it is
//!   skipped.

use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::{offset_of, size_of};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{dm_op, domctl, evtchn, gntdev, hypercall, ioreq, privcmd};
use crate::ioreq::{BITS_OFFSET, OFFSETS, Slot};
use crate::sys::privcmd::Words;

/// Compilers with the target's ABI, in the order of preference. The host's compiler with the macros of
/// aarch64 has the same ABI (LP64, little-endian, natural alignment).
const COMPILERS: [&[&str]; 2] =
    [&["aarch64-linux-gnu-gcc"], &["cc", "-U__x86_64__", "-U__i386__", "-D__aarch64__"]];

/// The first lines of the C file. Linux's privcmd.h includes Xen's basic types by these paths.
const INCLUDES: &str = "\
#include <stddef.h>
#include <stdint.h>
#include <linux/types.h>
#include <linux/ioctl.h>
#include <xen/interface/xen.h>
#include <xen/interface/grant_table.h>
#include <xen/interface/memory.h>
#include <xen/interface/sched.h>
#include <xen/interface/domctl.h>
#include <xen/interface/event_channel.h>
#include <xen/interface/platform.h>
#include <xen/interface/sysctl.h>
#include <xen/interface/hvm/params.h>
#include <xen/interface/xsm/flask_op.h>
#include <xen/interface/hvm/dm_op.h>
#include <xen/interface/hvm/hvm_op.h>
#include <xen/interface/hvm/ioreq.h>
#include <xen/privcmd.h>
#include <xen/evtchn.h>
#include <xen/gntdev.h>
";

/// Static assertions about the headers.
#[derive(Default)]
struct Claims(String);

impl Claims {
    fn holds(&mut self, expression: &str) {
        writeln!(self.0, "_Static_assert({expression}, \"{}\");", expression.replace('"', "'")).unwrap();
    }

    fn equal(&mut self, c: &str, rust: impl Into<i128>) {
        self.holds(&format!("({c}) == {}", rust.into()));
    }

    fn size(&mut self, c_type: &str, rust: usize) {
        self.holds(&format!("sizeof({c_type}) == {rust}"));
    }

    fn offset(&mut self, c_type: &str, field: &str, rust: usize) {
        self.holds(&format!("__builtin_offsetof({c_type}, {field}) == {rust}"));
    }
}

/// Claims the size of a structure and the offset of each of its fields. A field whose name in C is a keyword
/// of Rust is written `rust = "c"`.
macro_rules! same_layout {
    ($claims:ident, $rust:ty, $c:literal, { $($field:ident $(= $name:literal)?),* $(,)? }) => {
        $claims.size($c, size_of::<$rust>());
        $($claims.offset($c, same_layout!(@ $field $($name)?), offset_of!($rust, $field));)*
    };
    (@ $field:ident) => { stringify!($field) };
    (@ $field:ident $name:literal) => { $name };
}

/// Claims the values of constants.
macro_rules! same_values {
    ($claims:ident, $($rust:expr => $c:literal),+ $(,)?) => { $($claims.equal($c, $rust);)+ };
}

fn linux_privcmd() -> Claims {
    let mut claims = Claims::default();
    same_layout!(claims, privcmd::Hypercall, "struct privcmd_hypercall", { op, arg });
    same_layout!(claims, privcmd::MmapBatchV2, "struct privcmd_mmapbatch_v2", { num, dom, addr, arr, err });
    same_layout!(claims, privcmd::DmOpBuf, "struct privcmd_dm_op_buf", { uptr, size });
    same_layout!(claims, privcmd::DmOp, "struct privcmd_dm_op", { dom, num, ubufs });
    same_layout!(claims, privcmd::MmapResource, "struct privcmd_mmap_resource", {
        dom, type_ = "type", id, idx, num, addr
    });
    same_layout!(claims, privcmd::IrqFd, "struct privcmd_irqfd", { dm_op, size, fd, flags, dom, pad });
    same_layout!(claims, privcmd::IoEventFd, "struct privcmd_ioeventfd", {
        ioreq, ports, addr, addr_len, event_fd, vcpus, vq, flags, dom, pad
    });
    same_values!(claims,
        privcmd::IOCTL_PRIVCMD_HYPERCALL => "IOCTL_PRIVCMD_HYPERCALL",
        privcmd::IOCTL_PRIVCMD_MMAPBATCH_V2 => "IOCTL_PRIVCMD_MMAPBATCH_V2",
        privcmd::IOCTL_PRIVCMD_DM_OP => "IOCTL_PRIVCMD_DM_OP",
        privcmd::IOCTL_PRIVCMD_RESTRICT => "IOCTL_PRIVCMD_RESTRICT",
        privcmd::IOCTL_PRIVCMD_MMAP_RESOURCE => "IOCTL_PRIVCMD_MMAP_RESOURCE",
        privcmd::IOCTL_PRIVCMD_IRQFD => "IOCTL_PRIVCMD_IRQFD",
        privcmd::IOCTL_PRIVCMD_IOEVENTFD => "IOCTL_PRIVCMD_IOEVENTFD",
        privcmd::PRIVCMD_IRQFD_FLAG_DEASSIGN => "PRIVCMD_IRQFD_FLAG_DEASSIGN",
        privcmd::PRIVCMD_IOEVENTFD_FLAG_DEASSIGN => "PRIVCMD_IOEVENTFD_FLAG_DEASSIGN",
    );
    claims
}

fn linux_evtchn() -> Claims {
    let mut claims = Claims::default();
    same_layout!(claims, evtchn::BindVirq, "struct ioctl_evtchn_bind_virq", { virq });
    same_layout!(claims, evtchn::BindInterdomain, "struct ioctl_evtchn_bind_interdomain", {
        remote_domain, remote_port
    });
    same_layout!(claims, evtchn::PortArg, "struct ioctl_evtchn_unbind", { port });
    same_layout!(claims, evtchn::PortArg, "struct ioctl_evtchn_notify", { port });
    same_layout!(claims, evtchn::PortArg, "struct ioctl_evtchn_bind", { port });
    same_layout!(claims, evtchn::RestrictDomId, "struct ioctl_evtchn_restrict_domid", { domid });
    same_values!(claims,
        evtchn::IOCTL_EVTCHN_BIND_VIRQ => "IOCTL_EVTCHN_BIND_VIRQ",
        evtchn::IOCTL_EVTCHN_BIND_INTERDOMAIN => "IOCTL_EVTCHN_BIND_INTERDOMAIN",
        evtchn::IOCTL_EVTCHN_UNBIND => "IOCTL_EVTCHN_UNBIND",
        evtchn::IOCTL_EVTCHN_NOTIFY => "IOCTL_EVTCHN_NOTIFY",
        evtchn::IOCTL_EVTCHN_RESTRICT_DOMID => "IOCTL_EVTCHN_RESTRICT_DOMID",
        evtchn::IOCTL_EVTCHN_BIND_STATIC => "IOCTL_EVTCHN_BIND_STATIC",
    );
    claims
}

fn linux_gntdev() -> Claims {
    let mut claims = Claims::default();
    same_layout!(claims, gntdev::GrantRef, "struct ioctl_gntdev_grant_ref", { domid, ref_ = "ref" });
    same_layout!(claims, gntdev::MapGrantRef, "struct ioctl_gntdev_map_grant_ref", {
        count, pad, index, refs
    });
    same_layout!(claims, gntdev::UnmapGrantRef, "struct ioctl_gntdev_unmap_grant_ref", { index, count, pad });
    same_layout!(claims, gntdev::GrantCopy, "struct ioctl_gntdev_grant_copy", { count, segments });
    same_layout!(claims, gntdev::GrantCopySegment, "struct gntdev_grant_copy_segment", {
        source, dest, len, flags, status
    });
    same_layout!(claims, gntdev::RestrictDomId, "struct ioctl_gntdev_restrict_domid", { domid, reserved });
    for (field, offset) in [
        ("virt", 0),
        ("foreign.ref", offset_of!(gntdev::Foreign, ref_)),
        ("foreign.offset", offset_of!(gntdev::Foreign, offset)),
        ("foreign.domid", offset_of!(gntdev::Foreign, domid)),
    ] {
        claims.offset("struct gntdev_grant_copy_segment", &format!("source.{field}"), offset);
    }
    same_values!(claims,
        gntdev::IOCTL_GNTDEV_MAP_GRANT_REF => "IOCTL_GNTDEV_MAP_GRANT_REF",
        gntdev::IOCTL_GNTDEV_UNMAP_GRANT_REF => "IOCTL_GNTDEV_UNMAP_GRANT_REF",
        gntdev::IOCTL_GNTDEV_GRANT_COPY => "IOCTL_GNTDEV_GRANT_COPY",
        gntdev::IOCTL_GNTDEV_RESTRICT_DOMID => "IOCTL_GNTDEV_RESTRICT_DOMID",
        gntdev::GNTCOPY_SOURCE_GREF => "GNTCOPY_source_gref",
        gntdev::GNTCOPY_DEST_GREF => "GNTCOPY_dest_gref",
        gntdev::GNTST_OKAY => "GNTST_okay",
        gntdev::GNTST_GENERAL_ERROR => "GNTST_general_error",
        gntdev::GNTST_BAD_DOMAIN => "GNTST_bad_domain",
        gntdev::GNTST_BAD_GNTREF => "GNTST_bad_gntref",
        gntdev::GNTST_PERMISSION_DENIED => "GNTST_permission_denied",
        gntdev::GNTST_BAD_PAGE => "GNTST_bad_page",
        gntdev::GNTST_BAD_COPY_ARG => "GNTST_bad_copy_arg",
        gntdev::GNTST_ADDRESS_TOO_BIG => "GNTST_address_too_big",
        gntdev::GNTST_EAGAIN => "GNTST_eagain",
    );
    claims
}

fn xen_dm_op() -> Claims {
    let mut claims = Claims::default();
    claims.offset("struct xen_dm_op", "op", offset_of!(dm_op::DmOp<u64>, op));
    claims.offset("struct xen_dm_op", "pad", offset_of!(dm_op::DmOp<u64>, pad));
    claims.offset("struct xen_dm_op", "u", offset_of!(dm_op::DmOp<u64>, u));
    same_layout!(claims, dm_op::CreateIoreqServer, "struct xen_dm_op_create_ioreq_server", {
        handle_bufioreq, pad, id
    });
    same_layout!(claims, dm_op::GetIoreqServerInfo, "struct xen_dm_op_get_ioreq_server_info", {
        id, flags, bufioreq_port, ioreq_gfn, bufioreq_gfn
    });
    same_layout!(claims, dm_op::IoreqServerRange, "struct xen_dm_op_ioreq_server_range", {
        id, pad, type_ = "type", start, end
    });
    same_layout!(claims, dm_op::SetIoreqServerState, "struct xen_dm_op_set_ioreq_server_state", {
        id, enabled, pad
    });
    same_layout!(claims, dm_op::DestroyIoreqServer, "struct xen_dm_op_destroy_ioreq_server", { id, pad });
    same_layout!(claims, dm_op::SetIrqLevel, "struct xen_dm_op_set_irq_level", { irq, level, pad });
    same_layout!(claims, dm_op::NrVcpus, "struct xen_dm_op_nr_vcpus", { vcpus });
    same_values!(claims,
        dm_op::XEN_DMOP_CREATE_IOREQ_SERVER => "XEN_DMOP_create_ioreq_server",
        dm_op::XEN_DMOP_GET_IOREQ_SERVER_INFO => "XEN_DMOP_get_ioreq_server_info",
        i128::from(dm_op::XEN_DMOP_NO_GFNS) => "XEN_DMOP_no_gfns",
        dm_op::XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER => "XEN_DMOP_map_io_range_to_ioreq_server",
        dm_op::XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER => "XEN_DMOP_unmap_io_range_from_ioreq_server",
        dm_op::XEN_DMOP_SET_IOREQ_SERVER_STATE => "XEN_DMOP_set_ioreq_server_state",
        dm_op::XEN_DMOP_DESTROY_IOREQ_SERVER => "XEN_DMOP_destroy_ioreq_server",
        dm_op::XEN_DMOP_SET_IRQ_LEVEL => "XEN_DMOP_set_irq_level",
        dm_op::XEN_DMOP_NR_VCPUS => "XEN_DMOP_nr_vcpus",
        dm_op::XEN_DMOP_IO_RANGE_MEMORY => "XEN_DMOP_IO_RANGE_MEMORY",
        dm_op::HVM_IOREQSRV_BUFIOREQ_OFF => "HVM_IOREQSRV_BUFIOREQ_OFF",
        dm_op::XENMEM_RESOURCE_IOREQ_SERVER => "XENMEM_resource_ioreq_server",
        dm_op::XENMEM_RESOURCE_IOREQ_SERVER_FRAME_IOREQ_0 => "XENMEM_resource_ioreq_server_frame_ioreq(0)",
    );
    claims
}

fn xen_domctl() -> Claims {
    let mut claims = Claims::default();
    for (field, offset) in [
        ("cmd", offset_of!(domctl::Domctl, cmd)),
        ("interface_version", offset_of!(domctl::Domctl, interface_version)),
        ("domain", offset_of!(domctl::Domctl, domain)),
        ("_pad", offset_of!(domctl::Domctl, pad)),
        ("u", offset_of!(domctl::Domctl, u)),
    ] {
        claims.offset("struct xen_domctl", field, offset);
    }
    claims.holds(&format!("sizeof(struct xen_domctl) <= {}", size_of::<domctl::Domctl>()));
    claims.holds(&format!(
        "XEN_DOMCTL_INTERFACE_VERSION >= {} && XEN_DOMCTL_INTERFACE_VERSION <= {}",
        domctl::XEN_DOMCTL_INTERFACE_VERSION_FIRST,
        domctl::XEN_DOMCTL_INTERFACE_VERSION_LAST
    ));
    claims.offset("struct xen_domctl_getdomaininfo", "flags", domctl::DOMAININFO_FLAGS_OFFSET);
    claims.holds("sizeof(((struct xen_domctl_getdomaininfo *)0)->flags) == 4");
    claims.offset("struct xen_domctl_set_virq_handler", "virq", 0);
    claims.size("struct xen_domctl_set_virq_handler", 4);
    same_values!(claims,
        i128::from(domctl::HYPERVISOR_DOMCTL) => "__HYPERVISOR_domctl",
        domctl::XEN_DOMCTL_UNPAUSEDOMAIN => "XEN_DOMCTL_unpausedomain",
        domctl::XEN_DOMCTL_GETDOMAININFO => "XEN_DOMCTL_getdomaininfo",
        domctl::XEN_DOMCTL_SET_VIRQ_HANDLER => "XEN_DOMCTL_set_virq_handler",
        domctl::VIRQ_DOM_EXC => "VIRQ_DOM_EXC",
        domctl::XEN_DOMINF_DYING => "XEN_DOMINF_dying",
        domctl::XEN_DOMINF_SHUTDOWN => "XEN_DOMINF_shutdown",
        16 => "XEN_DOMINF_shutdownshift",
        255 => "XEN_DOMINF_shutdownmask",
        domctl::SHUTDOWN_POWEROFF => "SHUTDOWN_poweroff",
        domctl::SHUTDOWN_REBOOT => "SHUTDOWN_reboot",
        domctl::SHUTDOWN_SUSPEND => "SHUTDOWN_suspend",
        domctl::SHUTDOWN_CRASH => "SHUTDOWN_crash",
        domctl::SHUTDOWN_WATCHDOG => "SHUTDOWN_watchdog",
    );
    claims
}

fn xen_hypercalls() -> Claims {
    let mut claims = Claims::default();
    for (value, name) in hypercall::NAMES {
        claims.equal(name, *value);
    }
    let version = |c: &str, versions: &RangeInclusive<u16>| {
        format!("{c} >= {} && {c} <= {}", versions.start(), versions.end())
    };
    claims.holds(&version("XEN_DOMCTL_INTERFACE_VERSION", &hypercall::DOMCTL_VERSIONS));
    claims.holds(&version("XEN_SYSCTL_INTERFACE_VERSION", &hypercall::SYSCTL_VERSIONS));
    let [low, high] = hypercall::PLATFORM_VERSION.map(u32::from);
    claims.equal("XENPF_INTERFACE_VERSION", high << 16 | low);
    // The offsets of the fields that `forbidden` sets.
    for (structure, field, offset) in [
        ("struct xen_sysctl", "cmd", 0),
        ("struct xen_sysctl", "interface_version", 4),
        ("struct xen_platform_op", "cmd", 0),
        ("struct xen_platform_op", "interface_version", 4),
        ("struct xen_flask_op", "cmd", 0),
        ("struct xen_flask_op", "interface_version", 4),
        ("struct evtchn_alloc_unbound", "dom", 0),
        ("struct evtchn_alloc_unbound", "remote_dom", 2),
        ("struct evtchn_status", "dom", 0),
        ("struct evtchn_status", "port", 4),
        ("struct evtchn_reset", "dom", 0),
        ("struct xen_hvm_param", "domid", 0),
        ("struct xen_hvm_param", "index", 4),
        ("struct sched_remote_shutdown", "domain_id", 0),
        ("struct xen_add_to_physmap", "domid", 0),
        ("struct xen_add_to_physmap", "space", 4),
        ("struct xen_remove_from_physmap", "domid", 0),
        ("struct gnttab_query_size", "dom", 0),
        ("struct gnttab_query_size", "status", 12),
        ("struct gnttab_setup_table", "dom", 0),
        ("struct gnttab_setup_table", "status", 8),
    ] {
        claims.offset(structure, field, offset);
    }
    for structure in ["xen_domctl", "xen_sysctl", "xen_platform_op", "xen_flask_op", "gnttab_setup_table"] {
        claims.holds(&format!("sizeof(struct {structure}) <= {}", size_of::<Words>()));
    }
    claims
}

fn xen_ioreq() -> Claims {
    let mut claims = Claims::default();
    claims.size("struct ioreq", size_of::<Slot>());
    for (field, offset) in OFFSETS {
        claims.offset("struct ioreq", field, offset);
    }
    // C has no offset of a bit field: its byte is between these two, and `bit_fields` checks its bits.
    claims.equal("__builtin_offsetof(struct ioreq, _pad0) + 2", BITS_OFFSET as i128);
    claims.equal("__builtin_offsetof(struct ioreq, type) - 1", BITS_OFFSET as i128);
    same_values!(claims,
        ioreq::IOREQ_READ => "IOREQ_READ",
        ioreq::IOREQ_WRITE => "IOREQ_WRITE",
        ioreq::STATE_IOREQ_NONE => "STATE_IOREQ_NONE",
        ioreq::STATE_IOREQ_READY => "STATE_IOREQ_READY",
        ioreq::STATE_IOREQ_INPROCESS => "STATE_IOREQ_INPROCESS",
        ioreq::STATE_IORESP_READY => "STATE_IORESP_READY",
        ioreq::IOREQ_TYPE_PIO => "IOREQ_TYPE_PIO",
        ioreq::IOREQ_TYPE_COPY => "IOREQ_TYPE_COPY",
        ioreq::IOREQ_TYPE_PCI_CONFIG => "IOREQ_TYPE_PCI_CONFIG",
        ioreq::IOREQ_TYPE_TIMEOFFSET => "IOREQ_TYPE_TIMEOFFSET",
        ioreq::IOREQ_TYPE_INVALIDATE => "IOREQ_TYPE_INVALIDATE",
    );
    claims
}

/// Claims the bits of the bit fields. No constant expression of C has them, so this uses calls that are an
/// error unless the compiler finds them unreachable.
fn bit_fields() -> Claims {
    let mut claims = Claims::default();
    for (field, bits) in
        [("state", ioreq::STATE_MASK), ("data_is_ptr", ioreq::DATA_IS_PTR), ("dir", ioreq::DIR)]
    {
        writeln!(
            claims.0,
            "extern void misplaced_{field}(void)
                 __attribute__((error(\"bit field {field} is not at {bits:#x}\")));
             void check_{field}(void) {{
                 struct ioreq r = {{ .{field} = ~0 }};
                 uint8_t byte;
                 __builtin_memcpy(&byte, (char *)&r + {BITS_OFFSET}, 1);
                 if (byte != {bits}) misplaced_{field}();
             }}"
        )
        .unwrap();
    }
    claims
}

fn all() -> [Claims; 8] {
    [
        linux_privcmd(),
        linux_evtchn(),
        linux_gntdev(),
        xen_dm_op(),
        xen_domctl(),
        xen_hypercalls(),
        xen_ioreq(),
        bit_fields(),
    ]
}

/// The directory of the headers, or the reason why the check cannot be made.
fn headers() -> Result<PathBuf, String> {
    let dir = std::env::var_os("XBA_HEADERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/artefacts/headers"),
        PathBuf::from,
    );
    for file in ["linux/xen/privcmd.h", "xen/hvm/dm_op.h"] {
        if !dir.join(file).is_file() {
            return Err(format!(
                "there is no {} (run scripts/artefacts, or set XBA_HEADERS)",
                dir.join(file).display()
            ));
        }
    }
    dir.canonicalize().map_err(|e| e.to_string())
}

/// Compiles the C file. The inner result has the errors of the compiler; the outer one tells why it cannot be
/// run.
fn compile(claims: &[Claims]) -> Result<Result<(), String>, String> {
    let headers = headers()?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let source = dir.path().join("check.c");
    let text: String = std::iter::once(INCLUDES).chain(claims.iter().map(|c| c.0.as_str())).collect();
    std::fs::write(&source, text).map_err(|e| e.to_string())?;
    std::fs::create_dir(dir.path().join("xen")).map_err(|e| e.to_string())?;
    std::os::unix::fs::symlink(headers.join("xen"), dir.path().join("xen/interface"))
        .map_err(|e| e.to_string())?;
    for command in COMPILERS {
        let [compiler, flags @ ..] = command else { continue };
        let output = Command::new(compiler)
            .args(flags)
            .args([
                "-std=gnu11",
                "-O2",
                "-ffreestanding",
                "-Wno-overflow",
                "-D__XEN_TOOLS__",
                "-D__user=",
                "-c",
            ])
            .args(["-o", "/dev/null", "-isystem"])
            .arg(headers.join("linux"))
            .arg("-isystem")
            .args([dir.path(), &source])
            .output();
        match output {
            Ok(output) if output.status.success() => return Ok(Ok(())),
            Ok(output) => return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{compiler}: {error}")),
        }
    }
    Err("there is no C compiler: install gcc-aarch64-linux-gnu".into())
}

/// The result of the compiler. `None` if the check is skipped.
fn verdict(claims: &[Claims]) -> Option<Result<(), String>> {
    match compile(claims) {
        Ok(verdict) => Some(verdict),
        Err(reason) if std::env::var_os("XBA_REQUIRE_HEADERS").is_some_and(|v| v == "1") => {
            panic!("the structures were not compared with the headers: {reason}")
        }
        Err(reason) => {
            // `eprintln` would be captured by the test harness.
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: structures not compared with the headers: {reason}");
            None
        }
    }
}

#[test]
fn structures_are_those_of_the_headers() {
    if let Some(Err(errors)) = verdict(&all()) {
        panic!("the structures differ from those of the headers:\n{errors}");
    }
}

#[test]
fn difference_from_the_headers_is_found() {
    let mut claims = [Claims::default()];
    claims[0].offset("struct privcmd_ioeventfd", "vq", offset_of!(privcmd::IoEventFd, vcpus));
    let Some(verdict) = verdict(&claims) else { return };
    assert!(verdict.is_err_and(|errors| errors.contains("static assertion failed")));
    let wrong_bit = bit_fields().0.replace("byte != 32", "byte != 64");
    let Some(verdict) = self::verdict(&[Claims(wrong_bit)]) else { return };
    assert!(verdict.is_err_and(|errors| errors.contains("bit field dir")));
}
