// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines of Linux's GPIO character device, uAPI v2.
//!
//! Each line has a request of its own, from the moment the driver configures it until the driver releases it
//! or ends. So lines of any number of chips are requested and released one by one. While a line is
//! released, any other process may request it. If the parent process holds descriptors ([`holder`]), a line
//! stays requested when this daemon dies, and the next daemon finds it as it is.

mod config;
mod holder;
mod locate;

use std::fs::File;
use std::io;

use gpiocdev_uapi::v2::{
    LineConfig, LineEdgeEvent, LineFlags, LineValues, get_line_info, get_line_values, read_event,
    set_line_config, set_line_values,
};

use self::config::{Failure, config, debounce_us, edges};
use self::holder::{HeldLines, LineHolder};
use self::locate::{Chip, ChipLine};
use super::line_option::LineOption;
use super::lines::{EdgeReport, Lines, Setup};
use crate::sysfs::Sysfs;
use crate::watch::Watcher;

/// Number of events of one read.
const EVENTS_PER_READ: usize = 16;

/// Size of an edge event in 64-bit words.
const EVENT_WORDS: usize = size_of::<LineEdgeEvent>() / size_of::<u64>();

/// `GPIO_V2_LINE_EVENT_RISING_EDGE`.
const RISING_EDGE: u32 = 1;

/// A line that the operator chose.
struct Pin {
    line: ChipLine,
    request: Option<RequestedLine>,
}

impl Pin {
    /// Returns the set-up of the line as `request` has it. If the wiring has changed since the former daemon,
    /// reconfigures the line with the direction, the edges and the level that it has.
    fn present(&self, request: &File) -> io::Result<Setup> {
        let info = get_line_info(&self.line.chip.file, self.line.offset).map_err(Failure)?;
        let setup = if info.flags.contains(LineFlags::OUTPUT) {
            Setup::Output(read_value(request)?)
        } else {
            Setup::Input(edges(info.flags))
        };
        let wanted = config(setup, self.line.wiring);
        let is_debounced =
            matches!(setup, Setup::Output(_)) || debounce_us(&info) == self.line.wiring.debounce_us;
        if wanted.flags != info.flags.difference(LineFlags::USED) || !is_debounced {
            set_line_config(request, wanted).map_err(Failure)?;
        }
        Ok(setup)
    }
}

/// A line that is requested from the kernel.
struct RequestedLine {
    file: File,
    setup: Setup,
    watched: bool,
}

/// Lines of any chips, in the guest's order.
pub struct LinuxLines {
    pins: Vec<Pin>,
    watcher: Option<Watcher>,
    holder: Option<LineHolder>,
}

impl LinuxLines {
    /// Finds the lines that the operator chose. Requests none, but continues with those that a former daemon
    /// left.
    ///
    /// # Errors
    /// When a chip or line does not exist; the error lists those that do.
    pub fn open(lines: &[LineOption], sysfs: &Sysfs) -> anyhow::Result<Self> {
        let lines = locate::lines(lines, |wanted| locate::find(wanted, sysfs, Chip::open_by_name))?;
        let pins = lines.into_iter().map(|line| Pin { line, request: None }).collect();
        let mut lines = Self { pins, watcher: None, holder: None };
        if let Some((holder, held)) = LineHolder::inherited() {
            lines.holder = Some(holder);
            lines.take_requests(held);
        }
        Ok(lines)
    }

    /// Takes the requests that a former daemon left, each with its present set-up. Requests of lines that are
    /// no longer the guest's are released when this daemon holds its own.
    fn take_requests(&mut self, held: HeldLines) {
        for (name, file) in held {
            let Some(pin) = self.pins.iter_mut().find(|pin| pin.line.name() == name) else { continue };
            match pin.present(&file) {
                Ok(setup) => pin.request = Some(RequestedLine { file, setup, watched: false }),
                Err(error) => log::warn!("{name}: the request of a former daemon is not usable: {error}"),
            }
        }
    }

    /// Has the parent process hold all requests.
    fn hold(&self) {
        let Some(holder) = &self.holder else { return };
        let requests =
            self.pins.iter().filter_map(|pin| Some((pin.line.name(), &pin.request.as_ref()?.file)));
        if let Err(error) = holder.hold(requests) {
            log::warn!("lines cannot be held, they are released if this daemon dies: {error}");
        }
    }

