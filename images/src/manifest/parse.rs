// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The manifest's tables, key by key.

use toml_span::de_helpers::{TableHelper, expected};
use toml_span::value::{Value, ValueInner};
use toml_span::{DeserError, Deserialize, Spanned};

use super::{
    Bias, Domain, Drive, DriverDomain, ExtraFile, Gpio, Guest, I2c, Line, Manifest, Placement, Property,
    Safe, Target,
};
use crate::spanned::{Compatible, Named, choice, custom, finish};

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
        let files =
            files.0.into_iter().map(|(destination, source)| ExtraFile { destination, source }).collect();
        finish!(table, Self { domain: domain?, hardware: hardware?, console, files })
    }
}

impl<'de> Deserialize<'de> for Guest {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let mut table = TableHelper::new(value)?;
        let name = table.required("name");
        let domain = Domain::take(&mut table);
        let ramdisk = table.optional("ramdisk");
        let i2c = table.optional("i2c").unwrap_or_default();
        let gpio = table.optional("gpio").unwrap_or_default();
        finish!(table, Self { name: name?, domain: domain?, ramdisk, i2c, gpio, span })
    }
}

impl<'de> Deserialize<'de> for I2c {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let mut table = TableHelper::new(value)?;
        let name = table.optional("name");
        let adapter: Result<Spanned<String>, _> = table.required("adapter");
        let targets = table.required("targets");
        let busy_poll = table.optional("busy-poll-us");
        let placement = Placement::take(&mut table);
        finish!(table, {
            let adapter = adapter?;
            let name = name.unwrap_or_else(|| adapter.clone());
            Self { name, adapter, targets: targets?, busy_poll, placement, span }
        })
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let address = table.required("address");
        let compatible = table.optional("compatible").map(|Compatible(names)| names);
        let properties: Named<Property> = table.optional("properties").unwrap_or_default();
        let shared = table.optional("shared").unwrap_or_default();
        finish!(table, Self { address: address?, compatible, properties: properties.0, shared })
    }
}

impl<'de> Deserialize<'de> for Gpio {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let mut table = TableHelper::new(value)?;
        let name = table.optional("name").unwrap_or_else(|| Spanned::with_span("gpio".to_owned(), span));
        let lines = table.required("lines");
        let busy_poll = table.optional("busy-poll-us");
        let placement = Placement::take(&mut table);
        finish!(table, Self { name, lines: lines?, busy_poll, placement, span })
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let chip = table.required("chip");
        let line = table.required("line");
        let name = table.optional("name");
        let safe = table.optional("safe");
        let bias = table.optional("bias");
        let drive = table.optional("drive");
        let debounce = table.optional("debounce-us");
        let shared = table.optional("shared");
        finish!(table, Self { chip: chip?, line: line?, name, safe, bias, drive, debounce, shared })
    }
}

impl<'de> Deserialize<'de> for Bias {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        choice(value, &Self::WORDS)
    }
}

impl<'de> Deserialize<'de> for Drive {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        choice(value, &Self::WORDS)
    }
}

impl<'de> Deserialize<'de> for Safe {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let written = value.take();
        match &written {
            ValueInner::Integer(0) => return Ok(Self::Low),
            ValueInner::Integer(1) => return Ok(Self::High),
            ValueInner::String(word) if word == "stay" => return Ok(Self::Stay),
            _ => {}
        }
        let title = match written {
            ValueInner::Integer(number) => format!("{number} is no level of a line"),
            ValueInner::String(word) => format!("`{word}` is no safe value"),
            other => return Err(expected("0, 1 or \"stay\"", other, span).into()),
        };
        let help = "write 0 or 1 for a line that shall be driven when its guest does not use it, \"stay\" for one that \
                    shall keep its level, or leave `safe` out to have it released";
        Err(custom(span, title, help).into())
    }
}

impl Placement {
    fn take(table: &mut TableHelper<'_>) -> Self {
        Self { base: table.optional("base"), irq: table.optional("irq") }
    }
}
