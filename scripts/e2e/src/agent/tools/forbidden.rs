// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attempts of the driver domain on what Xen keeps for a guest, beyond what serving it takes.
//! images/xen/policy/README.md says of each permission of the policy what it opens, and names these.

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
/// Where a guest has virtio devices (Xen's `public/arch-arm.h`, GUEST_VIRTIO_MMIO_BASE).
const WINDOWS: u64 = 0x0200_0000;
const WINDOWS_LEN: u64 = 0x0010_0000;
/// Where a guest has nothing.
const ELSEWHERE: u64 = 0x3000_0000;
/// The first memory of a guest, its GIC's distributor and its UART: base and length.
const OF_XEN_AND_MEMORY: [(u64, u64); 3] =
    [(0x4000_0000, 0x0400_0000), (0x0300_1000, 0x0001_0000), (0x2200_0000, 0x0000_1000)];
/// A connection to this socket ends `overload`.
const END: &str = "/tmp/overload";
/// All domctls of Xen 4.20 and some more, and those of its debugger.
const DOMCTLS: [RangeInclusive<u16>; 2] = [0..=100, 1000..=1004];
/// All sysctls of Xen 4.20 and some more.
const SYSCTLS: RangeInclusive<u16> = 0..=40;
/// All operations of the platform, and some more.
const PLATFORM: RangeInclusive<u16> = 0..=70;
/// All operations of the security server, and some more.
const FLASK: RangeInclusive<u16> = 0..=30;
/// `XEN_DOMCTL_createdomain`, whose first parameter is the label of the domain to be.
const CREATE_DOMAIN: u16 = 1;
/// All labels that a policy with two guests has, and some more.
const LABELS: RangeInclusive<u16> = 0..=40;
/// All parameters of a domain, and some more.
const PARAMETERS: RangeInclusive<u16> = 0..=40;
/// All spaces that a page can be mapped from, and some more.
const SPACES: RangeInclusive<u16> = 0..=8;
/// The ports of a domain that are asked for.
const PORTS: RangeInclusive<u16> = 0..=31;

/// Tries to map one frame.
pub(super) fn map_resource(domain: u16, resource: &str, id: u16, frame: u32) -> Result<(), Failure> {
    let resource = match resource {
        "ioreq-server" => Resource::IoreqServer(IoreqServerId::new(id)),
        "grant-table" => Resource::GrantTable,
        "grant-status" => Resource::GrantStatus,
        "vmtrace" => Resource::VmTrace,
        "unknown" => Resource::Unknown,
        other => return Err(format!("there is no resource {other}").into()),
    };
    match Privcmd::open()?.map_resource(DomId::new(domain), resource, frame) {
        Ok(_page) => println!("mapped"),
        Err(error) => println!("{}", error.io()),
    }
    Ok(())
}

/// Makes event channels in the domain, with this one at the other end, until Xen refuses.
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

/// Makes an ioreq server for all that the guest's devices have, and enables it without having asked for its
/// page. If Xen does that, the server stays, so that the guest's next access meets it.
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

/// Makes ioreq servers, each with as many ranges as Xen allows, and enables them. The first has the guest's
/// memory and what Xen emulates for it. They stay until `end_overload`, since Xen keeps them when this
/// process is killed.
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
        // One byte each, and one apart, lest Xen make one range of them.
        while server.map_window(ELSEWHERE + 2 * ranges, 1).is_ok() {
            ranges += 1;
        }
        pages.push(server.page()?);
        server.set_enabled(true)?;
    }
    let listener = UnixListener::bind(END)?;
    println!("servers={} ranges={ranges} {}", servers.len(), reason.io());
    let (_until_then, _) = listener.accept()?;
    drop(servers);
    Ok(fs::remove_file(END)?)
}

/// Ends `overload`, and waits until its ioreq servers are gone.
pub(super) fn end_overload() -> Result<(), Failure> {
    Ok(UnixStream::connect(END)?.read_to_end(&mut Vec::new()).map(drop)?)
}

/// Makes each call about the domain and then about this one. Those that are not refused get a line each, the
/// last line says how many were.
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

/// What would end or break the domain that makes it, if Xen did it.
fn about_a_guest() -> impl Iterator<Item = Forbidden> {
    let calls = [Forbidden::ResetPorts, Forbidden::Shutdown, Forbidden::RemoveFromPhysmap];
    calls.into_iter().chain(SPACES.map(Forbidden::AddToPhysmap)).chain(PARAMETERS.map(Forbidden::GetParam))
}

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

fn about_none() -> impl Iterator<Item = Forbidden> {
    SYSCTLS
        .map(Forbidden::Sysctl)
        .chain(PLATFORM.map(Forbidden::Platform))
        .chain(FLASK.map(|number| Forbidden::Flask(number, 0)))
        .chain(FLASK.map(|number| Forbidden::Flask(number, 1)))
        .chain(LABELS.map(|label| Forbidden::Domctl(CREATE_DOMAIN, label)))
        .chain([Forbidden::ConsoleWrite])
}
