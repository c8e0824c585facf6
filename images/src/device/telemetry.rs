// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Consoles on which a guest reads about the driver domain: `[[guest.telemetry]]` (virtio 1.3, 5.3).

use dtoolkit::error::ModelError;
use dtoolkit::model::DeviceTreeNode;
use toml_span::de_helpers::TableHelper;
use toml_span::value::Value;
use toml_span::{DeserError, Deserialize, Span, Spanned};

use super::own::Own;
use super::{Checks, Device, DeviceType, Part, Place, Table};
use crate::diagnostics::Diagnostic;
use crate::spanned::custom;
use crate::validate::files::is_path;

/// The virtio device ID (virtio 1.3, 5).
const DEVICE_ID: u32 = 3;

/// The number of virtqueues: those of one port (virtio 1.3, 5.3.2).
const QUEUES: u16 = 2;

/// The longest request that the backend accepts, in characters.
const LONGEST_REQUEST: usize = 64;

/// A console.
#[derive(Debug)]
pub struct Telemetry {
    source: Spanned<Source>,
    requests: Vec<Spanned<String>>,
    own: Own,
}

/// What the guest reads.
#[derive(Clone, Debug)]
enum Source {
    /// The log of the driver domain's kernel.
    Log,
    /// A file that grows.
    File(String),
    /// A socket that answers requests of the guest.
    Socket(String),
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let text = value.take_string(None)?;
        let source = match text.split_once(':') {
            None if text == "log" => Some(Self::Log),
            Some(("file", path)) if is_path(path) => Some(Self::File(path.to_owned())),
            Some(("unix", path)) if is_path(path) => Some(Self::Socket(path.to_owned())),
            _ => None,
        };
        source.ok_or_else(|| {
            let help = "write \"log\" (of the driver domain's kernel), \"file:/path\" (a file that grows) or \
                        \"unix:/path\" (a socket that answers requests)";
            custom(span, format!("{text:?} is nothing that a guest can read"), help).into()
        })
    }
}

impl Table for Telemetry {
    const KEY: &'static str = "telemetry";

    fn read(table: &mut TableHelper<'_>, span: Span) -> Result<(Self, Spanned<String>), toml_span::Error> {
        let source = table.required("source");
        let requests = table.optional("requests").unwrap_or_default();
        let own = Own::read(table);
        let name = Spanned::with_span(Self::KEY.to_owned(), span);
        Ok((Self { source: source?, requests, own }, name))
    }
}

impl DeviceType for Telemetry {
    fn check(&self, _: &Device, checks: &mut Checks<'_>) {
        self.own.check(checks);
        let is_socket = matches!(self.source.value, Source::Socket(_));
        for request in &self.requests {
            check_request(request, is_socket, checks.found);
        }
        if is_socket && self.requests.is_empty() {
            let title = "a socket without requests";
            let help = "list the words that the guest may send: `requests = [\"json\"]`";
            let diagnostic = Diagnostic::new(self.source.span, title, "the guest could ask nothing");
            checks.found.push(diagnostic.help(help));
        }
    }

    fn parts(&self) -> Vec<Part<'_>> {
        Vec::new()
    }

    fn configuration(&self, place: &Place<'_>) -> Option<shim_config::Device> {
        let source = match &self.source.value {
            Source::Log => "kmsg".to_owned(),
            Source::File(path) => format!("file:{path}"),
            Source::Socket(path) => format!("unix:{path}"),
        };
        let mut words = vec![format!("--source={source}")];
        words.extend(self.requests.iter().map(|word| format!("--request={}", word.value)));
        Some(place.device(DEVICE_ID, QUEUES, self.own.backend("console", words, place)))
    }

    fn node(&self) -> Result<Option<DeviceTreeNode>, ModelError> {
        Ok(None)
    }

    fn summary(&self) -> String {
        "console, telemetry".into()
    }

    fn reaches(&self) -> Vec<String> {
        let requests: Vec<_> = self.requests.iter().map(|word| word.value.as_str()).collect();
        vec![match &self.source.value {
            Source::Log => "the log of the driver domain's kernel, to read".into(),
            Source::File(path) => format!("{path} of the driver domain, to read"),
            Source::Socket(path) => format!("{path} of the driver domain, for {}", requests.join(", ")),
        }]
    }
}

fn check_request(request: &Spanned<String>, is_socket: bool, found: &mut Vec<Diagnostic>) {
    let text = request.value.as_str();
    let is_word = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_socket {
        let title = "a request to what answers none";
        let help = "leave `requests` out, or write a socket as source: \"unix:/path\"";
        found.push(Diagnostic::new(request.span, title, "only a socket answers requests").help(help));
    } else if text.is_empty() || text.len() > LONGEST_REQUEST || !is_word {
        let title = format!("{text:?} cannot be a request");
        let help = format!("write 1 to {LONGEST_REQUEST} printable characters of ASCII without a space");
        found.push(Diagnostic::new(request.span, title, "not a word").help(help));
    }
}
