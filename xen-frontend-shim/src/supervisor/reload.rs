// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The comparison of a guest's devices with those of a new configuration.
//!
//! A device that a driver uses does not change: virtio cannot tell a driver that its device has become
//! another one, and requests are in flight. A device that no driver uses is removed or changed, and new
//! devices are added. Devices whose configuration is the same are not touched, nor are their backends.

use shim_config::{Device, WINDOW_SIZE};

/// The devices that a guest gets, and the reasons why others stay or are not added.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) devices: Vec<Device>,
    pub(super) refusals: Vec<String>,
}

/// Whether the guest takes `other` in the place of `one` for the same device. Linux acknowledges a device
/// once, and does not do so again for a new driver (virtio 1.3, 3.1.1), so the state record of such a device
/// stays.
pub(super) fn is_same_to_guest(one: &Device, other: &Device) -> bool {
    let identity = |device: &Device| (device.name.clone(), device.device_id, device.base, device.irq);
    identity(one) == identity(other)
}

/// Merges the `current` devices with those that are `wanted`.
pub(super) fn merge(current: &[Device], wanted: &[Device], is_used: impl Fn(&Device) -> bool) -> Merged {
    let mut merged = Merged::default();
    for device in current {
        if wanted.contains(device) {
            merged.devices.push(device.clone());
        } else if is_used(device) {
            let refusal = format!("{} stays as it is: its driver uses it; unbind that first", device.name);
            merged.refusals.push(refusal);
            merged.devices.push(device.clone());
        }
    }
    for device in wanted.iter().filter(|device| !current.contains(device)) {
        match merged.devices.iter().find(|other| collide(device, other)) {
            // The refusal of this device is there already.
            Some(other) if other.name == device.name => {}
            Some(other) => merged.refusals.push(format!(
                "{} is not added: it has name, registers or interrupt of {}",
                device.name, other.name
            )),
            None => merged.devices.push(device.clone()),
        }
    }
    merged
}

fn collide(one: &Device, other: &Device) -> bool {
    one.name == other.name || one.irq == other.irq || one.base.abs_diff(other.base) < WINDOW_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim_config::{Backend, Program};

    fn device(name: &str, place: u32, word: &str) -> Device {
        let base = 0x200_0000 + u64::from(place) * WINDOW_SIZE;
        let backend = Backend::Program(Program::new(vec![word.into()]));
        Device::new(name.into(), 34, 1, base, 33 + place, backend)
    }

    fn names(merged: &Merged) -> Vec<&str> {
        merged.devices.iter().map(|device| device.name.as_str()).collect()
    }

    #[test]
    fn unused_devices_are_added_removed_and_changed() {
        let current = [device("a", 0, "x"), device("b", 1, "x")];
        let wanted = [device("b", 1, "y"), device("c", 2, "x")];
        let merged = merge(&current, &wanted, |_| false);
        assert_eq!((merged.devices.as_slice(), merged.refusals.len()), (wanted.as_slice(), 0));
    }

    #[test]
    fn device_with_another_backend_is_the_same_to_the_guest() {
        let one = device("a", 0, "x");
        assert!(is_same_to_guest(&one, &Device { queues: 2, ..device("a", 0, "y") }));
        for other in [device("b", 0, "x"), device("a", 1, "x"), Device { device_id: 41, ..one.clone() }] {
            assert!(!is_same_to_guest(&one, &other), "{other:?}");
        }
    }

    #[test]
    fn used_devices_do_not_change() {
        let current = [device("a", 0, "x"), device("b", 1, "x"), device("c", 2, "x")];
        let wanted = [device("b", 1, "y"), device("c", 2, "x"), device("d", 3, "x")];
        let merged = merge(&current, &wanted, |device| device.name != "c");
        assert_eq!(names(&merged), ["a", "b", "c", "d"]);
        assert_eq!(merged.devices[1], current[1]);
        assert_eq!(merged.refusals.len(), 2, "{merged:?}");
    }

    #[test]
    fn device_that_collides_with_one_that_stays_is_not_added() {
        let current = [device("a", 0, "x")];
        for place in [device("b", 0, "x"), Device { irq: 33, ..device("b", 5, "x") }] {
            let merged = merge(&current, &[place], |_| true);
            assert_eq!((names(&merged), merged.refusals.len()), (vec!["a"], 2));
        }
    }
}
