// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Finds the adapter that the operator names.

use anyhow::{Context, bail};

use crate::sysfs::{Sysfs, SysfsDevice};

/// Returns the number of the adapter that `wanted` names: `3`, `i2c-3`, the adapter's name, or the
/// device-tree path of the adapter or of a device that it is part of.
pub(super) fn find(sysfs: &Sysfs, wanted: &str) -> anyhow::Result<u32> {
    let devices = sysfs
        .devices("i2c")
        .context("this kernel shows no I2C adapters (CONFIG_I2C, and CONFIG_I2C_CHARDEV to use them)")?;
    let adapters: Vec<(u32, SysfsDevice)> =
        devices.into_iter().filter_map(|device| Some((adapter_number(&device)?, device))).collect();
    let mut matching: Vec<(usize, u32)> = adapters
        .iter()
        .filter_map(|(number, device)| Some((distance(sysfs, *number, device, wanted)?, *number)))
        .collect();
    matching.sort_unstable();
    match matching.as_slice() {
        [(_, number)] => Ok(*number),
        // Behind a multiplexer an adapter is part of another: the nearer one is meant.
        [(nearest, number), (next, _), ..] if nearest < next => Ok(*number),
        [] => bail!("there is no I2C adapter {wanted:?}; there {}", list(&adapters)),
        _ => bail!(
            "more than one I2C adapter is {wanted:?}: name one by its number; there {}",
            list(&adapters)
        ),
    }
}

/// Returns the name of the adapter that has the bus of adapter `number`, and the frequency of that bus in
/// hertz, if it is in the device tree. Adapters behind multiplexers are parts of the one that has the bus.
pub(super) fn bus(sysfs: &Sysfs, number: u32) -> anyhow::Result<(String, Option<u32>)> {
    let devices = sysfs.devices("i2c")?;
    let adapter = devices.iter().find(|device| adapter_number(device) == Some(number));
    let adapter = adapter.with_context(|| format!("adapter {number} no longer exists"))?;
    let is_adapter = |device: &SysfsDevice| adapter_number(device).is_some();
    let root = adapter.ancestors().filter(is_adapter).last().unwrap_or_else(|| adapter.clone());
    // The adapter of some controllers has no node of its own; the controller has.
    let frequency = root.ancestors().take(2).find_map(|device| device.cell("clock-frequency"));
    Ok((root.name, frequency))
}

/// Returns the number of an adapter: `i2c-3` is one, `3-0048` is a target with a kernel driver.
fn adapter_number(device: &SysfsDevice) -> Option<u32> {
    device.name.strip_prefix("i2c-")?.parse().ok()
}

/// Returns the number of parents between this adapter and the device that `wanted` names, if it is one of
/// them.
fn distance(sysfs: &Sysfs, number: u32, device: &SysfsDevice, wanted: &str) -> Option<usize> {
    if wanted.starts_with('/') {
        return sysfs.distance(device, wanted);
    }
    let named = wanted == device.name || device.attribute("name").is_some_and(|name| name == wanted);
    (named || wanted.parse() == Ok(number)).then_some(0)
}

fn list(adapters: &[(u32, SysfsDevice)]) -> String {
    if adapters.is_empty() {
        return "is none".to_owned();
    }
    let line = |(number, device): &(u32, SysfsDevice)| {
        format!("{number} ({})", device.attribute("name").unwrap_or_default())
    };
    format!("is {}", adapters.iter().map(line).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn adapter(sys: &Path, below: &str, name: &str, title: &str) {
        let directory = sys.join("devices").join(below).join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::create_dir_all(sys.join("bus/i2c/devices")).unwrap();
        fs::write(directory.join("name"), format!("{title}\n")).unwrap();
        symlink(&directory, sys.join("bus/i2c/devices").join(name)).unwrap();
    }

    /// Creates two transports with an adapter each, and a multiplexer behind the second.
    fn board() -> (tempfile::TempDir, Sysfs) {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().join("sys");
        for (place, node) in [("a.virtio", "virtio@a"), ("b.virtio", "virtio@b")] {
            let node = sys.join("firmware/devicetree/base").join(node);
            fs::create_dir_all(&node).unwrap();
            fs::create_dir_all(sys.join("devices").join(place)).unwrap();
            symlink(node, sys.join("devices").join(place).join("of_node")).unwrap();
        }
        adapter(&sys, "a.virtio/virtio0", "i2c-0", "first");
        adapter(&sys, "b.virtio/virtio1", "i2c-1", "same");
        adapter(&sys, "b.virtio/virtio1/i2c-1/1-0070", "i2c-2", "same");
        adapter(&sys, "b.virtio/virtio1/i2c-1", "1-0070", "pca9548");
        let sysfs = Sysfs::below(root.path());
        (root, sysfs)
    }

    #[test]
    fn an_adapter_is_found_by_number_name_or_node() {
        let (_root, sysfs) = board();
        let find = |wanted| find(&sysfs, wanted).unwrap();
        assert_eq!(find("2"), 2);
        assert_eq!(find("i2c-1"), 1);
        assert_eq!(find("first"), 0);
        assert_eq!(find("/virtio@a"), 0);
        assert_eq!(find("/virtio@b"), 1, "not the one behind the multiplexer");
    }

    #[test]
    fn the_bus_is_that_of_the_adapter_before_all_multiplexers() {
        let (root, sysfs) = board();
        assert_eq!(bus(&sysfs, 2).unwrap(), ("i2c-1".to_owned(), None));
        let sys = root.path().join("sys");
        let set_clock = |node: &str, hertz: u32| {
            let file = sys.join("firmware/devicetree/base").join(node).join("clock-frequency");
            fs::write(file, hertz.to_be_bytes()).unwrap();
        };
        // The controller is the parent of its adapter, which may have the node as well.
        adapter(&sys, "b.virtio", "i2c-3", "direct");
        set_clock("virtio@b", 10_000);
        assert_eq!(bus(&sysfs, 3).unwrap(), ("i2c-3".to_owned(), Some(10_000)));
        fs::create_dir_all(sys.join("firmware/devicetree/base/i2c@c")).unwrap();
        symlink(sys.join("firmware/devicetree/base/i2c@c"), sys.join("devices/b.virtio/i2c-3/of_node"))
            .unwrap();
        set_clock("i2c@c", 400_000);
        assert_eq!(bus(&sysfs, 3).unwrap().1, Some(400_000));
        adapter(&sys, "b.virtio/i2c-3", "i2c-4", "channel");
        assert_eq!(bus(&sysfs, 4).unwrap(), ("i2c-3".to_owned(), Some(400_000)));
    }

    #[test]
    fn a_missing_adapter_is_an_error_that_lists_the_others() {
        let (_root, sysfs) = board();
        let error = find(&sysfs, "7").unwrap_err().to_string();
        assert_eq!(error, r#"there is no I2C adapter "7"; there is 0 (first), 1 (same), 2 (same)"#);
        assert!(find(&sysfs, "pca9548").is_err(), "a target is not an adapter");
        assert!(find(&sysfs, "same").unwrap_err().to_string().starts_with("more than one"));
    }
}
