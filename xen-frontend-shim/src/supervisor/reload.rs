// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Another configuration for a guest that runs: what of it can be had.
//!
//! A device that a driver uses stays as it is. A driver cannot be told that its device has become another one, and it has
//! buffers on the way. So a device is removed or changed while no driver has it, and one that is new is added. Devices that are as
//! they were wanted are not touched: neither they nor what serves them is told.

use shim_config::{Device, WINDOW_SIZE};

/// The devices that a guest gets, and why others are not as they were wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) devices: Vec<Device>,
    pub(super) refusals: Vec<String>,
}

/// Whether a device that takes the place of another is the same one to the guest, which knows it already and needs not find it
/// anew: Linux acknowledges a device once, and not again when a driver comes (virtio 1.3, 3.1.1).
pub(super) fn is_same_to_guest(one: &Device, other: &Device) -> bool {
    let known = |device: &Device| (device.name.clone(), device.device_id, device.base, device.irq);
    known(one) == known(other)
}

/// What becomes of the devices that there `are` when others are `wanted`.
pub(super) fn merge(are: &[Device], wanted: &[Device], is_used: impl Fn(&Device) -> bool) -> Merged {
    let mut merged = Merged::default();
    for device in are {
        if wanted.contains(device) {
            merged.devices.push(device.clone());
        } else if is_used(device) {
            merged
                .refusals
                .push(format!("{} stays as it is: its driver uses it; unbind that first", device.name));
            merged.devices.push(device.clone());
        }
    }
    for device in wanted.iter().filter(|device| !are.contains(device)) {
        match merged.devices.iter().find(|other| collide(device, other)) {
            // That was reported above.
            Some(other) if other.name == device.name => {}
            Some(other) => {
                let reason = format!(
                    "{} is not added: it has name, registers or interrupt of {}",
                    device.name, other.name
                );
                merged.refusals.push(reason);
            }
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
    use shim_config::Backend;

    fn device(name: &str, place: u32, word: &str) -> Device {
        Device {
            name: name.into(),
            device_id: 34,
            base: 0x200_0000 + u64::from(place) * WINDOW_SIZE,
            irq: 33 + place,
            queues: 1,
            user: None,
            backend: Backend::Command(vec![word.into()]),
        }
    }

    fn names(merged: &Merged) -> Vec<&str> {
        merged.devices.iter().map(|device| device.name.as_str()).collect()
    }

    #[test]
    fn unused_devices_come_go_and_change() {
        let are = [device("a", 0, "x"), device("b", 1, "x")];
        let wanted = [device("b", 1, "y"), device("c", 2, "x")];
        let merged = merge(&are, &wanted, |_| false);
        assert_eq!((merged.devices.as_slice(), merged.refusals.len()), (wanted.as_slice(), 0));
    }

    #[test]
    fn a_device_is_the_same_to_its_guest_whoever_serves_it() {
        let one = device("a", 0, "x");
        assert!(is_same_to_guest(&one, &Device { queues: 2, ..device("a", 0, "y") }));
        for other in [device("b", 0, "x"), device("a", 1, "x"), Device { device_id: 41, ..one.clone() }] {
            assert!(!is_same_to_guest(&one, &other), "{other:?}");
        }
    }

    #[test]
    fn used_devices_stay_as_they_are() {
        let are = [device("a", 0, "x"), device("b", 1, "x"), device("c", 2, "x")];
        let wanted = [device("b", 1, "y"), device("c", 2, "x"), device("d", 3, "x")];
        let merged = merge(&are, &wanted, |device| device.name != "c");
        assert_eq!(names(&merged), ["a", "b", "c", "d"]);
        assert_eq!(merged.devices[1], are[1]);
        assert_eq!(merged.refusals.len(), 2, "{merged:?}");
    }

    #[test]
    fn what_is_added_cannot_take_the_place_of_what_stays() {
        let are = [device("a", 0, "x")];
        for place in [device("b", 0, "x"), Device { irq: 33, ..device("b", 5, "x") }] {
            let merged = merge(&are, &[place], |_| true);
            assert_eq!((names(&merged), merged.refusals.len()), (vec!["a"], 2));
        }
    }
}
