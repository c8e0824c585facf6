// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Finds and opens the chips that the operator names, and requests their lines.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use gpiocdev_uapi::v2::{
    LineConfig, LineRequest, NAME_LEN_MAX, Name, get_chip_info, get_line, get_line_info,
};

use super::config::Failure;
use crate::gpio::line_option::LineOption;
use crate::gpio::wiring::Wiring;
use crate::sysfs::{Sysfs, SysfsDevice};

/// The consumer of the lines, as `gpioinfo` shows it.
const CONSUMER: &str = "backend-gpio";

const _: () = assert!(CONSUMER.len() < NAME_LEN_MAX);

/// A line of an open chip.
pub(super) struct ChipLine {
    pub(super) chip: Arc<Chip>,
    pub(super) offset: u32,
    pub(super) wiring: Wiring,
}

impl ChipLine {
    /// Returns the name by which the line is held for the next daemon.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.chip.device, self.offset)
    }
}

/// An open chip.
pub(super) struct Chip {
    /// The path of its device node.
    pub(super) device: String,
    pub(super) file: File,
    label: String,
    lines: u32,
}

impl Chip {
    /// Opens the chip of this name in sysfs.
    pub(super) fn open_by_name(name: &str) -> anyhow::Result<Self> {
        Self::open(&Path::new("/dev").join(name))
    }

    fn open(node: &Path) -> anyhow::Result<Self> {
        let device = node.display().to_string();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(node)
            .with_context(|| format!("cannot open {device}: may this user open it?"))?;
        let info = get_chip_info(&file).with_context(|| format!("{device} is not a GPIO chip"))?;
        let label = info.label.as_os_str().to_string_lossy().into_owned();
        Ok(Self { device, file, label, lines: info.num_lines })
    }

    /// Requests a line. If another process has requested it, the error names that process.
    pub(super) fn request(&self, offset: u32, config: LineConfig) -> io::Result<File> {
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
            self.request_error(offset, Failure(error).into(), holder.ok())
        })?;
        rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::NONBLOCK)?;
        Ok(file)
    }

    /// Adds the holder of the line to the error, if that is the reason.
    fn request_error(&self, offset: u32, error: io::Error, holder: Option<String>) -> io::Error {
        match holder {
            Some(holder) if error.raw_os_error() == Some(BUSY) => {
                let message = format!(
                    "line {offset} of {} is in use by {holder:?}: that must release it first",
                    self.device
                );
                io::Error::new(error.kind(), message)
            }
            _ => error,
        }
    }
}

const BUSY: i32 = rustix::io::Errno::BUSY.raw_os_error();

/// Returns the lines that the operator chose, on the chips that `find` returns.
pub(super) fn lines(
    options: &[LineOption],
    find: impl Fn(&str) -> anyhow::Result<Chip>,
) -> anyhow::Result<Vec<ChipLine>> {
    let mut chips: HashMap<&str, Arc<Chip>> = HashMap::new();
    let mut lines: Vec<ChipLine> = Vec::with_capacity(options.len());
    for line in options {
        let chip = match chips.entry(&line.chip) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => Arc::clone(new.insert(Arc::new(find(&line.chip)?))),
        };
        if line.offset >= chip.lines {
            bail!("{line}: {} has lines 0 to {}", chip.device, chip.lines.saturating_sub(1));
        }
        if lines.iter().any(|other| other.chip.device == chip.device && other.offset == line.offset) {
            bail!("{line}: line {} of {} is given twice", line.offset, chip.device);
        }
        let number = lines.len();
        log::info!(
            "the guest's line {number} ({:?}) is line {} of {}",
            line.name.as_deref().unwrap_or_default(),
            line.offset,
            chip.device
        );
        lines.push(ChipLine { chip, offset: line.offset, wiring: line.wiring });
    }
    Ok(lines)
}

