// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Finds a device of the kernel by a number, a name, or a device-tree path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows the flattened device tree as directories.
const DEVICE_TREE: &str = "sys/firmware/devicetree/base";

/// A sysfs; tests use a directory of their own.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Sysfs {
    /// Returns the sysfs whose `sys` is in `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Returns the devices of `bus` (`i2c-3`, `gpiochip0`) in the order of their numbers.
    ///
    /// # Errors
    /// When the kernel has no such bus.
    pub fn devices(&self, bus: &str) -> io::Result<Vec<SysfsDevice>> {
        let directory = self.root.join("sys/bus").join(bus).join("devices");
        let mut devices = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                let path = fs::canonicalize(entry.path())?;
                devices.push(SysfsDevice { name, path });
            }
        }
        devices.sort_by_key(|device| (device.number(), device.name.clone()));
        Ok(devices)
    }

    /// Returns the number of parents between `device` and the one whose device-tree node is `path`: 0 for its
    /// own node. The adapter of a virtio transport has no node, for example, but the transport has.
    #[must_use]
    pub fn distance(&self, device: &SysfsDevice, path: &str) -> Option<usize> {
        let root = fs::canonicalize(&self.root).ok()?;
        let tree = fs::canonicalize(root.join(DEVICE_TREE)).ok()?;
        let wanted = tree.join(path.trim_start_matches('/'));
        device
            .path
            .ancestors()
            .take_while(|parent| *parent != root)
            .position(|parent| fs::canonicalize(parent.join("of_node")).is_ok_and(|node| node == wanted))
    }
}

/// A device in sysfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysfsDevice {
    /// The last component of its path.
    pub name: String,
    /// Its directory, without symbolic links.
    pub path: PathBuf,
}

impl SysfsDevice {
    /// Returns the number at the end of its name.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        let digits = self.name.rsplit(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    /// Returns the device, its parent, the parent of that, and so on.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        self.path.ancestors().filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(Self { name, path: path.to_owned() })
        })
    }

    /// Returns a property of its device-tree node, if that is a `<u32>` (Devicetree Specification, 2.2.4).
    #[must_use]
    pub fn cell(&self, property: &str) -> Option<u32> {
        let bytes = fs::read(self.path.join("of_node").join(property)).ok()?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// Returns the content of an attribute, without the line end.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.path.join(name)).ok()?;
        Some(text.trim_end().to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Creates a virtio I2C adapter below a transport that has a node in the device tree.
    fn board() -> (tempfile::TempDir, Sysfs) {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().join("sys");
        let node = sys.join("firmware/devicetree/base/passthrough/virtio@a003e00");
        let transport = sys.join("devices/platform/a003e00.virtio");
        let adapter = transport.join("virtio0/i2c-3");
        let bus = sys.join("bus/i2c/devices");
        for directory in [&node, &adapter, &bus] {
            fs::create_dir_all(directory).unwrap();
        }
        symlink("../../../firmware/devicetree/base/passthrough/virtio@a003e00", transport.join("of_node"))
            .unwrap();
        symlink("../../../devices/platform/a003e00.virtio/virtio0/i2c-3", bus.join("i2c-3")).unwrap();
        fs::write(adapter.join("name"), "i2c_virtio at virtio bus 0\n").unwrap();
        let sysfs = Sysfs::below(root.path());
        (root, sysfs)
    }

    #[test]
    fn an_adapter_is_found_by_the_node_of_its_transport() {
        let (_root, sysfs) = board();
        let devices = sysfs.devices("i2c").unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].number(), Some(3));
        assert_eq!(devices[0].attribute("name").unwrap(), "i2c_virtio at virtio bus 0");
        assert_eq!(sysfs.distance(&devices[0], "/passthrough/virtio@a003e00"), Some(2));
        assert_eq!(sysfs.distance(&devices[0], "/passthrough/virtio@a003c00"), None);
        assert_eq!(sysfs.distance(&devices[0], "/passthrough"), None);
    }

    #[test]
    fn a_bus_that_does_not_exist_is_an_error() {
        let (_root, sysfs) = board();
        assert!(sysfs.devices("spi").is_err());
    }
}
