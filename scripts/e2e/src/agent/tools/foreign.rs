// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attempts of the driver domain to map memory of a guest, each of which Xen has to refuse, and the list of
//! the ioreq servers that it has for a guest.

use std::fmt::Display;

use xen_bindings::{Access, DomId, Gfn, Gntdev, GrantRef, IoreqServer, Privcmd};

use super::arguments::Failure;

/// Tries to map each page by itself, as a privileged domain could.
pub(super) fn map_foreign(domain: u16, first: u64, count: u64) -> Result<(), Failure> {
    let privcmd = Privcmd::open()?;
    let pages = first..first + count;
    summarise(pages.map(|page| privcmd.map_foreign(DomId::new(domain), Gfn::new(page), 1)))
}

/// Tries to map each grant reference by itself.
pub(super) fn map_grants(domain: u16, first: u32, count: u32) -> Result<(), Failure> {
    let gntdev = Gntdev::open()?;
    let grants = first..first + count;
    summarise(grants.map(|grant| gntdev.map(DomId::new(domain), &[GrantRef::new(grant)], Access::Read)))
}

/// Prints the numbers of this domain's ioreq servers for a guest, in one line.
pub(super) fn ioreq_servers(domain: u16) -> Result<(), Failure> {
    let servers = IoreqServer::list(&Privcmd::open()?, DomId::new(domain))?;
    println!("{:?}", servers.into_iter().map(xen_bindings::IoreqServerId::get).collect::<Vec<_>>());
    Ok(())
}

fn summarise<T, E: Display>(attempts: impl Iterator<Item = Result<T, E>>) -> Result<(), Failure> {
    let (mut mapped, mut refused, mut reason) = (0_u32, 0_u32, String::new());
    for attempt in attempts {
        match attempt {
            Ok(_) => mapped += 1,
            Err(error) => {
                refused += 1;
                reason = error.to_string();
            }
        }
    }
    println!("mapped={mapped} refused={refused} reason={reason}");
    Ok(())
}
