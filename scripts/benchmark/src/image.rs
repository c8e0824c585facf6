// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The images that are measured: manifests, and upstream's daemons in the shim's configuration where they are
//! compared with ours.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use e2e::host::machine::{Guest, Place};
use images::build::Job;
use images::emit::ramdisk::{SHELL, SHIM_CONFIG, inittab};
use images::emit::shim::shim;
use images::load::load;
use shim_config::{Backend, Config, Device};

/// The prefix of the upstream daemons' sockets in the driver domain.
pub const SOCKETS: &str = "/run/upstream-";
/// The label of the GPIO chip that all contenders share: a gpio-sim of Linux, on which a program can make
/// edges.
pub const CHIP: &str = "bench";
/// The script that creates the chip.
const MAKE_CHIP: &str = "/usr/bin/make-chip";
const AGENT: &str = "/usr/bin/agent";
/// The line of our guest.
pub const OURS: u32 = 0;
/// The line of the guest with upstream's daemons.
pub const UPSTREAM: u32 = 1;
/// The line of the program in the driver domain.
pub const IOCTL: u32 = 2;
const LOAD: u32 = 3;

/// The maximum number of guests.
pub const MOST_GUESTS: usize = 8;
const NAMES: [&str; MOST_GUESTS] = ["g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"];

/// The parameters of an image.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The board: a name of `images/boards`, or the path of such a file.
    pub board: String,
    /// The time in microseconds for which our backends poll for another request before they sleep.
    pub busy_poll: u32,
}

/// An image.
#[derive(Clone, Copy, Debug)]
pub enum Image {
    /// A guest with our backends, one with upstream's daemons, and one that makes load.
    Contenders,
    /// This number of guests, each with an I2C adapter and a GPIO chip.
    Guests(usize),
}

impl Image {
    /// Returns its name in paths.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Contenders => "contenders".to_owned(),
            Self::Guests(count) => format!("guests-{count}"),
        }
    }

    /// Returns its guests.
    #[must_use]
    pub fn guests(self) -> Vec<Guest> {
        match self {
            Self::Contenders => ["ours", "upstream", "load"].map(Guest::linux).to_vec(),
            Self::Guests(count) => NAMES.into_iter().take(count).map(Guest::linux).collect(),
        }
    }

    fn manifest(self, variant: &Variant) -> String {
        let Variant { board, busy_poll } = variant;
        // A second vCPU, because a process that polls occupies the first one.
        let vcpus = if *busy_poll > 0 { 2 } else { 1 };
        let files = [
            (AGENT, "bin/agent"),
            ("/usr/bin/vhost-device-i2c", "upstream/vhost-device-i2c"),
            ("/usr/bin/vhost-device-gpio", "upstream/vhost-device-gpio"),
            (MAKE_CHIP, "make-chip"),
            ("/etc/inittab", "inittab"),
            (SHIM_CONFIG, "shim.toml"),
        ]
        .map(|(destination, source)| format!("\"{destination}\" = \"{source}\""))
        .join(", ");
        let head = format!(
            "board = \"{board}\"\n[driver-domain]\nmemory = \"64 MiB\"\nvcpus = {vcpus}\n\
             hardware = [\"i2c0\", \"pl061\"]\nconsole = [\"/usr/bin/agent\"]\nfiles = {{ {files} }}\n"
        );
        let guests = match self {
            Self::Contenders => [("ours", OURS), ("upstream", UPSTREAM), ("load", LOAD)]
                .map(|(name, line)| guest(name, line, *busy_poll))
                .concat(),
            Self::Guests(count) => {
                let named = NAMES.into_iter().take(count).zip(0..);
                named.map(|(name, line)| guest(name, line, *busy_poll)).collect()
            }
        };
        head + &guests
    }

    /// Returns the inittab of the driver domain: it creates the chip before it starts the shim.
    fn inittab(self) -> String {
        let chip = match self {
            Self::Contenders => format!("::sysinit:{SHELL} {MAKE_CHIP}\n"),
            Self::Guests(_) => String::new(),
        };
        inittab(&[AGENT]) + &chip
    }

    /// Builds the image below `target/benchmark`. Returns its paths, guests and QEMU's `arguments` for a run.
    ///
    /// # Errors
    /// Returns an error if the image builder refuses the manifest or a file is missing.
    pub fn build(
        self,
        checkout: &Path,
        variant: &Variant,
        run: &str,
        arguments: Vec<String>,
    ) -> Result<Place> {
        let target = checkout.join("target/benchmark");
        let files = target.join("files");
        let manifest = target.join(format!("{}.toml", self.name()));
        let image = target.join(self.name());
        fs::write(&manifest, self.manifest(variant))?;
        fs::copy(checkout.join("scripts/benchmark/make-chip"), files.join("make-chip"))?;
        fs::write(files.join("inittab"), self.inittab())?;
        let loaded = load(&manifest)?;
        let plan = loaded.plan()?;
        let config = self.with_others(shim(&plan));
        fs::write(files.join("shim.toml"), toml::to_string(&config)?)?;
        loaded.require_files(&files)?;
        let job =
            Job { loaded: &loaded, plan: &plan, files: files.clone(), output: image.clone(), host_dtb: None };
        job.run().with_context(|| format!("the image {}", self.name()))?;
        Ok(Place {
            manifest,
            files,
            image,
            run: target.join("runs").join(run),
            arguments,
            guests: self.guests(),
            ..Place::in_checkout("")
        })
    }

    /// Changes the shim's configuration where a manifest cannot: backends that are other programs, and a chip
    /// that is not hardware.
    fn with_others(self, mut config: Config) -> Config {
        if !matches!(self, Self::Contenders) {
            return config;
        }
        for guest in &mut config.guest {
            for device in &mut guest.device {
                match guest.name.as_str() {
                    "upstream" => device.backend = Backend::Socket(socket(&device.name)),
                    _ => use_chip(device),
                }
            }
        }
        config
    }
}

