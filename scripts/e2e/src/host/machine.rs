// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine: the board's hardware, QEMU with Xen and the domains, and the channels to their agents.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::PATIENCE;
use super::board::Hardware;
use super::channel::Channel;
use super::console::{Console, Line, Party};
use super::process::Process;
use super::qmp::Qmp;
use crate::frame::Frame;

/// The domid of the driver domain.
pub const DRIVER_DOMAIN: u16 = 1;
/// The domid of the first guest.
pub const GUEST_A: u16 = 2;
/// The domid of the second guest.
pub const GUEST_B: u16 = 3;

/// The arguments with which QEMU's clock counts instructions, so that equal runs have equal times.
pub const ICOUNT: [&str; 2] = ["-icount", "shift=1"];
/// The duration of an instruction with [`ICOUNT`].
pub const NANOSECONDS_PER_INSTRUCTION: u64 = 2;

/// The time without a line of Xen after which its output for a debug key counts as complete.
const QUIET: Duration = Duration::from_secs(2);

/// Debug keys of Xen, with what they print.
const XEN_STATE: [(u8, &str); 4] =
    [(b'q', "domains"), (b'r', "run queues"), (b'a', "timers"), (b'd', "processors")];
/// Prints the processes, the kernel function in which each sleeps, and the interrupts.
const PROCESSES: &str = "for p in /proc/[0-9]*; do \
    echo ${p#/proc/} $(tr '\\0' ' ' <$p/cmdline) - $(cat $p/wchan) - $(head -c 200 $p/syscall); done; \
    cat /proc/interrupts";

/// The files from which a machine is started, and the directory of its logs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The manifest.
    pub manifest: PathBuf,
    /// The program `images`, which builds images.
    pub builder: PathBuf,
    /// The folder of the files from which images are built.
    pub files: PathBuf,
    /// The image of the manifest.
    pub image: PathBuf,
    /// The program `backend` of the host.
    pub backend: PathBuf,
    /// The description of the simulated board.
    pub board: PathBuf,
    /// The directory of the run: sockets, logs, journals.
    pub run: PathBuf,
    /// Arguments of QEMU besides those of the image.
    pub arguments: Vec<String>,
    /// The guests of the manifest, in its order.
    pub guests: Vec<Guest>,
}

/// A command that succeeds on each agent on Linux.
const ON_LINUX: &[&str] = &["sh", "-c", "true"];

/// A guest of the manifest.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its name.
    pub name: &'static str,
    /// A command that succeeds on its agent: its answer shows that the agent runs.
    pub greeting: &'static [&'static str],
}

impl Guest {
    /// Returns a guest that runs Linux.
    #[must_use]
    pub const fn linux(name: &'static str) -> Self {
        Self { name, greeting: ON_LINUX }
    }
}

impl Place {
    /// Returns the place of the image with a bare-metal guest (scripts/e2e/hostile.toml), for the run of this
    /// name. The bare-metal guest is the first of [`Machine`], a guest with Linux the second.
    #[must_use]
    pub fn hostile(run: &str) -> Self {
        let demo = Self::in_checkout(run);
        Self {
            manifest: Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile.toml"),
            image: demo.image.with_file_name("hostile"),
            guests: vec![Guest { name: "bare", greeting: &["machine"] }, Guest::linux("good")],
            ..demo
        }
    }

    /// Returns the place of the image whose driver domain is an attacker (scripts/e2e/rogue.toml), for the
    /// run of this name. Its guests are paused until the driver domain starts them.
    #[must_use]
    pub fn rogue(run: &str) -> Self {
        let demo = Self::in_checkout(run);
        let guest = |name| Guest { name, greeting: &["machine"] };
        Self {
            manifest: Path::new(env!("CARGO_MANIFEST_DIR")).join("rogue.toml"),
            image: demo.image.with_file_name("rogue"),
            guests: vec![guest("first"), guest("second")],
            ..demo
        }
    }

    /// Returns the place of the image whose first guest has devices that daemons of other projects serve
    /// (scripts/e2e/devices.toml), for the run of this name.
    #[must_use]
    pub fn devices(run: &str) -> Self {
        let demo = Self::in_checkout(run);
        Self {
            manifest: Path::new(env!("CARGO_MANIFEST_DIR")).join("devices.toml"),
            image: demo.image.with_file_name("devices"),
            guests: vec![Guest::linux("upstream"), Guest::linux("ours")],
            ..demo
        }
    }

