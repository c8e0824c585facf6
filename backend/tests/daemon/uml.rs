// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemons with Linux's vhost-user frontend (`arch/um/drivers/virtio_uml.c`) and its drivers for I2C and
//! GPIO, in a kernel that runs as a program of this machine.
//!
//! That kernel mounts the files of this machine read-only as its root, and starts this test program as its
//! init process, which runs the test [`guest`].

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gpiocdev_uapi::v2::{
    LineConfig, LineFlags, LineRequest, LineValues, get_line, get_line_values, set_line_values,
};
use i2cdev::core::{I2CMessage, I2CTransfer};
use i2cdev::linux::{I2CMessageFlags, LinuxI2CBus, LinuxI2CMessage};
use rustix::mount::{MountFlags, mount};

use crate::board::{Board, until};
use crate::i2c::{BOARD as I2C, THERMOMETER};

/// The kernel, built by `scripts/artefacts uml`.
const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/artefacts/linux-uml");
/// If this is set, as by `scripts/test`, the kernel must exist.
const REQUIRED: &str = "XBA_REQUIRE_UML";

const GPIO: &str = r#"
    [gpio]
    lines = ["led", "mirror"]
    wires = [[0, 1]]
"#;

/// Device IDs (virtio 1.3, 5).
const ID_I2C: u16 = 34;
const ID_GPIO: u16 = 41;

/// A running kernel, which is killed when this is dropped.
struct Kernel(Child);

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn linux_as_a_program_drives_both_devices() {
    if !Path::new(KERNEL).exists() {
        assert!(std::env::var_os(REQUIRED).is_none(), "there is no {KERNEL}: run scripts/artefacts uml");
        eprintln!("skipped: there is no {KERNEL}; scripts/artefacts uml makes it");
        return;
    }
    let boards = [
        (Board::listen("i2c", I2C, &["--allow", "0x48"]), ID_I2C),
        (Board::listen("gpio", GPIO, &[]), ID_GPIO),
    ];
    let init = std::env::current_exe().expect("this program");
    let mut command = Command::new(KERNEL);
    command.args(["mem=64M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "con0=fd:0,fd:1"]);
    for (board, id) in &boards {
        drop(board.connect());
        command.arg(format!("virtio_uml.device={}:{id}", board.socket_path().display()));
    }
    command.arg(format!("init={}", init.display()));
    command.args(["--", "--ignored", "--exact", "--nocapture", "--test-threads=1", "uml::guest"]);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut kernel = Kernel(spawned.expect("a kernel"));
    let output = BufReader::new(kernel.0.stdout.take().expect("a console"));
    let mut console = String::new();
    let is_end = |line: &String| line.contains("test result:") || line.contains("Kernel panic");
    for line in output.lines().map_while(Result::ok) {
        console += &line;
        console.push('\n');
        if is_end(&line) {
            break;
        }
    }
    assert!(console.contains("test result: ok. 1 passed"), "{console}");
    let [(i2c, _), (gpio, _)] = &boards;
    assert_eq!(i2c.journal().len(), ROUNDS);
    assert!(gpio.journal().iter().any(|entry| entry["event"] == "value" && entry["value"] == 1));
}

/// Number of times that each driver is bound.
const ROUNDS: usize = 3;

#[test]
#[ignore = "runs in the kernel that the other test starts"]
fn guest() {
    let mounted = |from, to, kind| mount(from, to, kind, MountFlags::empty(), None).expect("a file system");
    mounted("devtmpfs", "/dev", "devtmpfs");
    mounted("sysfs", "/sys", "sysfs");
    for round in 0..ROUNDS {
        if round > 0 {
            // The queues are disabled, and set up again elsewhere without a stop.
            bind_again("i2c_virtio");
            bind_again("gpio_virtio");
        }
        assert_eq!(temperature(), [0x17, 0x80], "round {round}");
        assert_eq!(mirrored(), [true, false], "round {round}");
    }
}

/// Unbinds a driver from its device and binds it again.
fn bind_again(driver: &str) {
    let driver = Path::new("/sys/bus/virtio/drivers").join(driver);
    let entries = fs::read_dir(&driver).expect("a driver").map_while(Result::ok);
    let device =
        entries.map(|entry| entry.file_name()).find(|name| name.to_string_lossy().starts_with("virtio"));
    let device = device.expect("a device").into_string().expect("a name");
    fs::write(driver.join("unbind"), &device).expect("a device to unbind");
    fs::write(driver.join("bind"), &device).expect("a device to bind");
}

fn temperature() -> [u8; 2] {
    let mut bus = until("there is an adapter", || LinuxI2CBus::new("/dev/i2c-0").ok());
    let mut temperature = [0; 2];
    let mut messages = [
        LinuxI2CMessage::write(&[0]).with_address(THERMOMETER),
        LinuxI2CMessage::read(&mut temperature).with_address(THERMOMETER).with_flags(I2CMessageFlags::READ),
    ];
    bus.transfer(&mut messages).expect("a transfer");
    temperature
}

/// Drives one line high and low, and returns the levels of another one that is wired to it.
fn mirrored() -> [bool; 2] {
    let chip = until("there is a chip", || fs::File::open("/dev/gpiochip0").ok());
    let line = |offset, flags| {
        let config = LineConfig { flags, ..LineConfig::default() };
        let mut request = LineRequest { config, num_lines: 1, ..LineRequest::default() };
        request.offsets.set(0, offset);
        get_line(&chip, request).expect("a line")
    };
    let (led, mirror) = (line(0, LineFlags::OUTPUT), line(1, LineFlags::INPUT));
    [true, false].map(|level| {
        set_line_values(&led, &LineValues::from_slice(&[level])).expect("an output");
        let mut values = LineValues { bits: 0, mask: 1 };
        get_line_values(&mirror, &mut values).expect("an input");
        values.get(0).expect("a level")
    })
}
