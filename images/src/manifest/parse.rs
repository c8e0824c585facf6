// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The manifest's tables, key by key.

use toml_span::de_helpers::TableHelper;
use toml_span::value::Value;
use toml_span::{DeserError, Deserialize, Span, Spanned};

use super::{Device, DeviceType, Domain, DriverDomain, ExtraFile, Guest, I2c, Manifest, Property, Target};
use crate::spanned::{Compatible, Named, finish};

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
        let mut table = TableHelper::new(value)?;
        let name = table.required("name");
        let domain = Domain::take(&mut table);
        let ramdisk = table.optional("ramdisk");
        let i2c: Vec<I2cTable> = table.optional("i2c").unwrap_or_default();
        let gpio: Vec<GpioTable> = table.optional("gpio").unwrap_or_default();
        let i2c = i2c.into_iter().map(|table| table.0);
        let devices = i2c.chain(gpio.into_iter().map(|table| table.0)).collect();
        finish!(table, Self { name: name?, domain: domain?, ramdisk, devices })
    }
}

/// A table `[[guest.i2c]]`.
struct I2cTable(Device);

impl<'de> Deserialize<'de> for I2cTable {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let mut table = TableHelper::new(value)?;
        let name = table.optional("name");
        let adapter: Result<Spanned<String>, _> = table.required("adapter");
        let targets = table.required("targets");
        let device = device(&mut table, span);
        finish!(table, {
            let adapter = adapter?;
            let name = name.unwrap_or_else(|| adapter.clone());
            Self(device(name, DeviceType::I2c(I2c { adapter, targets: targets? })))
        })
    }
}

/// A table `[[guest.gpio]]`.
struct GpioTable(Device);

impl<'de> Deserialize<'de> for GpioTable {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let mut table = TableHelper::new(value)?;
        let name = table.optional("name").unwrap_or_else(|| Spanned::with_span("gpio".to_owned(), span));
        let lines = table.required("lines");
        let device = device(&mut table, span);
        finish!(table, Self(device(name, DeviceType::Gpio(lines?))))
    }
}

/// Takes the keys of any device out of `table`, whose place is `span`.
fn device(
    table: &mut TableHelper<'_>,
    span: Span,
) -> impl FnOnce(Spanned<String>, DeviceType) -> Device + use<> {
    let busy_poll = table.optional("busy-poll-us");
    let (base, irq) = (table.optional("base"), table.optional("irq"));
    move |name, device_type| Device { name, device_type, busy_poll, base, irq, span }
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