    /// Returns the place of the image with a guest that has no grants (scripts/e2e/ungranted.toml) in this
    /// checkout, for the run of this name. The first guest of [`Machine`] has no grants, the second has.
    #[must_use]
    pub fn ungranted(run: &str) -> Self {
        let demo = Self::in_checkout(run);
        Self {
            manifest: Path::new(env!("CARGO_MANIFEST_DIR")).join("ungranted.toml"),
            image: demo.image.with_file_name("ungranted"),
            guests: vec![Guest { name: "rtos", greeting: &["machine"] }, Guest::linux("good")],
            ..demo
        }
    }

    /// Returns the place of the demo's image in this checkout, for the run of this name.
    #[must_use]
    pub fn in_checkout(run: &str) -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.parent().and_then(Path::parent).unwrap_or(package);
        let target = root.join("target");
        Self {
            manifest: root.join("images/examples/demo.toml"),
            builder: target.join("host/bin/images"),
            files: target.join("files"),
            image: target.join("demo"),
            backend: target.join("host/bin/backend"),
            board: package.join("board.toml"),
            run: target.join("e2e").join(run),
            arguments: Vec::new(),
            guests: vec![Guest::linux("guest-a"), Guest::linux("guest-b")],
        }
    }
}

/// The file `qemu.json` of an image.
#[derive(Debug, Deserialize)]
struct CommandLine {
    program: String,
    args: Vec<String>,
}

/// A running machine. All its processes end when this value is dropped.
pub struct Machine {
    /// The console of all domains.
    pub console: Arc<Console>,
    /// The agent in the driver domain.
    pub driver_domain: Channel,
    /// The agents in the guests, in the manifest's order.
    pub guests: Vec<Arc<Channel>>,
    /// The agent in the first guest.
    pub guest_a: Arc<Channel>,
    /// The agent in the second guest. It does not answer if the manifest has one guest.
    pub guest_b: Arc<Channel>,
    /// The I2C bus of the board.
    pub i2c: Hardware,
    /// The GPIO controller of the board.
    pub gpio: Hardware,
    /// The time at which QEMU was started.
    pub started: Instant,
    /// The directory of the logs.
    pub directory: PathBuf,
    expected: Vec<Guest>,
    qmp: Mutex<Qmp>,
    qemu: Process,
}

impl Machine {
    /// Starts the hardware and QEMU. [`Machine::wait_for_guests`] waits for the domains.
    ///
    /// # Errors
    /// Returns an error if one of them does not start.
    pub fn start(place: &Place) -> Result<Self> {
        let directory = fresh_directory(&place.run)?;
        let hardware =
            |kind: &str, name: &str| Hardware::start(&place.backend, kind, name, &place.board, &directory);
        let (i2c, gpio) = (hardware("i2c", "i2c0")?, hardware("gpio", "gpio0")?);
        let started = Instant::now();
        let (mut qemu, console) = start_qemu(place, &directory)?;
        let qmp = Qmp::connect(&directory.join("qmp.sock")).or_else(|error| {
            qemu.alive().with_context(|| format!("see {}/qemu.log", directory.display()))?;
            Err(error)
        })?;
        let channel = |domain| Channel::new(Arc::clone(&console), domain);
        let guests: Vec<_> =
            (GUEST_A..).take(place.guests.len().max(2)).map(|domain| Arc::new(channel(domain))).collect();
        let [guest_a, guest_b, ..] = guests.as_slice() else {
            bail!("the machine has no channels to guests")
        };
        Ok(Self {
            driver_domain: channel(DRIVER_DOMAIN),
            guest_a: Arc::clone(guest_a),
            guest_b: Arc::clone(guest_b),
            guests,
            console,
            i2c,
            gpio,
            started,
            directory,
            expected: place.guests.clone(),
            qmp: Mutex::new(qmp),
            qemu,
        })
    }

    /// Waits until the shim has unpaused all guests and all agents answer.
    ///
    /// # Errors
    /// Returns an error with the last lines of the console if that does not happen within [`PATIENCE`].
    pub fn wait_for_guests(&self) -> Result<()> {
        self.wait_for_guests_or_reason().map_err(|error| error.context(self.last_lines()))
    }

