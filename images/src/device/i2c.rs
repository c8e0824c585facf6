// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! I2C adapters: `[[guest.i2c]]` (virtio 1.3, 5.16).

use dtoolkit::error::ModelError;
use dtoolkit::model::DeviceTreeNode;
use toml_span::de_helpers::TableHelper;
use toml_span::value::Value;
use toml_span::{DeserError, Deserialize, Span, Spanned};

use super::own::Own;
use super::{Checks, Device, DeviceType, Part, Place, Table};
use crate::board::Kind;
use crate::diagnostics::{Diagnostic, counted};
use crate::emit::fdt::Build;
use crate::spanned::{Compatible, Named, Property, finish};
use crate::validate::words;

/// The virtio device ID (virtio 1.3, 5).
const DEVICE_ID: u32 = 34;

/// The number of virtqueues: requests (virtio 1.3, 5.16.2).
const QUEUES: u16 = 1;

/// The 7-bit addresses that are not reserved (I2C-bus specification, UM10204, table 4).
const ADDRESSES: std::ops::RangeInclusive<i64> = 0x08..=0x77;

/// The properties that the builder writes into the node of a target.
const OWN_PROPERTIES: [&str; 5] = ["compatible", "reg", "phandle", "linux,phandle", "name"];

/// The directory of the locks by which backends take turns. They make a directory in it for their guest
/// before they change to its user.
const TURNS: &str = "/run/i2c-turns";

/// An I2C adapter.
#[derive(Debug)]
pub struct I2c {
    /// The name of the hardware.
    pub adapter: Spanned<String>,
    /// The targets that the guest reaches on it.
    pub targets: Vec<Target>,
    /// Whether a driver without VIRTIO_I2C_F_ZERO_LENGTH_REQUEST is refused (virtio 1.3, 5.16.6.4).
    pub strict: bool,
    own: Own,
}

/// A target on an I2C bus.
#[derive(Clone, Debug)]
pub struct Target {
    /// The 7-bit address.
    pub address: Spanned<i64>,
    /// The names by which the guest's kernel finds a driver, the most specific first. Without them the
    /// guest's programs use the bus.
    pub compatible: Option<Vec<String>>,
    /// More properties of the target's device tree node.
    pub properties: Vec<(Spanned<String>, Property)>,
    /// Whether other guests may use the target, too.
    pub shared: bool,
}

impl Table for I2c {
    const KEY: &'static str = "i2c";

    fn read(table: &mut TableHelper<'_>, _: Span) -> Result<(Self, Spanned<String>), toml_span::Error> {
        let adapter: Result<Spanned<String>, _> = table.required("adapter");
        let targets = table.required("targets");
        let strict = table.optional("strict").unwrap_or(true);
        let own = Own::read(table);
        let adapter = adapter?;
        let name = adapter.clone();
        Ok((Self { adapter, targets: targets?, strict, own }, name))
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

impl DeviceType for I2c {
    fn check(&self, device: &Device, checks: &mut Checks<'_>) {
        self.own.check(checks);
        checks.owned(&self.adapter, Some(Kind::I2c));
        if self.targets.is_empty() {
            let (title, label) = ("an I2C adapter without targets", "the guest reaches nothing by it");
            let help = "list what the guest may reach: `targets = [{ address = 0x48 }]`";
            checks.found.push(Diagnostic::new(device.span, title, label).help(help));
        }
        for target in &self.targets {
            target.check(checks.found);
        }
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let part = |target: &Target| Part {
            hardware: &self.adapter.value,
            part: Some(format!("address {:#04x}", target.address.value)),
            shared: Some(target.shared),
            span: target.address.span,
        };
        self.targets.iter().map(part).collect()
    }

    fn configuration(&self, place: &Place<'_>) -> Option<shim_config::Device> {
        let allowed: Vec<_> =
            self.targets.iter().map(|target| format!("{:#04x}", target.address.value)).collect();
        let words = ["--adapter", &place.path(&self.adapter.value)?, "--allow", &allowed.join(",")];
        let mut words = words.map(str::to_owned).to_vec();
        // The shim offers the driver what the backend accepts.
        words.extend((!self.strict).then(|| "--no-strict".to_owned()));
        words.extend(turns(place).map(|directory| format!("--turns={directory}")));
        let device = place.device(DEVICE_ID, QUEUES, self.own.backend("i2c", words, place));
        Some(shim_config::Device { strict: self.strict, ..device })
    }

    fn node(&self) -> Result<Option<DeviceTreeNode>, ModelError> {
        let compatible = format!("virtio,device{DEVICE_ID:x}");
        let mut node = DeviceTreeNode::new("i2c")?.set("compatible", compatible)?.cells(1, 0)?;
        for target in &self.targets {
            if let Some(drivers) = &target.compatible {
                node.add_child(target.node(drivers)?);
            }
        }
        Ok(Some(node))
    }

    fn summary(&self) -> String {
        format!("I2C, {}", counted(self.targets.len(), "target"))
    }

    fn reaches(&self) -> Vec<String> {
        let line = |target: &Target| {
            let compatible = target.compatible.as_ref().and_then(|names| names.first());
            let what = compatible.map_or("a target", String::as_str);
            format!("I2C    {:#04x}  {what:<14} on {}", target.address.value, self.adapter.value)
        };
        self.targets.iter().map(line).collect()
    }
}

/// The directory of the locks of a guest's I2C backends, if there are several: hardware of several names can
/// be parts of one bus.
fn turns(place: &Place<'_>) -> Option<String> {
    let adapters = place.guest.devices.iter().filter(|device| device.table == I2c::KEY);
    (adapters.count() > 1).then(|| format!("{TURNS}/{}", place.guest.name.value))
}

impl Target {
    fn check(&self, found: &mut Vec<Diagnostic>) {
        let address = &self.address;
        if !ADDRESSES.contains(&address.value) {
            let title = format!("{:#x} is not the address of an I2C target", address.value);
            let shifted = address.value >> 1;
            let help = if address.value > 0x7f && ADDRESSES.contains(&shifted) {
                format!("write the seven bits without the read/write bit: perhaps {shifted:#x}")
            } else {
                format!("write an address from {:#04x} to {:#04x}", ADDRESSES.start(), ADDRESSES.end())
            };
            found
                .push(Diagnostic::new(address.span, title, "out of the 7-bit range, or reserved").help(help));
        }
        let instead = "use the target's `compatible` and `address`";
        words::properties(&self.properties, &OWN_PROPERTIES, instead, found);
        if let (None, Some((name, _))) = (&self.compatible, self.properties.first()) {
            let title = "properties of a target without a driver";
            let help = "add `compatible = \"…\"` to the target, or leave its properties out";
            found.push(Diagnostic::new(name.span, title, "no driver reads them").help(help));
        }
    }

    fn node(&self, drivers: &[String]) -> Result<DeviceTreeNode, ModelError> {
        // The validation limits the address to seven bits.
        let address = u32::try_from(self.address.value).unwrap_or(u32::MAX);
        let mut node = DeviceTreeNode::new(format!("target@{address:x}"))?
            .set_strings("compatible", drivers)?
            .set("reg", address)?;
        for (name, value) in &self.properties {
            node = node.set_written(&name.value, value)?;
        }
        Ok(node)
    }
}
