// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The board file's tables, key by key.

use toml_span::value::Value;
use toml_span::{DeserError, Deserialize, Spanned, de_helpers::TableHelper};

use super::{Board, Clock, Hardware, Interrupt, Kind, LAST_SPI, Machine, Qemu, QemuDevice, Region};
use crate::spanned::{Compatible, Named, Property, choice, custom, finish};

impl<'de> Deserialize<'de> for Board {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let machine = table.required("machine");
        let xen: Result<Xen, _> = table.required("xen");
        let qemu = table.optional("qemu");
        let hardware: Result<Named<Hardware>, _> = table.required("hardware");
        finish!(table, {
            let named = |(name, hardware): (Spanned<String>, Hardware)| Hardware { name, ..hardware };
            let hardware = hardware?.0.into_iter().map(named).collect();
            Self { machine: machine?, xen_bootargs: xen?.bootargs, qemu, hardware }
        })
    }
}

struct Xen {
    bootargs: Spanned<String>,
}

impl<'de> Deserialize<'de> for Xen {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let bootargs = table.required("bootargs");
        finish!(table, Self { bootargs: bootargs? })
    }
}

impl<'de> Deserialize<'de> for Machine {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let cpus = table.required("cpus");
        let ram = table.required("ram");
        let modules = table.required("modules");
        let static_memory = table.required("static-memory");
        finish!(table, Self { cpus: cpus?, ram: ram?, modules: modules?, static_memory: static_memory? })
    }
}

impl<'de> Deserialize<'de> for Region {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let base = table.required("base");
        let size = table.required("size");
        finish!(table, Self { base: base?, size: size? })
    }
}

impl<'de> Deserialize<'de> for Qemu {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let program = table.required("program");
        let machine = table.required("machine");
        let args = table.optional("args").unwrap_or_default();
        finish!(table, Self { program: program?, machine: machine?, args })
    }
}

impl<'de> Deserialize<'de> for Hardware {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let kind = table.required("kind");
        let lines = table.optional("lines");
        let host_node = table.required("host-node");
        let node = table.required("node");
        let compatible = table.required("compatible").map(|Compatible(names)| names);
        let reg = table.required("reg");
        let interrupts = table.optional("interrupts").unwrap_or_default();
        let clocks = table.optional("clocks").unwrap_or_default();
        let properties: Named<Property> = table.optional("properties").unwrap_or_default();
        let qemu = table.optional("qemu");
        finish!(table, {
            let (host_node, node, compatible) = (host_node?, node?, compatible?);
            // The key of this table, which the caller sets.
            let name = Spanned::new(String::new());
            let (kind, reg, properties) = (kind?, reg?, properties.0);
            Self { name, kind, lines, host_node, node, compatible, reg, interrupts, clocks, properties, qemu }
        })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        choice(value, &[("i2c", Self::I2c), ("gpio", Self::Gpio), ("other", Self::Other)])
    }
}

impl<'de> Deserialize<'de> for Interrupt {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let spi: Result<Spanned<u32>, _> = table.required("spi");
        let trigger: Result<Trigger, _> = table.required("trigger");
        finish!(table, {
            let spi = spi?;
            if spi.value > LAST_SPI {
                let title = format!("there is no SPI {}", spi.value);
                let help = format!("write 0 to {LAST_SPI}: the number at the GIC minus 32");
                return Err(custom(spi.span, title, help));
            }
            Self { spi: spi.value, flags: trigger?.0 }
        })
    }
}

/// The second cell of the GIC's interrupt specifier (Linux, `interrupt-controller/arm,gic-v3.yaml`).
struct Trigger(u32);

impl<'de> Deserialize<'de> for Trigger {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        choice(value, &[("edge-rising", 1), ("level-high", 4)]).map(Self)
    }
}

impl<'de> Deserialize<'de> for Clock {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let name = table.required("name");
        let frequency = table.required("frequency");
        finish!(table, Self { name: name?, frequency: frequency? })
    }
}

impl<'de> Deserialize<'de> for QemuDevice {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let vhost_user = table.required("vhost-user");
        let bus = table.required("bus");
        finish!(table, Self { vhost_user: vhost_user?, bus: bus? })
    }
}
