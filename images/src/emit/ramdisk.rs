// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ramdisks: cpio archives in the kernel's `newc` format, compressed. The same content gives the same bytes.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context;
use cpio::newc::{Builder, ModeFileType, trailer};
use flate2::{Compression, GzBuilder};

/// A ramdisk that is being put together.
#[derive(Debug, Default)]
pub struct Ramdisk {
    /// By path, without the leading slash: sorted, a directory comes before what is in it.
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Directory,
    File { content: Vec<u8>, mode: u32 },
    Link { target: String },
    Device { major: u32, minor: u32 },
}

impl Ramdisk {
    /// A ramdisk with busybox in it, and with the one device that the kernel opens before any program can make it.
    pub fn new(busybox: Vec<u8>) -> Self {
        let mut ramdisk = Self::default();
        ramdisk.add("/dev/console", Entry::Device { major: 5, minor: 1 });
        ramdisk.program("/bin/busybox", busybox);
        ramdisk.link("/bin/sh", "busybox");
        for mount_point in ["/proc", "/sys", "/run", "/tmp"] {
            ramdisk.add(mount_point, Entry::Directory);
        }
        ramdisk
    }

    /// Adds a program.
    pub fn program(&mut self, path: &str, content: Vec<u8>) {
        self.add(path, Entry::File { content, mode: 0o755 });
    }

    /// Adds a file that is not a program.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.add(path, Entry::File { content: content.into(), mode: 0o644 });
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, Entry::Link { target: target.to_owned() });
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        for (slash, _) in path.match_indices('/') {
            let parent = path.get(..slash).unwrap_or_default();
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The compressed archive.
    ///
    /// # Errors
    ///
    /// A file is larger than the format allows.
    pub fn into_bytes(self) -> anyhow::Result<Vec<u8>> {
        // Neither a time nor a name goes into the compressed file's header.
        let mut archive = GzBuilder::new().write(Vec::new(), Compression::best());
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            archive = entry.write(path, inode, archive).with_context(|| format!("cannot add /{path}"))?;
        }
        Ok(trailer(archive)?.finish()?)
    }
}

impl Entry {
    fn write<W: Write>(&self, path: &str, inode: u32, archive: W) -> anyhow::Result<W> {
        let header = Builder::new(path).ino(inode);
        let (header, content) = match self {
            Self::Directory => {
                let header = header.mode(0o755).nlink(2).set_mode_file_type(ModeFileType::Directory);
                (header, [].as_slice())
            }
            Self::File { content, mode } => {
                (header.mode(*mode).set_mode_file_type(ModeFileType::Regular), content.as_slice())
            }
            Self::Link { target } => {
                (header.mode(0o777).set_mode_file_type(ModeFileType::Symlink), target.as_bytes())
            }
            Self::Device { major, minor } => {
                let header = header.mode(0o600).set_mode_file_type(ModeFileType::Char);
                (header.rdev_major(*major).rdev_minor(*minor), [].as_slice())
            }
        };
        let mut writer = header.write(archive, u32::try_from(content.len())?);
        writer.write_all(content)?;
        Ok(writer.finish()?)
    }
}

/// What the driver domain's first process does. busybox's init keeps what it starts running, and starts a program
/// without a shell if its line needs none.
pub fn inittab(console: &[String]) -> String {
    let mut lines = vec![
        "::sysinit:/bin/busybox mount -t proc proc /proc".to_owned(),
        "::sysinit:/bin/busybox mount -t sysfs sysfs /sys".to_owned(),
        "::sysinit:/bin/busybox mount -t devtmpfs devtmpfs /dev".to_owned(),
        format!("::respawn:{SHIM} run {SHIM_CONFIG}"),
    ];
    if !console.is_empty() {
        lines.push(format!("ttyAMA0::respawn:{}", console.join(" ")));
    }
    lines.join("\n") + "\n"
}

/// Where the shim is in the driver domain.
pub const SHIM: &str = "/usr/bin/xen-frontend-shim";

/// Where its configuration is.
pub const SHIM_CONFIG: &str = "/etc/xen-frontend-shim.toml";
