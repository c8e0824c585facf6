// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the shim has to know of a device, in place of what its table has for the type.

use std::ops::Range;

use shim_config::{Backend, DeviceType, PropertyError};
use toml_span::de_helpers::TableHelper;
use toml_span::value::Value;
use toml_span::{DeserError, Deserialize, Span, Spanned};

use crate::diagnostics::{Diagnostic, listed};
use crate::spanned::finish;

/// The properties that are written.
#[derive(Debug)]
pub(super) struct Properties {
    queues: Option<Spanned<u16>>,
    queue_size: Option<Spanned<u16>>,
    config_size: Option<Spanned<u32>>,
    features: Option<Spanned<u64>>,
    writable: Option<Spanned<Writable>>,
    inbound: Option<Spanned<Vec<u16>>>,
    strict: Option<Spanned<bool>>,
}

/// The bytes of the configuration structure that a driver writes: `{ offset = 8, size = 4 }`.
#[derive(Clone, Copy, Debug)]
struct Writable {
    offset: u32,
    size: u32,
}

impl<'de> Deserialize<'de> for Writable {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let (offset, size) = (table.required("offset"), table.required("size"));
        finish!(table, Self { offset: offset?, size: size? })
    }
}

impl Writable {
    fn range(self) -> Range<u32> {
        self.offset..self.offset.saturating_add(self.size)
    }
}

impl Properties {
    /// Takes the keys out of `table`.
    pub(super) fn read(table: &mut TableHelper<'_>) -> Self {
        Self {
            queues: table.optional("queues"),
            queue_size: table.optional("queue-size"),
            config_size: table.optional("config-size"),
            features: table.optional("features"),
            writable: table.optional("writable"),
            inbound: table.optional("inbound"),
            strict: table.optional("strict"),
        }
    }

    /// Checks them for a device of the given type, whose table is at `table`.
    pub(super) fn check(&self, device_id: u32, table: Span, found: &mut Vec<Diagnostic>) {
        let missing = self.missing(device_id);
        if !missing.is_empty() {
            found.push(unknown_type(device_id, &missing, table));
            return;
        }
        let backend = Backend::Socket(std::path::PathBuf::new());
        let (name, queues) = (String::new(), self.queues(device_id));
        let device = self.apply(shim_config::Device::new(name, device_id, queues, 0, 0, backend));
        let Err(error) = shim_config::Properties::of(&device) else { return };
        let span = self.place_of(&error).unwrap_or(table);
        found.push(Diagnostic::new(span, "a device that cannot exist", error.to_string()));
    }

    /// The keys without which a device of a type that is not in the shim's table cannot exist.
    fn missing(&self, device_id: u32) -> Vec<&'static str> {
        if DeviceType::with_id(device_id).is_some() {
            return Vec::new();
        }
        let needed = [
            ("queues", self.queues.is_some()),
            ("queue-size", self.queue_size.is_some()),
            ("config-size", self.config_size.is_some()),
            ("features", self.features.is_some()),
            ("inbound", self.inbound.is_some()),
        ];
        needed.into_iter().filter(|(_, is_there)| !is_there).map(|(key, _)| key).collect()
    }

    /// The place of the value that is wrong.
    fn place_of(&self, error: &PropertyError) -> Option<Span> {
        match error {
            PropertyError::UnknownType { .. } => None,
            PropertyError::Queues(_) => self.queues.as_ref().map(|value| value.span),
            PropertyError::QueueSize(_) => self.queue_size.as_ref().map(|value| value.span),
            PropertyError::ConfigSize(_) => self.config_size.as_ref().map(|value| value.span),
            PropertyError::Writable(..) => {
                let writable = self.writable.as_ref().map(|value| value.span);
                writable.or(self.config_size.as_ref().map(|value| value.span))
            }
            PropertyError::Features(..) => self.features.as_ref().map(|value| value.span),
            PropertyError::Inbound(..) => {
                let inbound = self.inbound.as_ref().map(|value| value.span);
                inbound.or(self.queues.as_ref().map(|value| value.span))
            }
        }
    }

    /// The number of virtqueues.
    pub(super) fn queues(&self, device_id: u32) -> u16 {
        let usual = DeviceType::with_id(device_id).map_or(0, |row| row.queues);
        self.queues.as_ref().map_or(usual, |queues| queues.value)
    }

    /// `device` with these properties.
    pub(super) fn apply(&self, device: shim_config::Device) -> shim_config::Device {
        shim_config::Device {
            queue_size: self.queue_size.as_ref().map(|size| size.value),
            config_size: self.config_size.as_ref().map(|size| size.value),
            features: self.features.as_ref().map(|features| features.value),
            writable: self.writable.as_ref().map(|writable| writable.value.range()),
            inbound: self.inbound.as_ref().map(|queues| queues.value.clone()),
            strict: self.strict.as_ref().is_none_or(|strict| strict.value),
            ..device
        }
    }
}

fn unknown_type(device_id: u32, missing: &[&str], table: Span) -> Diagnostic {
    let title = format!("the shim does not know the virtio device type {device_id}");
    let label = format!("so the device also needs {}", listed(missing));
    let help = "add them: the number of virtqueues and the largest size of one, the bytes of the \
                configuration structure, the feature bits of the type, and the list of queues whose buffers \
                the device fills without a request";
    Diagnostic::new(table, title, label).help(help)
}
