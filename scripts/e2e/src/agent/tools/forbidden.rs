// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attempts of the driver domain at hypercalls about a guest that its devices do not need.
//! images/xen/policy/README.md has what each permission of the policy opens, and refers to these attempts.

use std::fs;
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::unix::net::{UnixListener, UnixStream};

use xen_bindings::{DomId, Forbidden, IoreqServer, IoreqServerId, Privcmd, Resource};

use super::arguments::Failure;

/// The driver domain itself.
const OWN: DomId = DomId::new(1);
/// More event channels than a domain can have: Xen gives a dom0less domain 1023 (`dom0less-build.c`,
/// `max_evtchn_port`).
const MANY_PORTS: u32 = 1200;
/// The guest physical addresses of virtio devices (Xen's `public/arch-arm.h`, GUEST_VIRTIO_MMIO_BASE).
const WINDOWS: u64 = 0x0200_0000;
const WINDOWS_LEN: u64 = 0x0010_0000;
/// A guest physical address at which a guest has neither memory nor a device.
const ELSEWHERE: u64 = 0x3000_0000;
/// The begin of a guest's memory, its GIC's distributor and its UART: base and length.
const OF_XEN_AND_MEMORY: [(u64, u64); 3] =
    [(0x4000_0000, 0x0400_0000), (0x0300_1000, 0x0001_0000), (0x2200_0000, 0x0000_1000)];
/// A connection to this socket ends `overload`.
const END: &str = "/tmp/overload";
/// All domctls of Xen 4.20 and some more, and those of gdbsx.
const DOMCTLS: [RangeInclusive<u16>; 2] = [0..=100, 1000..=1004];
/// All sysctls of Xen 4.20 and some more.
const SYSCTLS: RangeInclusive<u16> = 0..=40;
/// All operations of the hypercall `platform_op`, and some more.
const PLATFORM: RangeInclusive<u16> = 0..=70;
/// All operations of FLASK, and some more.
const FLASK: RangeInclusive<u16> = 0..=30;
/// `XEN_DOMCTL_createdomain`, whose first parameter is the label of the new domain.
const CREATE_DOMAIN: u16 = 1;
/// All labels that a policy with two guests has, and some more.
const LABELS: RangeInclusive<u16> = 0..=40;
/// All parameters of a domain, and some more.
const PARAMETERS: RangeInclusive<u16> = 0..=40;
/// All spaces of `add_to_physmap`, and some more.
const SPACES: RangeInclusive<u16> = 0..=8;
/// The ports whose status is read.
const PORTS: RangeInclusive<u16> = 0..=31;

/// Tries to map one frame of a resource, and prints the result.
pub(super) fn map_resource(domain: u16, resource: &str, id: u16, frame: u32) -> Result<(), Failure> {
    let resource = match resource {
        "ioreq-server" => Resource::IoreqServer(IoreqServerId::new(id)),
        "grant-table" => Resource::GrantTable,
        "grant-status" => Resource::GrantStatus,
        "vmtrace" => Resource::VmTrace,
        "unknown" => Resource::Unknown,
        other => {
            let names = "ioreq-server, grant-table, grant-status, vmtrace or unknown";
            return Err(format!("a resource is {names}, not {other}").into());
        }
    };
    match Privcmd::open()?.map_resource(DomId::new(domain), resource, frame) {
        Ok(_page) => println!("mapped"),
        Err(error) => println!("{}", error.io()),
    }
    Ok(())
}

/// Allocates event channels in the domain, with this one at the other end, until Xen refuses.
pub(super) fn take_ports(domain: u16) -> Result<(), Failure> {
    let privcmd = Privcmd::open()?;
    for taken in 0..MANY_PORTS {
        if let Err(error) = privcmd.forbidden(DomId::new(domain), Forbidden::AllocUnbound(OWN)) {
            println!("taken={taken} {}", error.io());
            return Ok(());
        }
    }
    println!("taken={MANY_PORTS}");
    Ok(())
}

/// Creates an ioreq server for all regions of the guest's devices, and enables it without having mapped its
/// ioreq page. If Xen permits that, the server is kept, so that it gets the guest's next access.
pub(super) fn enable_without_page(domain: u16) -> Result<(), Failure> {
    let server = IoreqServer::create(&Privcmd::open()?, DomId::new(domain))?;
    server.map_window(WINDOWS, WINDOWS_LEN)?;
    match server.set_enabled(true) {
        Ok(()) => {
            let server = server.keep();
            println!("enabled {}", server.id());
        }
        Err(error) => println!("{}", error.io()),
    }
    Ok(())
}