/// Finds the chip that `wanted` names: by its name in sysfs, its device-tree path, or its label. `open` opens
/// a chip by its name in sysfs.
pub(super) fn find(
    wanted: &str,
    sysfs: &Sysfs,
    open: impl Fn(&str) -> anyhow::Result<Chip>,
) -> anyhow::Result<Chip> {
    let devices = sysfs.devices("gpio").context("this kernel shows no GPIO chips (CONFIG_GPIO_CDEV)")?;
    let distance = |device: &SysfsDevice| match wanted.starts_with('/') {
        true => sysfs.distance(device, wanted),
        false => (device.name == wanted).then_some(0),
    };
    let mut named: Vec<_> =
        devices.iter().filter_map(|device| Some((distance(device)?, &device.name))).collect();
    named.sort();
    match named.as_slice() {
        [(_, name)] => return open(name),
        // A chip may be part of a device that is a chip itself: the nearer one is meant.
        [(nearest, name), (next, _), ..] if nearest < next => return open(name),
        [] => {}
        [..] => {
            let names: Vec<_> = named.iter().map(|(_, name)| name.as_str()).collect();
            bail!("more than one GPIO chip is {wanted}: name one of {}", names.join(", "));
        }
    }
    find_by_label(wanted, &devices, open)
}

fn find_by_label(
    wanted: &str,
    devices: &[SysfsDevice],
    open: impl Fn(&str) -> anyhow::Result<Chip>,
) -> anyhow::Result<Chip> {
    let (mut labelled, mut others) = (Vec::new(), Vec::new());
    for SysfsDevice { name, .. } in devices {
        match open(name) {
            Ok(chip) if chip.label == wanted => labelled.push((name, chip)),
            Ok(chip) => others.push(format!("{name} (label {:?})", chip.label)),
            // It may be the one with this label.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Creates a sysfs with these chips, the first of which has a node in the device tree.
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

    /// Opens chips of eight lines, and fails for one.
    fn chip(name: &str) -> anyhow::Result<Chip> {
        let device = format!("/dev/{name}");
        let label = match name {
            "gpiochip0" => "soc",
            "gpiochip1" => "expander",
            _ => bail!("cannot open {device}: may this user open it?"),
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
    fn an_ambiguous_chip_is_an_error_that_lists_them() {
        let (root, sysfs) = sysfs(&["gpiochip0", "gpiochip1", "gpiochip3"]);
        let twin = |name: &str| chip(if name == "gpiochip3" { "gpiochip1" } else { name });
        let error = |wanted| find(wanted, &sysfs, twin).err().unwrap().to_string();
        let expected = "more than one GPIO chip has the label expander: name one of gpiochip1, gpiochip3";
        assert_eq!(error("expander"), expected);
        // Two are parts of one device.
        let node = root.path().join("sys/firmware/devicetree/base/soc");
        fs::create_dir_all(&node).unwrap();
        symlink(&node, root.path().join("sys/devices/of_node")).unwrap();
        let expected = "more than one GPIO chip is /soc: name one of gpiochip0, gpiochip1, gpiochip3";
        assert_eq!(error("/soc"), expected);
        assert_eq!(find("/gpio@1000", &sysfs, twin).unwrap().device, "/dev/gpiochip0");
    }

    #[test]
    fn a_missing_chip_is_an_error_that_lists_the_others() {
        let error = |sysfs: &Sysfs, wanted| find(wanted, sysfs, chip).err().unwrap().to_string();
        let (root, some) = sysfs(&["gpiochip0", "gpiochip1"]);
        for wanted in ["gpiochip7", "/gpio@2000", "Soc"] {
            let there = r#"gpiochip0 (label "soc"), gpiochip1 (label "expander")"#;
            let expected = format!("no GPIO chip is called {wanted}, there is {there}");
            assert_eq!(error(&some, wanted), expected);
        }
        let (_root, none) = sysfs(&[]);
        assert_eq!(error(&none, "soc"), "no GPIO chip is called soc, there is no chip");
        fs::remove_dir_all(root.path().join("sys/bus")).unwrap();
        assert_eq!(error(&some, "soc"), "this kernel shows no GPIO chips (CONFIG_GPIO_CDEV)");
    }

    /// It may be the one that has the label.
    #[test]
    fn a_chip_that_cannot_be_opened_is_named_with_the_reason() {
        let (_root, sysfs) = sysfs(&["gpiochip0", "gpiochip2"]);
        let by_name = find("gpiochip2", &sysfs, chip).err().unwrap().to_string();
        assert_eq!(by_name, "cannot open /dev/gpiochip2: may this user open it?");
        let by_label = find("panel", &sysfs, chip).err().unwrap().to_string();
        let there = format!(r#"gpiochip0 (label "soc"), gpiochip2 ({by_name})"#);
        assert_eq!(by_label, format!("no GPIO chip is called panel, there is {there}"));
    }

    #[test]
    fn a_node_that_is_not_a_chip_is_an_error_with_its_path() {
        let root = tempfile::tempdir().unwrap();
        let error = |name: &str| format!("{:#}", Chip::open(&root.path().join(name)).err().unwrap());
        let at = |name: &str| root.path().join(name).display().to_string();
        fs::write(root.path().join("file"), "").unwrap();
        fs::create_dir(root.path().join("directory")).unwrap();
        // These cannot be opened, not even by root.
        for name in ["nothing", "directory"] {
            let expected = format!("cannot open {}: may this user open it?: ", at(name));
            assert!(error(name).starts_with(&expected), "{}", error(name));
        }
        let expected = format!("{} is not a GPIO chip: ", at("file"));
        assert!(error("file").starts_with(&expected), "{}", error("file"));
    }

    #[test]
    fn a_missing_or_repeated_line_is_an_error_with_its_chip() {
        let (_root, sysfs) = sysfs(&["gpiochip0", "gpiochip1"]);
        let located = |options: &[&str]| {
            let options: Vec<LineOption> = options.iter().map(|line| line.parse().unwrap()).collect();
            lines(&options, |wanted| find(wanted, &sysfs, chip))
        };
        let names = |lines: Vec<ChipLine>| lines.iter().map(ChipLine::name).collect::<Vec<_>>();
        let good = located(&["soc:7=led", "gpiochip1:7", "gpiochip0:0"]).map(names).unwrap();
        assert_eq!(good, ["/dev/gpiochip0:7", "/dev/gpiochip1:7", "/dev/gpiochip0:0"]);
        let error = |options: &[&str]| located(options).err().unwrap().to_string();
        assert_eq!(error(&["soc:0", "soc:8"]), "--line soc:8: /dev/gpiochip0 has lines 0 to 7");
        assert_eq!(error(&["soc:4294967295"]), "--line soc:4294967295: /dev/gpiochip0 has lines 0 to 7");
        // By the same name, and by another.
        for again in ["soc:3=b", "gpiochip0:3", "/gpio@1000:3"] {
            let place = again.trim_end_matches("=b");
            let expected = format!("--line {place}: line 3 of /dev/gpiochip0 is given twice");
            assert_eq!(error(&["soc:3=a", "gpiochip1:3", again]), expected);
        }
    }

    #[test]
    fn a_busy_line_is_an_error_with_its_holder() {
        let chip = chip("gpiochip0").unwrap();
        let refused = |number: i32, holder: Option<&str>| {
            chip.request_error(
                3,
                Failure(gpiocdev_uapi::v2::Error::Os(gpiocdev_uapi::v2::Errno(number))).into(),
                holder.map(str::to_owned),
            )
        };
        let busy = refused(BUSY, Some("reset button"));
        assert_eq!(
            busy.to_string(),
            r#"line 3 of /dev/gpiochip0 is in use by "reset button": that must release it first"#
        );
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        // Another error, or no name, stays as it is.
        for (error, holder) in [(rustix::io::Errno::INVAL.raw_os_error(), Some("x")), (BUSY, None)] {
            assert_eq!(refused(error, holder).raw_os_error(), Some(error));
        }
    }
}
