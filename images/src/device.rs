// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The types of virtio devices, one file for each.
//!
//! A type is a table of the manifest ([`Table`]) and all that follows from it ([`DeviceType`]). Another type
//! is another file here, and a row of [`TABLES`].

pub mod gpio;
pub mod i2c;
mod own;
pub mod telemetry;
pub mod virtio;

use std::fmt::Debug;

use confinement::User;
use dtoolkit::error::ModelError;
use dtoolkit::model::DeviceTreeNode;
use shim_config::Backend;
use toml_span::de_helpers::TableHelper;
use toml_span::value::Value;
use toml_span::{DeserError, Deserialize, Span, Spanned};

use crate::board::{Board, Hardware, Kind};
use crate::diagnostics::Diagnostic;
use crate::manifest::{ExtraFile, Guest, Manifest};
use crate::spanned::finish;
use crate::validate::hardware::owned;

/// The tables of devices in `[[guest]]`, in the order in which devices get addresses and interrupts.
const TABLES: [fn(&mut TableHelper<'_>) -> Vec<Device>; 4] =
    [take::<i2c::I2c>, take::<gpio::Gpio>, take::<telemetry::Telemetry>, take::<virtio::Virtio>];

/// A virtio device of a guest.
#[derive(Debug)]
pub struct Device {
    /// The name, unique in the guest.
    pub name: Spanned<String>,
    /// The key of its table in the manifest.
    pub table: &'static str,
    /// The type, and the hardware behind it.
    pub device_type: Box<dyn DeviceType>,
    /// The address of the register window, for a guest whose device tree is compiled in.
    pub base: Option<Spanned<i64>>,
    /// The interrupt's INTID at the guest's GIC, for the same guests.
    pub irq: Option<Spanned<i64>>,
    /// Whether the guest starts and works without the device while its backend is absent.
    pub optional: bool,
    /// The place of the device's table in the file.
    pub span: Span,
}

/// A device of one type, as the manifest describes it.
pub trait DeviceType: Debug {
    /// Checks the keys of the type.
    fn check(&self, device: &Device, checks: &mut Checks<'_>);

    /// The hardware that the device uses, each part once.
    fn parts(&self) -> Vec<Part<'_>>;

    /// Files that its backend needs in the driver domain's ramdisk.
    fn files(&self) -> &[ExtraFile] {
        &[]
    }

    /// The user of its backend, if the manifest names one.
    fn user(&self) -> Option<&Spanned<User>> {
        None
    }

    /// The socket of its backend, if something else than the shim starts that.
    fn socket(&self) -> Option<&Spanned<String>> {
        None
    }

    /// The shim's configuration of the device. Returns none if [`DeviceType::check`] would refuse it.
    fn configuration(&self, place: &Place<'_>) -> Option<shim_config::Device>;

    /// The device's node below its virtio-mmio node, if its driver has a binding. Linux finds it by
    /// `virtio,device` with the device ID in hexadecimal (`virtio/virtio-device.yaml`).
    ///
    /// # Errors
    ///
    /// The manifest has an invalid name of a property.
    fn node(&self) -> Result<Option<DeviceTreeNode>, ModelError>;

    /// The type in a few words.
    fn summary(&self) -> String;

    /// What the guest reaches by the device, a line for each thing.
    fn reaches(&self) -> Vec<String>;
}

/// A type that has a table of its own in the manifest.
trait Table: DeviceType + Sized + 'static {
    /// The key of the table.
    const KEY: &'static str;

    /// Takes the keys of the type out of `table`, whose place is `span`. Also returns the default of the
    /// device's name.
    fn read(table: &mut TableHelper<'_>, span: Span) -> Result<(Self, Spanned<String>), toml_span::Error>;
}

/// A part of the hardware, which belongs to one guest, or to several that share it.
#[derive(Debug)]
pub struct Part<'a> {
    /// The hardware.
    pub hardware: &'a str,
    /// The part, as in `address 0x48`. Without it the device has all of the hardware.
    pub part: Option<String>,
    /// Whether other guests may use it, too. None if no backend can share it.
    pub shared: Option<bool>,
    /// The place in the manifest.
    pub span: Span,
}

/// What the rules of a device refer to besides the device.
#[derive(Debug)]
pub struct Checks<'a> {
    /// The manifest.
    pub manifest: &'a Manifest,
    /// The board.
    pub board: &'a Board,
    /// The errors so far.
    pub found: &'a mut Vec<Diagnostic>,
}

/// What is assigned to a device.
#[derive(Debug)]
pub struct Place<'a> {
    /// The board.
    pub board: &'a Board,
    /// The guest.
    pub guest: &'a Guest,
    /// The user of the guest's processes in the driver domain.
    pub user: User,
    /// A user that no other process has.
    pub own_user: User,
    /// The device.
    pub device: &'a Device,
    /// The address of the register window.
    pub base: u64,
    /// The interrupt's INTID at the guest's GIC.
    pub irq: u32,
}

impl std::fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.part {
            Some(part) => write!(f, "{part} of `{}`", self.hardware),
            None => write!(f, "`{}`", self.hardware),
        }
    }
}

impl<'a> Checks<'a> {
    /// The hardware called `name`, which the driver domain must own, if it is of the given kind or any kind
    /// will do.
    pub(crate) fn owned(&mut self, name: &Spanned<String>, kind: Option<Kind>) -> Option<&'a Hardware> {
        owned(name, kind, self.manifest, self.board, self.found)
    }
}

impl Place<'_> {
    /// A device of the type with the given device ID (virtio 1.3, 5) and number of virtqueues.
    fn device(&self, device_id: u32, queues: u16, backend: Backend) -> shim_config::Device {
        let name = self.device.name.value.clone();
        let device = shim_config::Device::new(name, device_id, queues, self.base, self.irq, backend);
        shim_config::Device { optional: self.device.optional, ..device }
    }

    /// The path of hardware in the driver domain's device tree, by which a backend finds it.
    fn path(&self, hardware: &str) -> Option<String> {
        self.board.hardware(hardware).map(|hardware| format!("/passthrough/{}", hardware.node.value))
    }
}

/// Takes all devices out of the table of a guest.
pub(crate) fn take_all(table: &mut TableHelper<'_>) -> Vec<Device> {
    TABLES.iter().flat_map(|take| take(table)).collect()
}

fn take<T: Table>(table: &mut TableHelper<'_>) -> Vec<Device> {
    let devices: Option<Vec<Entry<T>>> = table.optional(T::KEY);
    devices.into_iter().flatten().map(|entry| entry.device).collect()
}

/// A device that is read from a table of type `T`.
struct Entry<T> {
    device: Device,
    _type: std::marker::PhantomData<T>,
}

impl<'de, T: Table> Deserialize<'de> for Entry<T> {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let mut table = TableHelper::new(value)?;
        let name = table.optional("name");
        let read = T::read(&mut table, span);
        let (base, irq) = (table.optional("base"), table.optional("irq"));
        let optional = table.optional("optional").unwrap_or_default();
        finish!(table, {
            let (device_type, default) = read?;
            let (name, device_type) = (name.unwrap_or(default), Box::new(device_type));
            let device = Device { name, table: T::KEY, device_type, base, irq, optional, span };
            Self { device, _type: std::marker::PhantomData }
        })
    }
}
