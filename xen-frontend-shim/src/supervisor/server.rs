// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ioreq server of a guest: the one that a former supervisor left, or a new one.

use std::fs::File;

use log::warn;
use serde::{Deserialize, Serialize};
use xen_bindings::{DomId, IoreqServer, IoreqServerId, Privcmd};

use super::SupervisorError;
use crate::state::{Found, Record};

/// The record of a guest's ioreq servers, written before the shim's server is created and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ServerRecord {
    /// Servers that other programs of this domain created.
    others: Vec<u16>,
    /// The shim's server, once it is created.
    own: Option<u16>,
}

impl ServerRecord {
    /// The shim's server among those that `exist`.
    fn find(&self, exist: &[u16]) -> Option<u16> {
        let is_own = |id: &&u16| match self.own {
            Some(own) => own == **id,
            // The writer ended between the creation and the second write.
            None => !self.others.contains(id),
        };
        exist.iter().find(is_own).copied()
    }
}

/// The shim's server among those that `exist`. `None` if it is to be created.
///
/// A second server for the same windows would leave accesses to the first one without an answer. So if the
/// record is damaged, the only server is taken for the shim's: a driver domain runs no other device models.
/// If one does, its event channels are bound, and the guest is not served.
fn own_server(found: &Found<ServerRecord>, exist: &[u16]) -> Result<Option<u16>, SupervisorError> {
    match (found, exist) {
        (Found::Value(record), _) => Ok(record.find(exist)),
        (Found::Nothing, _) | (Found::Damaged, []) => Ok(None),
        (Found::Damaged, [only]) => Ok(Some(*only)),
        (Found::Damaged, _) => Err(SupervisorError::UnknownServer(exist.to_vec())),
    }
}

/// Adopts the server of `domain` that a former supervisor left, or creates one. Returns whether it was
/// adopted.
pub(super) fn find_or_create(
    privcmd: &Privcmd,
    domain: DomId,
    record: File,
) -> Result<(IoreqServer, bool), SupervisorError> {
    let (mut record, found) = Record::open::<ServerRecord>(record)?;
    let others: Vec<_> = IoreqServer::list(privcmd, domain)?.into_iter().map(IoreqServerId::get).collect();
    if found == Found::Damaged {
        warn!("{domain}: the record of its ioreq server is damaged; it has {} of this domain", others.len());
    }
    if let Some(own) = own_server(&found, &others)? {
        let others = others.into_iter().filter(|id| *id != own).collect();
        record.write(&ServerRecord { others, own: Some(own) })?;
        return Ok((IoreqServer::adopt(privcmd, domain, IoreqServerId::new(own)), true));
    }
    let mut servers = ServerRecord { others, own: None };
    record.write(&servers)?;
    let server = IoreqServer::create(privcmd, domain)?;
    servers.own = Some(server.id().get());
    record.write(&servers)?;
    Ok((server.keep(), false))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn own_server_is_found_after_any_end_of_the_supervisor() {
        // (others, own, existing servers, expected)
        for (others, own, exist, expected) in [
            (vec![], Some(0), vec![0], Some(0)),
            (vec![0], Some(1), vec![0, 1], Some(1)),
            // The guest was created again, or the server was destroyed.
            (vec![0], Some(1), vec![0], None),
            // The supervisor ended before the creation, and between the creation and the second write.
            (vec![0, 2], None, vec![0, 2], None),
            (vec![0, 2], None, vec![0, 1, 2], Some(1)),
        ] {
            let servers = ServerRecord { others, own };
            let own = own_server(&Found::Value(servers.clone()), &exist).unwrap();
            assert_eq!(own, expected, "{servers:?} {exist:?}");
        }
    }

    #[test]
    fn missing_record_leads_to_a_new_server() {
        for exist in [vec![], vec![0]] {
            assert_eq!(own_server(&Found::Nothing, &exist).unwrap(), None);
        }
    }

    #[test]
    fn damaged_record_never_leads_to_a_second_server() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"damage", 0).unwrap();
        let (_, found) = Record::open::<ServerRecord>(file).unwrap();
        assert_eq!(own_server(&found, &[]).unwrap(), None);
        assert_eq!(own_server(&found, &[3]).unwrap(), Some(3));
        let error = own_server(&found, &[0, 3]).unwrap_err().to_string();
        assert!(error.contains("[0, 3]") && error.contains("restart the machine"), "{error}");
    }
}
