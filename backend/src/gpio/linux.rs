// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines of Linux's GPIO character device, uAPI v2.
//!
//! Each line is a request of its own: held from the moment the guest configures it until it lets it go or
//! is gone, so that lines come and go one by one, from as many chips as there are. While a line is not held the
//! kernel has it, and any other process may take it. Where the parent keeps descriptors (`kept`), a line stays held when
//! this daemon dies, and the next finds it as it is.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use gpiocdev_uapi::v2::{
    Error, LineAttributeValue, LineConfig, LineEdgeEvent, LineFlags, LineInfo, LineRequest, LineValues,
    NAME_LEN_MAX, Name, get_chip_info, get_line, get_line_info, get_line_values, read_event, set_line_config,
    set_line_values,
};

use super::arguments::LineArgument;
use super::chip::{Edges, Lines, Seen, Setup};
use super::kept::{Keeper, Kept};
use super::wiring::Wiring;
use crate::sysfs::{Device, Sysfs};
use crate::watch::Watcher;

/// Who holds the lines, for `gpioinfo` and for the error message of the second daemon.
const CONSUMER: &str = "backend-gpio";

/// Events taken by one read.
const EVENTS_PER_READ: usize = 16;

/// 64-bit words of an edge event, as the kernel writes it.
const EVENT_WORDS: usize = size_of::<LineEdgeEvent>() / size_of::<u64>();

/// The mask of a request of one line: its only one.
const ONE_LINE: u64 = 1;

/// `GPIO_V2_LINE_EVENT_RISING_EDGE`.
const RISING_EDGE: u32 = 1;

/// Where an operator's line is.
struct Pin {
    chip: Arc<Chip>,
    offset: u32,
    wiring: Wiring,
    held: Option<Held>,
}

impl Pin {
    /// Names the line for a daemon that takes over.
    fn name(&self) -> String {
        format!("{}:{}", self.chip.device, self.offset)
    }

    /// How the line is set up that is held by `request`. If its circuit is described otherwise than for the former
    /// daemon, it is reconfigured, with the direction, the edges and the level that it has.
    fn present(&self, request: &File) -> io::Result<Setup> {
        let info = get_line_info(&self.chip.file, self.offset).map_err(Failure)?;
        let setup = if info.flags.contains(LineFlags::OUTPUT) {
            Setup::Output(read_value(request)?)
        } else {
            Setup::Input(edges(info.flags))
        };
        let wanted = config(setup, self.wiring);
        let is_debounced = matches!(setup, Setup::Output(_)) || debounce_us(&info) == self.wiring.debounce_us;
        if wanted.flags != info.flags.difference(LineFlags::USED) || !is_debounced {
            set_line_config(request, wanted).map_err(Failure)?;
        }
        Ok(setup)
    }
}

/// An open chip, and what it says of itself.
struct Chip {
    device: String,
    file: File,
    label: String,
    lines: u32,
}

/// A line request.
struct Held {
    file: File,
    setup: Setup,
    watched: bool,
}

/// Lines of any chips, in the guest's order.
pub struct LinuxLines {
    pins: Vec<Pin>,
    watcher: Option<Watcher>,
    keeper: Option<Keeper>,
}

impl LinuxLines {
    /// Finds the lines that the operator chose. None is taken yet, except those that a former daemon held.
    ///
    /// # Errors
    /// Says which chip or line does not exist, and what there is instead.
    pub fn open(lines: &[LineArgument], sysfs: &Sysfs) -> anyhow::Result<Self> {
        let open = |name: &str| Chip::open(&Path::new("/dev").join(name));
        let pins = pins(lines, |wanted| find(wanted, sysfs, open))?;
        let mut lines = Self { pins, watcher: None, keeper: None };
        if let Some((keeper, kept)) = Keeper::inherited() {
            lines.keeper = Some(keeper);
            lines.take_up(kept);
        }
        Ok(lines)
    }