    fn pin(&mut self, line: u16) -> io::Result<&mut Pin> {
        self.pins.get_mut(usize::from(line)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn read_value(file: &File) -> io::Result<bool> {
    let mut values = LineValues { bits: 0, mask: 1 };
    get_line_values(file, &mut values).map_err(Failure)?;
    values.get(0).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Lines for LinuxLines {
    fn stay_requested(&self) -> bool {
        self.holder.is_some()
    }

    fn set_up(&mut self, line: u16, setup: Setup) -> io::Result<()> {
        let watcher = self.watcher.clone();
        let pin = self.pin(line)?;
        let was_requested = pin.request.is_some();
        let config = config(setup, pin.line.wiring);
        match (&mut pin.request, setup) {
            (Some(RequestedLine { setup: Setup::Output(_), .. }), Setup::Kept) => {}
            (None, Setup::Released | Setup::Kept) => {}
            (Some(request), Setup::Released | Setup::Kept) => {
                request.unwatch(watcher.as_ref());
                pin.request = None;
            }
            (Some(request), Setup::Output(value)) if matches!(request.setup, Setup::Output(_)) => {
                set_line_values(&request.file, &LineValues::from_slice(&[value])).map_err(Failure)?;
                request.setup = setup;
            }
            (Some(request), _) => {
                if request.setup != setup {
                    set_line_config(&request.file, config).map_err(Failure)?;
                    request.setup = setup;
                }
            }
            (None, _) => {
                let file = pin.line.chip.request(pin.line.offset, config)?;
                if let Some(watcher) = &watcher {
                    watcher.add(&file, u32::from(line))?;
                }
                pin.request = Some(RequestedLine { file, setup, watched: watcher.is_some() });
            }
        }
        if pin.request.is_some() != was_requested {
            self.hold();
        }
        Ok(())
    }

    fn value(&mut self, line: u16) -> io::Result<bool> {
        let pin = self.pin(line)?;
        match &pin.request {
            Some(request) => read_value(&request.file),
            // A request without flags does not change the line.
            None => read_value(&pin.line.chip.request(pin.line.offset, LineConfig::default())?),
        }
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.watcher = Some(watcher.clone());
        for (pin, line) in self.pins.iter_mut().zip(0..) {
            if let Some(request) = &mut pin.request {
                watcher.add(&request.file, line)?;
                request.watched = true;
            }
        }
        Ok(())
    }

    fn handle_event(&mut self, _token: u32) {}

    fn take_edges(&mut self, line: u16) -> io::Result<EdgeReport> {
        let watcher = self.watcher.clone();
        let Some(request) = &mut self.pin(line)?.request else { return Ok(EdgeReport::default()) };
        let taken = request.take_edges();
        if taken.is_err() {
            // The descriptor of an unplugged chip stays readable.
            request.unwatch(watcher.as_ref());
        }
        taken
    }
}

impl RequestedLine {
    fn take_edges(&self) -> io::Result<EdgeReport> {
        let mut report = EdgeReport::default();
        let mut words = [0_u64; EVENT_WORDS * EVENTS_PER_READ];
        loop {
            match read_event(&self.file, &mut words) {
                Ok(count) => {
                    let events = words.chunks_exact(EVENT_WORDS).take(count / EVENT_WORDS);
                    for event in events.filter_map(|words| LineEdgeEvent::from_slice(words).ok()) {
                        report.edges = report.edges.saturating_add(1);
                        report.level = Some(event.kind == RISING_EDGE);
                    }
                    if count < words.len() {
                        return Ok(report);
                    }
                }
                Err(error) => {
                    let error = io::Error::from(Failure(error));
                    return if error.kind() == io::ErrorKind::WouldBlock { Ok(report) } else { Err(error) };
                }
            }
        }
    }

    fn unwatch(&mut self, watcher: Option<&Watcher>) {
        if let (true, Some(watcher)) = (self.watched, watcher) {
            let _ = watcher.remove(&self.file);
        }
        self.watched = false;
    }
}
