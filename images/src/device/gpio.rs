// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! GPIO controllers: `[[guest.gpio]]` (virtio 1.3, 5.18).

mod line;

use dtoolkit::error::ModelError;
use dtoolkit::model::DeviceTreeNode;
use shim_config::DeviceType as TypeRow;
use toml_span::de_helpers::TableHelper;
use toml_span::{Span, Spanned};

pub use self::line::{Bias, Drive, Line, Safe};
use super::own::Own;
use super::{Checks, Device, DeviceType, Part, Place, Table};
use crate::board::Kind;
use crate::diagnostics::{Diagnostic, counted};
use crate::emit::fdt::{Build, FLAG};
use crate::validate::names::LONGEST;
use crate::validate::once::Once;

/// The virtio device ID (virtio 1.3, 5).
const DEVICE_ID: u32 = 41;

/// The number of virtqueues: requests and events (virtio 1.3, 5.18.2).
const QUEUES: u16 = 2;

/// The microseconds of debouncing that a backend accepts.
const DEBOUNCE: std::ops::RangeInclusive<i64> = 1..=1_000_000;

/// A GPIO controller.
#[derive(Debug)]
pub struct Gpio {
    /// The lines, in the guest's order.
    pub lines: Vec<Line>,
    own: Own,
}

impl Table for Gpio {
    const KEY: &'static str = "gpio";

    fn read(table: &mut TableHelper<'_>, span: Span) -> Result<(Self, Spanned<String>), toml_span::Error> {
        let lines = table.required("lines");
        let own = Own::read(table);
        Ok((Self { lines: lines?, own }, Spanned::with_span("gpio".to_owned(), span)))
    }
}

impl DeviceType for Gpio {
    fn check(&self, device: &Device, checks: &mut Checks<'_>) {
        self.own.check(checks);
        self.number_of_lines(device.span, checks.found);
        let mut names = Once::default();
        for line in &self.lines {
            check_line(line, checks);
            if let Some(name) = &line.name {
                check_name(name, checks.found);
                names.see("line of this controller", name, checks.found);
            }
        }
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let lines = self.lines.iter().map(|line| Part {
            hardware: &line.chip.value,
            part: Some(format!("line {}", line.line.value)),
            shared: None,
            span: line.line.span,
        });
        lines.collect()
    }

    fn configuration(&self, place: &Place<'_>) -> Option<shim_config::Device> {
        let mut words = Vec::new();
        for line in &self.lines {
            words.extend(["--line".to_owned(), argument(&place.path(&line.chip.value)?, line)]);
        }
        Some(place.device(DEVICE_ID, QUEUES, self.own.backend("gpio", words, place)))
    }

    fn node(&self) -> Result<Option<DeviceTreeNode>, ModelError> {
        DeviceTreeNode::new("gpio")?
            .set("compatible", format!("virtio,device{DEVICE_ID:x}"))?
            .set("gpio-controller", FLAG)?
            .set("#gpio-cells", 2u32)?
            .set("interrupt-controller", FLAG)?
            .set("#interrupt-cells", 2u32)
            .map(Some)
    }

    fn summary(&self) -> String {
        format!("GPIO, {}", counted(self.lines.len(), "line"))
    }

    fn reaches(&self) -> Vec<String> {
        let line = |(place, line): (usize, &Line)| {
            let name = line.name.as_ref().map_or("", |name| name.value.as_str());
            format!("GPIO   {place:<4}  {name:<14} line {} of {}", line.line.value, line.chip.value)
        };
        self.lines.iter().enumerate().map(line).collect()
    }
}

impl Gpio {
    /// A driver that waits for interrupts of all lines has a buffer of two descriptors for each in the event
    /// queue (virtio 1.3, 5.18.7), and Linux asks for no more lines than fit.
    fn number_of_lines(&self, device: Span, found: &mut Vec<Diagnostic>) {
        let lines = self.lines.len();
        let most = TypeRow::with_id(DEVICE_ID).map_or(0, |row| usize::from(row.queue_size / 2));
        if lines == 0 {
            let help = "list its lines: `lines = [{ chip = \"…\", line = 0, name = \"…\" }]`";
            let (title, label) = ("a GPIO controller without lines", "the guest can do nothing by it");
            found.push(Diagnostic::new(device, title, label).help(help));
        } else if lines > most {
            let title = format!("a GPIO controller with {lines} lines");
            let label = format!("its event queue has room for {most} lines");
            found.push(Diagnostic::new(device, title, label).help("divide it into two controllers"));
        }
    }
}

fn check_line(line: &Line, checks: &mut Checks<'_>) {
    let Some(hardware) = checks.owned(&line.chip, Some(Kind::Gpio)) else { return };
    let count = hardware.lines.as_ref().map_or(0, |lines| lines.value);
    if !(0..i64::from(count)).contains(&line.line.value) {
        let title = format!("`{}` has no line {}", line.chip.value, line.line.value);
        let help = format!("write a line from 0 to {}", count.saturating_sub(1));
        checks.found.push(Diagnostic::new(line.line.span, title, "out of range").help(help));
    }
    if let Some(Spanned { value, span }) = line.debounce
        && !DEBOUNCE.contains(&value)
    {
        let title = format!("a line cannot be debounced for {value} microseconds");
        let help =
            format!("write from {} to {}, or leave `debounce-us` out", DEBOUNCE.start(), DEBOUNCE.end());
        checks.found.push(Diagnostic::new(span, title, "out of range").help(help));
    }
    if let Some(Spanned { value: true, span }) = line.shared {
        let title = "a GPIO line cannot be shared";
        checks.found.push(
            Diagnostic::new(span, title, "no backend serves a line to two guests")
                .help("give the line to one guest"),
        );
    }
}

/// Virtio 1.3, 5.18.6.1: a name is 7-bit ASCII, and a NUL ends it.
fn check_name(name: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    let text = name.value.as_str();
    let is_ascii = text.bytes().all(|byte| (1..=0x7f).contains(&byte));
    if text.is_empty() || text.len() > LONGEST || !is_ascii {
        let title = format!("{text:?} cannot name a line");
        let help = format!(
            "use 1 to {LONGEST} characters of 7-bit ASCII, or leave `name` out for a line without a name"
        );
        found.push(Diagnostic::new(name.span, title, "not a name that a GPIO device can have").help(help));
    }
}

/// A line on the backend's command line: `CHIP:OFFSET[=NAME][,OPTION]...`.
fn argument(chip: &str, line: &Line) -> String {
    let mut word = format!("{}:{}", escape(chip), line.line.value);
    if let Some(name) = &line.name {
        word.push('=');
        word.push_str(&escape(&name.value));
    }
    let options = [
        ("safe", line.safe.map(|safe| safe.to_string())),
        ("bias", line.bias.map(|bias| bias.to_string())),
        ("drive", line.drive.map(|drive| drive.to_string())),
        ("debounce-us", line.debounce.as_ref().map(|period| period.value.to_string())),
    ];
    for (option, value) in options {
        word.extend(value.map(|value| format!(",{option}={value}")));
    }
    word
}

/// A chip or a name on the backend's command line, with a backslash before characters that would end it.
fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=")
}