    fn wait_for_guests_or_reason(&self) -> Result<()> {
        for guest in &self.expected {
            let unpaused = format!("{}: unpaused", guest.name);
            let seen = self.console.wait(0, PATIENCE, |line| line.text.contains(&unpaused).then_some(()))?;
            seen.with_context(|| format!("the shim has not printed `{unpaused}`"))?;
        }
        // The answer also ends the hello frames of the agent.
        self.driver_domain.check(ON_LINUX, PATIENCE)?;
        for (channel, guest) in self.guests.iter().zip(&self.expected) {
            channel.check(guest.greeting, PATIENCE)?;
        }
        Ok(())
    }

    /// Returns the last lines of the console, without frames and changes of the focus.
    fn last_lines(&self) -> String {
        let is_output = |line: &&Line| Frame::from_line(&line.text).is_none() && line.focus().is_none();
        let lines = self.console.since(0);
        let mut last: Vec<String> =
            lines.iter().rev().filter(is_output).take(12).map(Line::to_string).collect();
        last.reverse();
        format!("the console's last lines (all of it: {}):\n{}", self.directory.display(), last.join("\n"))
    }

    /// Returns the state of the machine after a failure: the console's last lines, Xen's domains and
    /// processors, and the processes of the driver domain if its agent answers.
    #[must_use]
    pub fn post_mortem(&self) -> String {
        let mut report = vec![self.last_lines()];
        for (key, name) in XEN_STATE {
            let text = self.ask_xen(key).unwrap_or_else(|error| format!("{error:#}"));
            report.push(format!("Xen's {name}:\n{text}"));
        }
        let processes = self.driver_domain.check(&["sh", "-c", PROCESSES], QUIET);
        report.push(format!(
            "processes of the driver domain:\n{}",
            processes.unwrap_or_else(|e| format!("{e:#}"))
        ));
        report.join("\n")
    }

    /// Returns what Xen prints for one of its debug keys (xen/common/keyhandler.c). Xen does not mark the end
    /// of its output, so this waits until Xen prints nothing for [`QUIET`].
    ///
    /// # Errors
    /// Returns an error if the console fails.
    pub fn ask_xen(&self, key: u8) -> Result<String> {
        let mark = self.console.mark();
        self.console.type_to_xen(&[key])?;
        let end = Instant::now() + PATIENCE;
        let of_xen = |line: &Line| (line.from == Party::Xen).then_some(());
        while Instant::now() < end && self.console.wait(self.console.mark(), QUIET, of_xen)?.is_some() {}
        let lines = self.console.since(mark);
        Ok(lines
            .iter()
            .filter(|line| line.from == Party::Xen)
            .map(Line::to_string)
            .collect::<Vec<_>>()
            .join("\n"))
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// Returns an error if QEMU refuses the command or does not answer.
    pub fn press_power_button(&self) -> Result<()> {
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        qmp.execute("system_powerdown").map(drop)
    }

    /// Checks that QEMU and the simulated hardware run.
    ///
    /// # Errors
    /// Returns an error if one of them has ended.
    pub fn alive(&mut self) -> Result<()> {
        self.qemu.alive()?;
        self.i2c.alive()?;
        self.gpio.alive()
    }

    /// Returns the time since QEMU was started.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Writes the console lines of Xen and of each domain into files of their own.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn split_log(&self) -> Result<()> {
        fs::write(self.directory.join("xen.log"), self.console.lines_of(Party::Xen).join("\n"))?;
        for domain in (DRIVER_DOMAIN..).take(1 + self.guests.len()) {
            let lines = self.console.lines_of(Party::Domain(domain));
            fs::write(self.directory.join(format!("dom{domain}.log")), lines.join("\n"))?;
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // On an error, console.log still has all lines.
        let _ = self.split_log();
    }
}

/// Creates an empty directory at `path`, and deletes that of an earlier run.
fn fresh_directory(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    fs::create_dir_all(path)?;
    Ok(path.canonicalize()?)
}

fn start_qemu(place: &Place, directory: &Path) -> Result<(Process, Arc<Console>)> {
    let path = place.image.join("qemu.json");
    let file = File::open(&path)
        .with_context(|| format!("cannot open {}: build the image with scripts/image", path.display()))?;
    let line: CommandLine = serde_json::from_reader(file).with_context(|| path.display().to_string())?;
    let mut qemu = Process::start("qemu", directory, &line.program, |command| {
        command.args(&line.args).args(&place.arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(())
    })?;
    let output = qemu.child().stdout.take().context("QEMU's output is not a pipe")?;
    let input = qemu.child().stdin.take().context("QEMU's input is not a pipe")?;
    let console = Console::new(output, input, &directory.join("console.log"))?;
    Ok((qemu, console))
}
