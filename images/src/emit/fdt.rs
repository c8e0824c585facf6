// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Parts of all device trees: values of properties, and the frame of a partial device tree.

use dtoolkit::ToPropertyValue;
use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use crate::board::Region;
use crate::spanned::Property;

/// The phandle of the interrupt controller in every partial device tree, which Xen gives to the one that it
/// emulates.
pub(super) const GIC: u32 = 1;

/// The first phandle that is free in a partial device tree.
pub(super) const FIRST_FREE_PHANDLE: u32 = 2;

/// The value of a property without a value.
pub(crate) const FLAG: [u8; 0] = [];

/// Building a node by chained calls.
pub(crate) trait Build: Sized {
    /// Sets a property.
    fn set<T: ToPropertyValue>(self, name: &str, value: T) -> Result<Self, ModelError>;

    /// Adds a node below this one.
    fn with(self, child: DeviceTreeNode) -> Self;

    /// Sets `#address-cells` and `#size-cells`, for the nodes below.
    fn cells(self, address: u32, size: u32) -> Result<Self, ModelError> {
        self.set("#address-cells", address)?.set("#size-cells", size)
    }

    /// Sets a property of a board file or a manifest.
    fn set_written(self, name: &str, value: &Property) -> Result<Self, ModelError> {
        match value {
            Property::Flag => self.set(name, FLAG),
            Property::Cells(cells) => self.set(name, cells.as_slice()),
            Property::Bytes(bytes) => self.set(name, bytes.as_slice()),
            Property::Strings(strings) => self.set_strings(name, strings),
        }
    }

    /// Sets a property to a list of strings.
    fn set_strings<S: AsRef<str>>(self, name: &str, strings: &[S]) -> Result<Self, ModelError> {
        let strings: Vec<&str> = strings.iter().map(AsRef::as_ref).collect();
        self.set(name, strings)
    }
}

impl Build for DeviceTreeNode {
    fn set<T: ToPropertyValue>(mut self, name: &str, value: T) -> Result<Self, ModelError> {
        self.add_property(DeviceTreeProperty::new(name, value)?);
        Ok(self)
    }

    fn with(mut self, child: DeviceTreeNode) -> Self {
        self.add_child(child);
        self
    }
}

/// Numbers of 64 bits as two cells each, the more significant first.
pub(super) fn wide(numbers: &[u64]) -> Vec<u32> {
    let halves = |number: &u64| [high(*number), low(*number)];
    numbers.iter().flat_map(halves).collect()
}

fn high(number: u64) -> u32 {
    low(number >> 32)
}

fn low(number: u64) -> u32 {
    let [.., a, b, c, d] = number.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// The `reg` of `region`, for addresses and sizes of two cells.
pub(crate) fn reg(region: Region) -> Vec<u32> {
    wide(&[region.base, region.size])
}

/// An SPI in the GIC's binding.
pub(super) fn spi(number: u32, flags: u32) -> [u32; 3] {
    [0, number, flags]
}

/// Makes a partial device tree. Xen adds its aliases and the nodes below `/passthrough` to the tree that it
/// makes for the domain (Xen, `docs/misc/arm/passthrough.txt`). The interrupt controller has the phandle
/// [`GIC`].
pub(super) fn partial(devices: Vec<DeviceTreeNode>) -> Result<DeviceTree, ModelError> {
    let gic = DeviceTreeNode::new("gic")?
        .set("#interrupt-cells", 3u32)?
        .set("interrupt-controller", FLAG)?
        .set("phandle", GIC)?;
    let mut passthrough = DeviceTreeNode::new("passthrough")?
        .set("compatible", "simple-bus")?
        .set("ranges", FLAG)?
        .cells(2, 2)?;
    for device in devices {
        passthrough.add_child(device);
    }
    let mut tree = DeviceTree::new();
    tree.root = tree.root.cells(2, 2)?.with(gic).with(passthrough);
    Ok(tree)
}
