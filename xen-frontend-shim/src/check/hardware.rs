// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel has to offer for the devices of the configuration: for those that our backends serve, since nobody here
//! knows what others open.

use std::path::Path;

use super::{Finding, Paths};
use shim_config::{Backend, Config};

/// A kind of hardware, and the options of the kernel by which a backend reaches it.
struct Hardware {
    /// The word of `backend` for it.
    word: &'static str,
    /// For messages.
    name: &'static str,
    /// Its bus in sysfs, and the option that makes it.
    bus: (&'static str, &'static str),
    /// How its nodes in `/dev` begin, as its devices on the bus do, and the option that makes them.
    nodes: (&'static str, &'static str),
}

const HARDWARE: [Hardware; 2] = [
    Hardware {
        word: "i2c",
        name: "I2C adapter",
        bus: ("/sys/bus/i2c", "CONFIG_I2C=y"),
        nodes: ("i2c-", "CONFIG_I2C_CHARDEV=y"),
    },
    Hardware {
        word: "gpio",
        name: "GPIO chip",
        bus: ("/sys/bus/gpio", "CONFIG_GPIOLIB=y"),
        nodes: ("gpiochip", "CONFIG_GPIO_CDEV=y"),
    },
];

pub(super) fn check(config: &Config, place: &Paths) -> Vec<Finding> {
    let backends = || config.guest.iter().flat_map(|guest| &guest.device).map(|device| &device.backend);
    let wanted = HARDWARE.iter().filter(|hardware| backends().any(|backend| hardware.is_of(backend)));
    wanted.map(|hardware| hardware.find(place)).collect()
}

impl Hardware {
    /// Whether `backend` is ours and opens hardware of this kind, and not a model of it.
    fn is_of(&self, backend: &Backend) -> bool {
        let Backend::Command(command) = backend else { return false };
        let mut words = command.iter();
        let program = words.next().and_then(|path| Path::new(path).file_name()?.to_str());
        let is_ours = match program.and_then(|program| program.strip_prefix("backend")) {
            Some("") => words.next().is_some_and(|word| word == self.word),
            Some(of) => of.strip_prefix('-') == Some(self.word),
            None => false,
        };
        is_ours && !words.any(|word| word == "--sim" || word.starts_with("--sim="))
    }

    fn find(&self, place: &Paths) -> Finding {
        let what = format!("nodes /dev/{}*", self.nodes.0);
        if self.is_in(&place.path("/dev")) {
            Finding::ok(what)
        } else {
            Finding::missing(what, self.advice(place))
        }
    }

    fn advice(&self, place: &Paths) -> String {
        let Self { name, bus: (bus, bus_option), nodes: (_, node_option), .. } = self;
        if !place.path("/sys/bus").exists() {
            return "mount sysfs at /sys, by which a backend finds its hardware".to_owned();
        }
        if !place.path(bus).exists() {
            return format!("build the driver domain's kernel with {bus_option} and {node_option}");
        }
        if self.is_in(&place.path(bus).join("devices")) {
            return format!("build the driver domain's kernel with {node_option}, with devtmpfs on /dev");
        }
        format!(
            "the kernel has no {name}: give one to the driver domain, and build the kernel with the driver of it and with \
             {node_option}"
        )
    }

    /// Whether a directory has something of this kind.
    fn is_in(&self, directory: &Path) -> bool {
        let begin = self.nodes.0.as_bytes();
        let Ok(entries) = directory.read_dir() else { return false };
        entries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(begin))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, fake, lines};
    use super::*;

    fn command(words: &str) -> Backend {
        Backend::Command(words.split(' ').map(str::to_owned).collect())
    }

    /// A configuration of one device.
    fn with(backend: Backend) -> Config {
        let mut config = config();
        config.guest.truncate(1);
        config.guest[0].device.truncate(1);
        config.guest[0].device[0].backend = backend;
        config
    }

    /// What is said of our backend for `word` where there are no nodes, but these directories.
    fn line(word: &str, directories: &[&str]) -> String {
        let (_directory, place) = fake();
        for path in ["/dev/i2c-0", "/dev/gpiochip0"] {
            std::fs::remove_file(place.path(path)).unwrap();
        }
        for path in directories {
            std::fs::create_dir_all(place.path(path)).unwrap();
        }
        lines(check(&with(command(&format!("/usr/bin/backend {word}"))), &place).iter())
    }

    #[test]
    fn what_a_backend_of_ours_opens_is_looked_for_once() {
        let (_directory, place) = fake();
        assert_eq!(lines(check(&config(), &place).iter()), "ok       nodes /dev/i2c-*");
        let gpio = check(&with(command("backend-gpio --line 0:0=led")), &place);
        assert_eq!(lines(gpio.iter()), "ok       nodes /dev/gpiochip*");
    }

    #[test]
    fn what_others_open_is_not_known() {
        let (_directory, place) = fake();
        let others = ["/usr/bin/vhost-device-i2c i2c", "backend", "backend rng", "backends i2c"].map(command);
        let models = ["backend i2c --sim board.toml", "backend-gpio --sim=board.toml"].map(command);
        let none = [Backend::Socket("/run/i2c".into()), Backend::Command(Vec::new())];
        for backend in others.into_iter().chain(models).chain(none) {
            assert_eq!(check(&with(backend.clone()), &place), [], "{backend:?}");
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_named_by_its_option() {
        let cases: [(&str, &[&str], &str); 8] = [
            ("i2c", &[], "mount sysfs"),
            ("i2c", &["/sys/bus/gpio/devices/gpiochip0"], "with CONFIG_I2C=y and CONFIG_I2C_CHARDEV=y"),
            ("i2c", &["/sys/bus/i2c/devices"], "no I2C adapter: give one to"),
            ("i2c", &["/sys/bus/i2c/devices/i2c-3"], "kernel with CONFIG_I2C_CHARDEV=y, with devtmpfs"),
            ("gpio", &[], "mount sysfs"),
            ("gpio", &["/sys/bus/i2c/devices/i2c-3"], "with CONFIG_GPIOLIB=y and CONFIG_GPIO_CDEV=y"),
            ("gpio", &["/sys/bus/gpio/devices"], "no GPIO chip: give one to"),
            ("gpio", &["/sys/bus/gpio/devices/gpiochip3"], "kernel with CONFIG_GPIO_CDEV=y, with devtmpfs"),
        ];
        for (word, directories, expected) in cases {
            let line = line(word, directories);
            assert!(
                line.starts_with("missing  nodes /dev/") && line.contains(expected),
                "{directories:?}: {line}"
            );
        }
    }
}