/// Creates ioreq servers, each with as many ranges as Xen allows, and enables them. The ranges of the first
/// server include the guest's memory and devices that Xen emulates. Xen would keep the servers if this
/// process were killed: `end_overload` makes it destroy them.
pub(super) fn overload(domain: u16) -> Result<(), Failure> {
    let (privcmd, domain) = (Privcmd::open()?, DomId::new(domain));
    let (mut servers, mut pages) = (Vec::new(), Vec::new());
    let reason = loop {
        match IoreqServer::create(&privcmd, domain) {
            Ok(server) => servers.push(server),
            Err(error) => break error,
        }
    };
    let mut ranges = 0_u64;
    for server in &servers {
        if ranges == 0 {
            OF_XEN_AND_MEMORY.iter().try_for_each(|(base, len)| server.map_window(*base, *len))?;
        }
        // One byte each, with a gap of one byte: Xen would join adjacent ranges.
        while server.map_window(ELSEWHERE + 2 * ranges, 1).is_ok() {
            ranges += 1;
        }
        pages.push(server.page()?);
        server.set_enabled(true)?;
    }
    let listener = UnixListener::bind(END)?;
    println!("servers={} ranges={ranges} {}", servers.len(), reason.io());
    let (_connection, _) = listener.accept()?;
    drop(servers);
    Ok(fs::remove_file(END)?)
}

/// Ends `overload`, and waits until its ioreq servers are destroyed.
pub(super) fn end_overload() -> Result<(), Failure> {
    Ok(UnixStream::connect(END)?.read_to_end(&mut Vec::new()).map(drop)?)
}

/// Makes each call about the domain and then about this one. Prints a line for each call that is not refused,
/// and then the number of refused calls.
pub(super) fn hypercalls(domain: u16) -> Result<(), Failure> {
    let privcmd = Privcmd::open()?;
    let domain = DomId::new(domain);
    let of_guest = about_any().chain(about_a_guest()).map(|call| (domain, call));
    let of_own = about_any().map(|call| (OWN, call));
    let mut refused = 0_u32;
    for (domain, call) in of_guest.chain(of_own).chain(about_none().map(|call| (OWN, call))) {
        match privcmd.forbidden(domain, call) {
            Err(error) if error.is_denied() || error.is_unsupported() => refused += 1,
            Err(error) => println!("{domain} {call:?}: {}", error.io()),
            Ok(value) => println!("{domain} {call:?}: {value}"),
        }
    }
    println!("refused {refused}");
    Ok(())
}

/// Returns the calls that are made about the guest only. About the calling domain they would end or damage
/// it.
fn about_a_guest() -> impl Iterator<Item = Forbidden> {
    let calls = [Forbidden::ResetPorts, Forbidden::Shutdown, Forbidden::RemoveFromPhysmap];
    calls.into_iter().chain(SPACES.map(Forbidden::AddToPhysmap)).chain(PARAMETERS.map(Forbidden::GetParam))
}

/// Returns the calls that are made about the guest and about the calling domain.
fn about_any() -> impl Iterator<Item = Forbidden> {
    let single = [
        Forbidden::AllocUnbound(OWN),
        Forbidden::CurrentReservation,
        Forbidden::GrantTableSize,
        Forbidden::GrantTableFrames,
    ];
    DOMCTLS
        .into_iter()
        .flatten()
        .map(|number| Forbidden::Domctl(number, 1))
        .chain(PORTS.map(Forbidden::PortStatus))
        .chain(PARAMETERS.map(Forbidden::SetParam))
        .chain(single)
}

/// Returns the calls that are about no domain.
fn about_none() -> impl Iterator<Item = Forbidden> {
    SYSCTLS
        .map(Forbidden::Sysctl)
        .chain(PLATFORM.map(Forbidden::Platform))
        .chain(FLASK.map(|number| Forbidden::Flask(number, 0)))
        .chain(FLASK.map(|number| Forbidden::Flask(number, 1)))
        .chain(LABELS.map(|label| Forbidden::Domctl(CREATE_DOMAIN, label)))
        .chain([Forbidden::ConsoleWrite])
}