    /// Takes up the requests that a former daemon left, each as the kernel has it. Those of lines that are not the guest's any
    /// more are let go when this daemon keeps its own.
    fn take_up(&mut self, kept: Kept) {
        for (name, file) in kept {
            let Some(pin) = self.pins.iter_mut().find(|pin| pin.name() == name) else { continue };
            match pin.present(&file) {
                Ok(setup) => pin.held = Some(Held { file, setup, watched: false }),
                Err(error) => log::warn!("{name}: a former daemon's request is not usable: {error}"),
            }
        }
    }

    /// Leaves all requests with the parent, as they are now.
    fn keep(&self) {
        let Some(keeper) = &self.keeper else { return };
        let held = self.pins.iter().filter_map(|pin| Some((pin.name(), &pin.held.as_ref()?.file)));
        if let Err(error) = keeper.keep(held) {
            log::warn!("lines cannot be kept, and are let go if this daemon dies: {error}");
        }
    }

    fn pin(&mut self, line: u16) -> io::Result<&mut Pin> {
        self.pins.get_mut(usize::from(line)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The lines that the operator chose, on the chips that `find` finds.
fn pins(lines: &[LineArgument], find: impl Fn(&str) -> anyhow::Result<Chip>) -> anyhow::Result<Vec<Pin>> {
    let mut chips: Vec<(&str, Arc<Chip>)> = Vec::new();
    let mut pins: Vec<Pin> = Vec::with_capacity(lines.len());
    for line in lines {
        let known = chips.iter().find(|(name, _)| *name == line.chip);
        let chip = match known {
            Some((_, chip)) => Arc::clone(chip),
            None => {
                let chip = Arc::new(find(&line.chip)?);
                chips.push((&line.chip, Arc::clone(&chip)));
                chip
            }
        };
        if line.offset >= chip.lines {
            bail!("{line}: {} has lines 0 to {}", chip.device, chip.lines.saturating_sub(1));
        }
        if pins.iter().any(|pin| pin.chip.device == chip.device && pin.offset == line.offset) {
            bail!("{line}: line {} of {} is given twice", line.offset, chip.device);
        }
        let number = pins.len();
        log::info!(
            "the guest's line {number} ({:?}) is line {} of {}",
            line.name.as_deref().unwrap_or_default(),
            line.offset,
            chip.device
        );
        pins.push(Pin { chip, offset: line.offset, wiring: line.wiring, held: None });
    }
    Ok(pins)
}

/// The chip that `wanted` names, among those that `open` opens by their names in sysfs.
fn find(wanted: &str, sysfs: &Sysfs, open: impl Fn(&str) -> anyhow::Result<Chip>) -> anyhow::Result<Chip> {
    let devices = sysfs.devices("gpio").context("this kernel shows no GPIO chips (CONFIG_GPIO_CDEV)")?;
    let distance = |device: &Device| match wanted.starts_with('/') {
        true => sysfs.distance(device, wanted),
        false => (device.name == wanted).then_some(0),
    };
    let mut named: Vec<_> =
        devices.iter().filter_map(|device| Some((distance(device)?, &device.name))).collect();
    named.sort();
    match named.as_slice() {
        [(_, name)] => return open(name),
        // A chip may be part of a device that has one, too: the nearer one is meant.
        [(nearest, name), (next, _), ..] if nearest < next => return open(name),
        [] => {}
        [..] => {
            let names: Vec<_> = named.iter().map(|(_, name)| name.as_str()).collect();
            bail!("more than one GPIO chip is {wanted}: name one of {}", names.join(", "));
        }
    }
    let (mut labelled, mut others) = (Vec::new(), Vec::new());
    for Device { name, .. } in &devices {
        match open(name) {
            Ok(chip) if chip.label == wanted => labelled.push((name, chip)),
            Ok(chip) => others.push(format!("{name} (label {:?})", chip.label)),
            // It may be the one that is meant.
            Err(error) => others.push(format!("{name} ({error:#})")),
        }
    }
    let names: Vec<_> = labelled.iter().map(|(name, _)| name.as_str()).collect();
    if names.len() > 1 {
        bail!("more than one GPIO chip has the label {wanted}: name one of {}", names.join(", "));
    }
    if let Some((_, chip)) = labelled.pop() {
        return Ok(chip);
    }
    let others = if others.is_empty() { "no chip".to_owned() } else { others.join(", ") };
    bail!("no GPIO chip is called {wanted}, there is {others}")
}

impl Chip {
    fn open(node: &Path) -> anyhow::Result<Self> {
        let device = node.display().to_string();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(node)
            .with_context(|| format!("cannot open {device}: is the node yours?"))?;
        let info = get_chip_info(&file).with_context(|| format!("{device} is not a GPIO chip"))?;
        let label = info.label.as_os_str().to_string_lossy().into_owned();
        Ok(Self { device, file, label, lines: info.num_lines })
    }

    /// Requests a line; a line that is taken is an error that says by whom.
    fn request(&self, offset: u32, config: LineConfig) -> io::Result<File> {
        let mut request = LineRequest {
            consumer: Name::from_bytes(CONSUMER.as_bytes()),
            config,
            num_lines: 1,
            ..LineRequest::default()
        };
        request.offsets.set(0, offset);
        let file = get_line(&self.file, request).map_err(|error| {
            let holder = get_line_info(&self.file, offset).map(|info| info.consumer);
            let holder = holder.map(|consumer| consumer.as_os_str().to_string_lossy().into_owned());
            self.refused(offset, Failure(error).into(), holder.ok())
        })?;
        rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::NONBLOCK)?;
        Ok(file)
    }

    /// Why a line cannot be had; if somebody has it, by whom.
    fn refused(&self, offset: u32, error: io::Error, holder: Option<String>) -> io::Error {
        match holder {
            Some(holder) if error.raw_os_error() == Some(BUSY) => {
                let message = format!(
                    "line {offset} of {} is in use by {holder:?}: a guest gets it when that lets it go",
                    self.device
                );
                io::Error::new(error.kind(), message)
            }
            _ => error,
        }
    }
}

const BUSY: i32 = rustix::io::Errno::BUSY.raw_os_error();

/// An error of the uAPI crate, on its way to an [`io::Error`].
struct Failure(Error);

impl From<Failure> for io::Error {
    fn from(Failure(error): Failure) -> Self {
        match error {
            Error::Os(errno) => Self::from_raw_os_error(errno.0),
            Error::UnderRead(error) => Self::new(io::ErrorKind::UnexpectedEof, error),
        }
    }
}

/// The edges that a line records, by the flags of its request.
fn edges(flags: LineFlags) -> Edges {
    match (flags.contains(LineFlags::EDGE_RISING), flags.contains(LineFlags::EDGE_FALLING)) {
        (false, false) => Edges::None,
        (true, false) => Edges::Rising,
        (false, true) => Edges::Falling,
        (true, true) => Edges::Both,
    }
}

/// The configuration of a request of one line: without any flag, the line is left as it is.
fn config(setup: Setup, wiring: Wiring) -> LineConfig {
    let direction = match setup {
        Setup::Released | Setup::Left => LineFlags::empty(),
        Setup::Output(_) => LineFlags::OUTPUT,
        Setup::Input(Edges::None) => LineFlags::INPUT,
        Setup::Input(Edges::Rising) => LineFlags::INPUT | LineFlags::EDGE_RISING,
        Setup::Input(Edges::Falling) => LineFlags::INPUT | LineFlags::EDGE_FALLING,
        Setup::Input(Edges::Both) => LineFlags::INPUT | LineFlags::EDGE_RISING | LineFlags::EDGE_FALLING,
    };
    let mut config = LineConfig { flags: direction | wiring.flags(direction), ..LineConfig::default() };
    match setup {
        // The value comes with the direction: an output never starts with another.
        Setup::Output(value) => config.add_values(&LineValues::from_slice(&[value])),
        Setup::Input(_) => {
            if let Some(period) = wiring.debounce_us {
                config.add_debounce(period.get(), ONE_LINE);
            }
        }
        Setup::Released | Setup::Left => {}
    }
    config
}

/// The debounce period that a line has, in microseconds.
fn debounce_us(info: &LineInfo) -> Option<NonZero<u32>> {
    let attributes = info.attrs.0.iter().take(usize::try_from(info.num_attrs).unwrap_or(0));
    attributes
        .filter_map(|attribute| match attribute.to_value() {
            Some(LineAttributeValue::DebouncePeriod(period)) => NonZero::new(period),
            _ => None,
        })
        .next()
}

fn read_value(file: &File) -> io::Result<bool> {
    let mut values = LineValues { bits: 0, mask: 1 };
    get_line_values(file, &mut values).map_err(Failure)?;
    values.get(0).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Lines for LinuxLines {
    fn is_kept(&self) -> bool {
        self.keeper.is_some()
    }

    fn set_up(&mut self, line: u16, setup: Setup) -> io::Result<()> {
        let watcher = self.watcher.clone();
        let pin = self.pin(line)?;
        let was_held = pin.held.is_some();
        let config = config(setup, pin.wiring);
        match (&mut pin.held, setup) {
            (Some(Held { setup: Setup::Output(_), .. }), Setup::Left) => {}
            (None, Setup::Released | Setup::Left) => {}
            (Some(held), Setup::Released | Setup::Left) => {
                held.unwatch(watcher.as_ref());
                pin.held = None;
            }
            (Some(held), Setup::Output(value)) if matches!(held.setup, Setup::Output(_)) => {
                set_line_values(&held.file, &LineValues::from_slice(&[value])).map_err(Failure)?;
                held.setup = setup;
            }
            (Some(held), _) => {
                if held.setup != setup {
                    set_line_config(&held.file, config).map_err(Failure)?;
                    held.setup = setup;
                }
            }
            (None, _) => {
                let file = pin.chip.request(pin.offset, config)?;
                if let Some(watcher) = &watcher {
                    watcher.add(&file, u32::from(line))?;
                }
                pin.held = Some(Held { file, setup, watched: watcher.is_some() });
            }
        }
        if pin.held.is_some() != was_held {
            self.keep();
        }
        Ok(())
    }

    fn value(&mut self, line: u16) -> io::Result<bool> {
        let pin = self.pin(line)?;
        match &pin.held {
            Some(held) => read_value(&held.file),
            // As it is: no flag, so that looking does not change the line.
            None => read_value(&pin.chip.request(pin.offset, LineConfig::default())?),
        }
    }

    fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.watcher = Some(watcher.clone());
        for (pin, line) in self.pins.iter_mut().zip(0..) {
            if let Some(held) = &mut pin.held {
                watcher.add(&held.file, line)?;
                held.watched = true;
            }
        }
        Ok(())
    }

    fn event(&mut self, _token: u32) {}

    fn take_edges(&mut self, line: u16) -> io::Result<Seen> {
        let watcher = self.watcher.clone();
        let Some(held) = &mut self.pin(line)?.held else { return Ok(Seen::default()) };
        let taken = held.take_edges();
        if taken.is_err() {
            // A chip that was unplugged stays readable for ever.
            held.unwatch(watcher.as_ref());
        }
        taken
    }
}

impl Held {
    fn take_edges(&self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let mut words = [0_u64; EVENT_WORDS * EVENTS_PER_READ];
        loop {
            match read_event(&self.file, &mut words) {
                Ok(count) => {
                    let events = words.chunks_exact(EVENT_WORDS).take(count / EVENT_WORDS);
                    for event in events.filter_map(|words| LineEdgeEvent::from_slice(words).ok()) {
                        seen.edges = seen.edges.saturating_add(1);
                        seen.level = Some(event.kind == RISING_EDGE);
                    }
                    if count < words.len() {
                        return Ok(seen);
                    }
                }
                Err(error) => {
                    let error = io::Error::from(Failure(error));
                    return if error.kind() == io::ErrorKind::WouldBlock { Ok(seen) } else { Err(error) };
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

const _: () = assert!(CONSUMER.len() < NAME_LEN_MAX);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::gpio::wiring::{Bias, Drive};

    /// A sysfs with these chips, of which the first is at a node of the device tree.
    fn sysfs(names: &[&str]) -> (tempfile::TempDir, Sysfs) {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().join("sys");
        let (node, bus) = (sys.join("firmware/devicetree/base/gpio@1000"), sys.join("bus/gpio/devices"));
        fs::create_dir_all(&node).unwrap();
        fs::create_dir_all(&bus).unwrap();
        for (index, name) in names.iter().enumerate() {
            let device = sys.join("devices").join(name);
            fs::create_dir_all(&device).unwrap();
            symlink(&device, bus.join(name)).unwrap();
            if index == 0 {
                symlink(&node, device.join("of_node")).unwrap();
            }
        }
        let sysfs = Sysfs::below(root.path());
        (root, sysfs)
    }

    /// Instead of the kernel: chips of eight lines, except one whose node is somebody else's.
    fn chip(name: &str) -> anyhow::Result<Chip> {
        let device = format!("/dev/{name}");
        let label = match name {
            "gpiochip0" => "soc",
            "gpiochip1" => "expander",
            _ => bail!("cannot open {device}: is the node yours?"),
        };
        Ok(Chip { device, file: File::open("/dev/null")?, label: label.to_owned(), lines: 8 })
    }

    #[test]
    fn a_chip_is_found_by_name_label_or_node() {
        let (_root, sysfs) = sysfs(&["gpiochip0", "gpiochip1", "gpiochip2"]);
        let find = |wanted| find(wanted, &sysfs, chip).unwrap().device;
        assert_eq!(find("gpiochip1"), "/dev/gpiochip1");
        assert_eq!(find("expander"), "/dev/gpiochip1");
        assert_eq!(find("/gpio@1000"), "/dev/gpiochip0");
    }

    #[test]
    fn a_chip_that_may_be_one_or_another_is_not_guessed() {
        let (root, sysfs) = sysfs(&["gpiochip0", "gpiochip1", "gpiochip3"]);
        let twin = |name: &str| chip(if name == "gpiochip3" { "gpiochip1" } else { name });
        let complaint = |wanted| find(wanted, &sysfs, twin).err().unwrap().to_string();
        let expected = "more than one GPIO chip has the label expander: name one of gpiochip1, gpiochip3";
        assert_eq!(complaint("expander"), expected);
        // Two are parts of one device.
        let node = root.path().join("sys/firmware/devicetree/base/soc");
        fs::create_dir_all(&node).unwrap();
        symlink(&node, root.path().join("sys/devices/of_node")).unwrap();
        let expected = "more than one GPIO chip is /soc: name one of gpiochip0, gpiochip1, gpiochip3";
        assert_eq!(complaint("/soc"), expected);
        assert_eq!(find("/gpio@1000", &sysfs, twin).unwrap().device, "/dev/gpiochip0");
    }

    #[test]
    fn a_chip_that_is_not_there_is_answered_with_those_that_are() {
        let complaint = |sysfs: &Sysfs, wanted| find(wanted, sysfs, chip).err().unwrap().to_string();
        let (root, some) = sysfs(&["gpiochip0", "gpiochip1"]);
        for wanted in ["gpiochip7", "/gpio@2000", "Soc"] {
            let there = r#"gpiochip0 (label "soc"), gpiochip1 (label "expander")"#;
            let expected = format!("no GPIO chip is called {wanted}, there is {there}");
            assert_eq!(complaint(&some, wanted), expected);
        }
        let (_root, none) = sysfs(&[]);
        assert_eq!(complaint(&none, "soc"), "no GPIO chip is called soc, there is no chip");
        fs::remove_dir_all(root.path().join("sys/bus")).unwrap();
        assert_eq!(complaint(&some, "soc"), "this kernel shows no GPIO chips (CONFIG_GPIO_CDEV)");
    }

    /// It may be the one that has the label.
    #[test]
    fn a_chip_that_cannot_be_opened_is_named_with_the_reason() {
        let (_root, sysfs) = sysfs(&["gpiochip0", "gpiochip2"]);
        let by_name = find("gpiochip2", &sysfs, chip).err().unwrap().to_string();
        assert_eq!(by_name, "cannot open /dev/gpiochip2: is the node yours?");
        let by_label = find("panel", &sysfs, chip).err().unwrap().to_string();
        let there = format!(r#"gpiochip0 (label "soc"), gpiochip2 ({by_name})"#);
        assert_eq!(by_label, format!("no GPIO chip is called panel, there is {there}"));
    }

    #[test]
    fn a_node_that_is_no_chip_is_named() {
        let root = tempfile::tempdir().unwrap();
        let complaint = |name: &str| format!("{:#}", Chip::open(&root.path().join(name)).err().unwrap());
        let at = |name: &str| root.path().join(name).display().to_string();
        fs::write(root.path().join("file"), "").unwrap();
        fs::create_dir(root.path().join("directory")).unwrap();
        // Not to be opened by anybody, whatever this test may.
        for name in ["nothing", "directory"] {
            let expected = format!("cannot open {}: is the node yours?: ", at(name));
            assert!(complaint(name).starts_with(&expected), "{}", complaint(name));
        }
        let expected = format!("{} is not a GPIO chip: ", at("file"));
        assert!(complaint("file").starts_with(&expected), "{}", complaint("file"));
    }

    #[test]
    fn lines_that_cannot_be_given_are_named_with_their_chip() {
        let (_root, sysfs) = sysfs(&["gpiochip0", "gpiochip1"]);
        let pins = |lines: &[&str]| {
            let lines: Vec<LineArgument> = lines.iter().map(|line| line.parse().unwrap()).collect();
            pins(&lines, |wanted| find(wanted, &sysfs, chip))
        };
        let names = |pins: Vec<Pin>| pins.iter().map(Pin::name).collect::<Vec<_>>();
        let good = pins(&["soc:7=led", "gpiochip1:7", "gpiochip0:0"]).map(names).unwrap();
        assert_eq!(good, ["/dev/gpiochip0:7", "/dev/gpiochip1:7", "/dev/gpiochip0:0"]);
        let complaint = |lines: &[&str]| pins(lines).err().unwrap().to_string();
        assert_eq!(complaint(&["soc:0", "soc:8"]), "--line soc:8: /dev/gpiochip0 has lines 0 to 7");
        assert_eq!(complaint(&["soc:4294967295"]), "--line soc:4294967295: /dev/gpiochip0 has lines 0 to 7");
        // By the same name, and by another.
        for again in ["soc:3=b", "gpiochip0:3", "/gpio@1000:3"] {
            let place = again.trim_end_matches("=b");
            let expected = format!("--line {place}: line 3 of /dev/gpiochip0 is given twice");
            assert_eq!(complaint(&["soc:3=a", "gpiochip1:3", again]), expected);
        }
    }

    #[test]
    fn who_has_a_line_is_named() {
        let chip = chip("gpiochip0").unwrap();
        let refused = |error: i32, holder: Option<&str>| {
            chip.refused(
                3,
                Failure(Error::Os(gpiocdev_uapi::v2::Errno(error))).into(),
                holder.map(str::to_owned),
            )
        };
        let busy = refused(BUSY, Some("reset button"));
        assert_eq!(
            busy.to_string(),
            r#"line 3 of /dev/gpiochip0 is in use by "reset button": a guest gets it when that lets it go"#
        );
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        // Nobody is blamed for another error, nor without a name.
        for (error, holder) in [(rustix::io::Errno::INVAL.raw_os_error(), Some("x")), (BUSY, None)] {
            assert_eq!(refused(error, holder).raw_os_error(), Some(error));
        }
    }

    #[test]
    fn each_setup_is_one_configuration_of_the_uapi() {
        let cases = [
            (Setup::Released, LineFlags::empty()),
            (Setup::Input(Edges::None), LineFlags::INPUT),
            (Setup::Input(Edges::Rising), LineFlags::INPUT | LineFlags::EDGE_RISING),
            (Setup::Input(Edges::Falling), LineFlags::INPUT | LineFlags::EDGE_FALLING),
            (Setup::Input(Edges::Both), LineFlags::INPUT | LineFlags::EDGE_RISING | LineFlags::EDGE_FALLING),
        ];
        for (setup, expected) in cases {
            let config = config(setup, Wiring::default());
            assert_eq!((config.flags, config.num_attrs), (expected, 0));
        }
        for level in [false, true] {
            let config = config(Setup::Output(level), Wiring::default());
            assert_eq!(config.flags, LineFlags::OUTPUT);
            assert_eq!(attributes(&config), [LineAttributeValue::Values(u64::from(level))]);
        }
    }

    fn attributes(config: &LineConfig) -> Vec<LineAttributeValue> {
        let used = config.attrs.0.iter().take(config.num_attrs as usize);
        used.map(|attribute| {
            assert_eq!(attribute.mask, ONE_LINE);
            attribute.attr.to_value().expect("an attribute")
        })
        .collect()
    }

    #[test]
    fn the_circuit_of_a_line_is_part_of_each_configuration() {
        let debounce_us = NonZero::new(5000);
        let wiring = Wiring { bias: Some(Bias::PullUp), drive: Drive::OpenSource, debounce_us };
        for edges in [Edges::None, Edges::Rising, Edges::Falling, Edges::Both] {
            let (plain, wired) =
                (config(Setup::Input(edges), Wiring::default()), config(Setup::Input(edges), wiring));
            assert_eq!(wired.flags, plain.flags | LineFlags::BIAS_PULL_UP);
            assert_eq!(attributes(&wired), [LineAttributeValue::DebouncePeriod(5000)]);
        }
        let output = config(Setup::Output(true), wiring);
        assert_eq!(output.flags, LineFlags::OUTPUT | LineFlags::OPEN_SOURCE | LineFlags::BIAS_PULL_UP);
        assert_eq!(attributes(&output), [LineAttributeValue::Values(1)]);
        let released = config(Setup::Released, wiring);
        assert_eq!((released.flags, released.num_attrs), (LineFlags::empty(), 0));
    }

    #[test]
    fn edges_and_debouncing_are_read_back_from_the_kernel() {
        for edges in [Edges::None, Edges::Rising, Edges::Falling, Edges::Both] {
            assert_eq!(super::edges(config(Setup::Input(edges), Wiring::default()).flags), edges);
        }
        let mut info = LineInfo::default();
        assert_eq!(debounce_us(&info), None);
        info.attr_mut(0).set_debounce_period_us(7);
        info.num_attrs = 1;
        assert_eq!(debounce_us(&info), NonZero::new(7));
    }

    #[test]
    fn an_error_of_the_kernel_stays_what_it_is() {
        let busy = Error::Os(gpiocdev_uapi::v2::Errno(BUSY));
        assert_eq!(io::Error::from(Failure(busy)).kind(), io::ErrorKind::ResourceBusy);
    }
}
