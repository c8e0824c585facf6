// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device nodes that our backends open for the devices of the configuration. What other backends open is
//! not known.

use std::path::Path;

use super::{Finding, Paths};
use shim_config::{Backend, Config};

/// A kind of hardware, and the kernel options that a backend needs for it.
struct Hardware {
    /// The subcommand of `backend`.
    word: &'static str,
    /// The name in messages.
    name: &'static str,
    /// The bus in sysfs, and the option that creates it.
    bus: (&'static str, &'static str),
    /// The prefix of the device nodes in `/dev` and of the devices on the bus, and the option that creates
    /// the nodes.
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

pub(super) fn check(config: &Config, paths: &Paths) -> Vec<Finding> {
    let backends = || config.guest.iter().flat_map(|guest| &guest.device).map(|device| &device.backend);
    let wanted = HARDWARE.iter().filter(|hardware| backends().any(|backend| hardware.is_of(backend)));
    wanted.map(|hardware| hardware.find(paths)).collect()
}

impl Hardware {
    /// Whether `backend` is ours and opens hardware of this kind, not a simulated board.
    fn is_of(&self, backend: &Backend) -> bool {
        let Backend::Program(program) = backend else { return false };
        let mut words = program.command.iter();
        let program = words.next().and_then(|path| Path::new(path).file_name()?.to_str());
        let is_ours = match program.and_then(|program| program.strip_prefix("backend")) {
            Some("") => words.next().is_some_and(|word| word == self.word),
            Some(of) => of.strip_prefix('-') == Some(self.word),
            None => false,
        };
        is_ours && !words.any(|word| word == "--sim" || word.starts_with("--sim="))
    }

    fn find(&self, paths: &Paths) -> Finding {
        let what = format!("nodes /dev/{}*", self.nodes.0);
        if self.is_in(&paths.path("/dev")) {
            Finding::ok(what)
        } else {
            Finding::missing(what, self.advice(paths))
        }
    }

    fn advice(&self, paths: &Paths) -> String {
        let Self { name, bus: (bus, bus_option), nodes: (_, node_option), .. } = self;
        if !paths.path("/sys/bus").exists() {
            return "mount sysfs at /sys, where a backend finds its hardware".to_owned();
        }
        if !paths.path(bus).exists() {
            return format!("build the driver domain's kernel with {bus_option} and {node_option}");
        }
        if self.is_in(&paths.path(bus).join("devices")) {
            return format!("build the driver domain's kernel with {node_option}, with devtmpfs on /dev");
        }
        format!(
            "the kernel has no {name}: give one to the driver domain, and build the kernel with its driver \
             and with {node_option}"
        )
    }

    /// Whether a directory has an entry of this kind.
    fn is_in(&self, directory: &Path) -> bool {
        let prefix = self.nodes.0.as_bytes();
        let Ok(entries) = directory.read_dir() else { return false };
        entries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, fake, lines};
    use super::*;
    use shim_config::Program;

    fn command(words: &str) -> Backend {
        Backend::Program(Program::new(words.split(' ').map(str::to_owned).collect()))
    }

    /// A configuration with one device.
    fn with(backend: Backend) -> Config {
        let mut config = config();
        config.guest.truncate(1);
        config.guest[0].device.truncate(1);
        config.guest[0].device[0].backend = backend;
        config
    }

    /// The finding about our backend for `word` without device nodes and with these directories.
    fn line(word: &str, directories: &[&str]) -> String {
        let (_directory, paths) = fake();
        for path in ["/dev/i2c-0", "/dev/gpiochip0"] {
            std::fs::remove_file(paths.path(path)).unwrap();
        }
        for path in directories {
            std::fs::create_dir_all(paths.path(path)).unwrap();
        }
        lines(check(&with(command(&format!("/usr/bin/backend {word}"))), &paths).iter())
    }

    #[test]
    fn device_node_of_our_backends_is_one_finding() {
        let (_directory, paths) = fake();
        assert_eq!(lines(check(&config(), &paths).iter()), "ok       nodes /dev/i2c-*");
        let gpio = check(&with(command("backend-gpio --line 0:0=led")), &paths);
        assert_eq!(lines(gpio.iter()), "ok       nodes /dev/gpiochip*");
    }

    #[test]
    fn other_backends_and_simulated_boards_have_no_findings() {
        let (_directory, paths) = fake();
        let others = ["/usr/bin/vhost-device-i2c i2c", "backend", "backend rng", "backends i2c"].map(command);
        let models = ["backend i2c --sim board.toml", "backend-gpio --sim=board.toml"].map(command);
        let none = [Backend::Socket("/run/i2c".into()), Backend::Program(Program::new(Vec::new()))];
        for backend in others.into_iter().chain(models).chain(none) {
            assert_eq!(check(&with(backend.clone()), &paths), [], "{backend:?}");
        }
    }

    #[test]
    fn missing_device_node_names_the_kernel_option() {
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
