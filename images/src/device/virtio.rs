// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices that any vhost-user backend serves: `[[guest.virtio]]`.

mod program;
mod properties;

use std::path::PathBuf;

use dtoolkit::error::ModelError;
use dtoolkit::model::DeviceTreeNode;
use shim_config::{Backend, DeviceType as TypeRow};
use toml_span::de_helpers::TableHelper;
use toml_span::value::Value;
use toml_span::{DeserError, Deserialize, Span, Spanned};

use self::program::Program;
use self::properties::Properties;
use super::{Checks, Device, DeviceType, Part, Place, Table};
use crate::diagnostics::Diagnostic;
use crate::manifest::ExtraFile;
use crate::spanned::{Named, choice, custom};

/// The characters of a socket's path that fit into an address (Linux, `unix(7)`, without the NUL).
const LONGEST_SOCKET: usize = 107;

/// A device of any type.
#[derive(Debug)]
pub struct Virtio {
    /// The virtio device ID (virtio 1.3, 5).
    device_id: u32,
    properties: Properties,
    served: Served,
    files: Vec<ExtraFile>,
    hardware: Vec<Spanned<String>>,
}

/// What serves the device.
#[derive(Debug)]
enum Served {
    /// A program that the shim starts.
    Program(Program),
    /// A socket at which another program serves.
    Socket(Spanned<String>),
}

impl Table for Virtio {
    const KEY: &'static str = "virtio";

    fn read(table: &mut TableHelper<'_>, span: Span) -> Result<(Self, Spanned<String>), toml_span::Error> {
        let type_name: Option<Spanned<TypeName>> = table.optional("type");
        let device_id = table.optional("device-id");
        let properties = Properties::read(table);
        let socket = table.optional("socket");
        let program = Program::read(table);
        let files: Named<Spanned<String>> = table.optional("files").unwrap_or_default();
        let hardware = table.optional("hardware").unwrap_or_default();
        let (device_id, name) = device_type(type_name, device_id, span)?;
        let served = served(program, socket, span)?;
        let files = ExtraFile::list(files);
        Ok((Self { device_id, properties, served, files, hardware }, Spanned::with_span(name, span)))
    }
}

/// A type of the shim's table.
#[derive(Clone, Copy)]
struct TypeName(&'static TypeRow);

impl<'de> Deserialize<'de> for TypeName {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let types: Vec<_> = TypeRow::all().iter().map(|row| (row.name, Self(row))).collect();
        choice(value, &types)
    }
}

/// The device ID, and the default of the device's name.
fn device_type(
    name: Option<Spanned<TypeName>>,
    id: Option<Spanned<u32>>,
    table: Span,
) -> Result<(u32, String), toml_span::Error> {
    match (name, id) {
        (Some(name), None) => Ok((name.value.0.id, name.value.0.name.to_owned())),
        (None, Some(id)) => {
            let row = TypeRow::with_id(id.value);
            Ok((id.value, row.map_or_else(|| format!("virtio{}", id.value), |row| row.name.to_owned())))
        }
        (Some(_), Some(id)) => {
            Err(custom(id.span, "a device with `type` and `device-id`", "leave one of them out"))
        }
        (None, None) => {
            let help = "add `type = \"rng\"` or another name, or `device-id = …` for a type without a name";
            Err(custom(table, "a virtio device without a type", help))
        }
    }
}

fn served(
    program: Option<Result<Program, toml_span::Error>>,
    socket: Option<Spanned<String>>,
    table: Span,
) -> Result<Served, toml_span::Error> {
    match (program, socket) {
        (Some(program), None) => program.map(Served::Program),
        (None, Some(socket)) => Ok(Served::Socket(socket)),
        (Some(_), Some(socket)) => {
            let title = "a device with `socket` and a program";
            let help = "leave `socket` out if the shim is to start the program, or else `command`, `user`, \
                        `read`, `write`, `memory`, `open-files` and `system-calls`";
            Err(custom(socket.span, title, help))
        }
        (None, None) => {
            let help = "add `command = [\"/usr/bin/…\", \"--socket-path={socket}\"]` for a program that the \
                        shim starts, or `socket = \"/run/…\"` for one that is started otherwise";
            Err(custom(table, "a virtio device without a backend", help))
        }
    }
}

impl DeviceType for Virtio {
    fn check(&self, device: &Device, checks: &mut Checks<'_>) {
        self.properties.check(self.device_id, device.span, checks.found);
        match &self.served {
            Served::Program(program) => program.check(checks),
            Served::Socket(path) => check_socket(path, checks.found),
        }
        for name in &self.hardware {
            checks.owned(name, None);
        }
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let whole = self.hardware.iter().map(|hardware| Part {
            hardware: &hardware.value,
            part: None,
            shared: None,
            span: hardware.span,
        });
        whole.collect()
    }

    fn files(&self) -> &[ExtraFile] {
        &self.files
    }

    fn user(&self) -> Option<&Spanned<confinement::User>> {
        match &self.served {
            Served::Program(program) => program.user.as_ref(),
            Served::Socket(_) => None,
        }
    }

    fn socket(&self) -> Option<&Spanned<String>> {
        match &self.served {
            Served::Program(_) => None,
            Served::Socket(path) => Some(path),
        }
    }

    fn configuration(&self, place: &Place<'_>) -> Option<shim_config::Device> {
        let backend = match &self.served {
            Served::Program(program) => Backend::Program(program.configuration(place)),
            Served::Socket(path) => Backend::Socket(PathBuf::from(&path.value)),
        };
        Some(self.properties.apply(place.device(
            self.device_id,
            self.properties.queues(self.device_id),
            backend,
        )))
    }

    fn node(&self) -> Result<Option<DeviceTreeNode>, ModelError> {
        Ok(None)
    }

    fn summary(&self) -> String {
        TypeRow::with_id(self.device_id)
            .map_or_else(|| format!("virtio device {}", self.device_id), |row| format!("virtio {}", row.name))
    }

    fn reaches(&self) -> Vec<String> {
        let mut lines: Vec<_> =
            self.hardware.iter().map(|hardware| format!("all of {}", hardware.value)).collect();
        match &self.served {
            Served::Program(program) => lines.extend(program.reaches()),
            Served::Socket(path) => {
                lines.push(format!("what the program at {} serves", path.value));
            }
        }
        lines
    }
}

fn check_socket(path: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    let text = path.value.as_str();
    if !crate::validate::files::is_path(text) || text.len() > LONGEST_SOCKET {
        let title = format!("{text:?} cannot be the path of a socket");
        let help =
            format!("write an absolute path of at most {LONGEST_SOCKET} characters, as in \"/run/rng\"");
        found.push(Diagnostic::new(path.span, title, "not a plain absolute path").help(help));
    }
}
