// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The manifest's tables, key by key.

use toml_span::de_helpers::TableHelper;
use toml_span::value::Value;
use toml_span::{DeserError, Deserialize, Spanned};

use super::{Domain, DriverDomain, ExtraFile, Guest, Manifest, MemoryAccess};
use crate::device;
use crate::spanned::{Named, choice, finish};

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let board = table.required("board");
        let driver_domain = table.required("driver-domain");
        let guests = table.optional("guest").unwrap_or_default();
        finish!(table, Self { board: board?, driver_domain: driver_domain?, guests })
    }
}

impl Domain {
    /// Takes the keys of any domain out of `table`.
    fn take(table: &mut TableHelper<'_>) -> Result<Self, toml_span::Error> {
        let memory = table.required("memory");
        let vcpus = table.optional("vcpus").unwrap_or(Spanned::new(1));
        let kernel = table.optional("kernel").unwrap_or_else(|| Spanned::new("Image".to_owned()));
        let bootargs = table.optional("bootargs");
        Ok(Self { memory: memory?, vcpus, kernel, bootargs })
    }
}

impl<'de> Deserialize<'de> for DriverDomain {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let domain = Domain::take(&mut table);
        let hardware = table.required("hardware");
        let console = table.optional("console").unwrap_or_default();
        let files: Named<Spanned<String>> = table.optional("files").unwrap_or_default();
        let files = ExtraFile::list(files);
        finish!(table, Self { domain: domain?, hardware: hardware?, console, files })
    }
}

impl<'de> Deserialize<'de> for Guest {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let name = table.required("name");
        let domain = Domain::take(&mut table);
        let ramdisk = table.optional("ramdisk");
        let memory_access = table.optional("memory-access");
        let memory_access = memory_access.unwrap_or(Spanned::new(MemoryAccess::Granted));
        let devices = device::take_all(&mut table);
        finish!(table, Self { name: name?, domain: domain?, ramdisk, memory_access, devices })
    }
}

impl<'de> Deserialize<'de> for MemoryAccess {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        choice(value, &[("granted", Self::Granted), ("all", Self::All)])
    }
}