/// Returns the socket of the upstream daemon of a device.
#[must_use]
pub fn socket(device: &str) -> PathBuf {
    // Upstream's daemons append the number of the connection.
    format!("{SOCKETS}{device}0").into()
}

/// Replaces the chip of a GPIO device.
fn use_chip(device: &mut Device) {
    let Backend::Program(program) = &mut device.backend else { return };
    let words = &mut program.command;
    let options = words.iter().position(|word| word == "--line");
    if let Some(word) = options.and_then(|place| words.get_mut(place + 1))
        && let Some((_, line)) = word.rsplit_once(':')
    {
        *word = format!("{CHIP}:{line}");
    }
}

fn guest(name: &str, line: u32, busy_poll: u32) -> String {
    format!(
        "[[guest]]\nname = \"{name}\"\nmemory = \"64 MiB\"\nramdisk = \"guest.cpio.gz\"\n\
         bootargs = \"quiet panic=1\"\n\
         [[guest.i2c]]\nname = \"i2c\"\nadapter = \"i2c0\"\n\
         targets = [{{ address = 0x48, shared = true }}, {{ address = 0x50, shared = true }}]\n\
         busy-poll-us = {busy_poll}\n\
         [[guest.gpio]]\nname = \"gpio\"\nlines = [{{ chip = \"pl061\", line = {line}, name = \"line\" }}]\n\
         busy-poll-us = {busy_poll}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(image: Image) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifest.toml");
        let variant = Variant { board: "qemu-virt".to_owned(), busy_poll: 0 };
        fs::write(&path, image.manifest(&variant)).unwrap();
        let loaded = load(&path).unwrap();
        image.with_others(shim(&loaded.plan().unwrap()))
    }

    #[test]
    fn upstream_serves_all_devices_of_its_guest_and_no_others() {
        for guest in config(Image::Contenders).guest {
            for device in guest.device {
                let elsewhere = matches!(device.backend, Backend::Socket(_));
                assert_eq!(elsewhere, guest.name == "upstream", "{} {}", guest.name, device.name);
            }
        }
    }

    #[test]
    fn our_lines_are_on_the_simulated_chip() {
        let config = config(Image::Contenders);
        let device = config.guest[0].device.iter().find(|device| device.name == "gpio").unwrap();
        let Backend::Program(program) = &device.backend else { panic!("not a program") };
        let words = &program.command;
        assert!(words.contains(&"bench:0=line".to_owned()), "{words:?}");
    }

    #[test]
    fn each_of_eight_guests_has_two_devices() {
        let config = config(Image::Guests(MOST_GUESTS));
        assert_eq!(config.guest.len(), MOST_GUESTS);
        assert!(config.guest.iter().all(|guest| guest.device.len() == 2));
    }
}
