// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration of the shim: devices and the commands of their backends.

use shim_config::{Backend, Config, Device, Guest};

use super::ramdisk::BACKEND;
use crate::board::Hardware;
use crate::manifest::{Line, Target};
use crate::plan::{DRIVER_DOMID, DevicePlan, Function, GuestPlan, Plan};

/// The directory of the locks by which backends take turns. They make a directory in it for their guest
/// before they change to its user.
const TURNS: &str = "/run/i2c-turns";

/// Makes the shim's configuration.
pub fn shim(plan: &Plan<'_>) -> Config {
    let guests = plan.guests.iter().map(|guest| Guest {
        name: guest.guest.name.value.clone(),
        domid: guest.domid,
        user: Some(guest.user),
        device: guest.devices.iter().map(|planned| device(planned, guest)).collect(),
    });
    Config { domid: DRIVER_DOMID, guest: guests.collect() }
}

fn device(device: &DevicePlan<'_>, guest: &GuestPlan<'_>) -> Device {
    Device {
        name: device.name.to_owned(),
        device_id: device.function.device_id(),
        base: device.base,
        irq: device.irq,
        queues: device.function.queues(),
        // Our backends open their hardware as root, and then change their user by themselves.
        user: None,
        backend: Backend::Command(command(device, guest)),
    }
}

fn command(device: &DevicePlan<'_>, guest: &GuestPlan<'_>) -> Vec<String> {
    let mut words = match &device.function {
        Function::I2c { adapter, targets } => {
            let mut words = i2c(adapter, targets);
            words.extend(turns(guest).map(|directory| format!("--turns={directory}")));
            words
        }
        Function::Gpio { lines } => gpio(lines),
    };
    words.extend(["--user".to_owned(), guest.user.to_string()]);
    words.extend(device.busy_poll.map(|microseconds| format!("--busy-poll={microseconds}")));
    words
}

/// The directory of the locks of a guest's I2C backends, if there are several: hardware of several names can
/// be parts of one bus.
fn turns(guest: &GuestPlan<'_>) -> Option<String> {
    let adapters = guest.devices.iter().filter(|device| matches!(device.function, Function::I2c { .. }));
    (adapters.count() > 1).then(|| format!("{TURNS}/{}", guest.guest.name.value))
}

fn i2c(adapter: &Hardware, targets: &[Target]) -> Vec<String> {
    let allowed: Vec<_> = targets.iter().map(|target| format!("{:#04x}", target.address.value)).collect();
    let words = [BACKEND, "i2c", "--adapter", &path(adapter), "--allow", &allowed.join(",")];
    words.map(str::to_owned).to_vec()
}

fn gpio(lines: &[(&Hardware, &Line)]) -> Vec<String> {
    let mut words = vec![BACKEND.to_owned(), "gpio".to_owned()];
    for (chip, line) in lines {
        words.extend(["--line".to_owned(), line_argument(chip, line)]);
    }
    words
}

/// A line on the backend's command line: `CHIP:OFFSET[=NAME][,OPTION]...`.
fn line_argument(chip: &Hardware, line: &Line) -> String {
    let mut word = format!("{}:{}", escape(&path(chip)), line.line.value);
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

/// The hardware's path in the driver domain's device tree, by which the backend finds it.
fn path(hardware: &Hardware) -> String {
    format!("/passthrough/{}", hardware.node.value)
}
