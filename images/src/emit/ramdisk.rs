// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ramdisks: compressed cpio archives in the `newc` format. The same content gives the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use cpio::newc::{Builder, ModeFileType, trailer};
use flate2::{Compression, GzBuilder};

use super::accounts::{GROUP, PASSWD};
use crate::error::Error;

/// The path of busybox in every ramdisk.
pub const BUSYBOX: &str = "/bin/busybox";

/// The path of the shell that scripts use.
pub const SHELL: &str = "/bin/sh";

/// The path of the shim in the driver domain.
pub const SHIM: &str = "/usr/bin/xen-frontend-shim";

/// The path of the shim's configuration.
pub const SHIM_CONFIG: &str = "/etc/xen-frontend-shim.toml";

/// The path of the backends, one program, in the driver domain.
pub const BACKEND: &str = "/usr/bin/backend";

/// The files of the driver domain's ramdisk that a manifest cannot replace. It can replace `/etc/inittab` and
/// the shim's configuration, to start other programs and other backends.
pub const OWN_FILES: [&str; 7] = ["/init", PASSWD, GROUP, BUSYBOX, SHELL, SHIM, BACKEND];

/// The content of a ramdisk.
#[derive(Debug, Default)]
pub struct Ramdisk {
    /// By path, without the leading slash. In this order a directory comes before its files.
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
    /// A ramdisk with busybox, mount points, and the device node that the kernel opens before it starts a
    /// program.
    pub fn new(busybox: Vec<u8>) -> Self {
        let mut ramdisk = Self::default();
        ramdisk.add("/dev/console", Entry::Device { major: 5, minor: 1 });
        ramdisk.program(BUSYBOX, busybox);
        ramdisk.link(SHELL, "busybox");
        for mount_point in ["/proc", "/sys", "/run", "/tmp"] {
            ramdisk.add(mount_point, Entry::Directory);
        }
        ramdisk
    }

    /// Adds an executable file.
    pub fn program(&mut self, path: &str, content: Vec<u8>) {
        self.add(path, Entry::File { content, mode: 0o755 });
    }

    /// Adds a file that is not executable.
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
    pub fn into_bytes(self) -> Result<Vec<u8>, Error> {
        // The header of the compressed file has neither a time nor a name.
        let mut archive = GzBuilder::new().write(Vec::new(), Compression::best());
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            archive =
                entry.write(path, inode, archive).map_err(|error| Error::Ramdisk(path.clone(), error))?;
        }
        Ok(trailer(archive)?.finish()?)
    }
}

impl Entry {
    fn write<W: Write>(&self, path: &str, inode: u32, archive: W) -> io::Result<W> {
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
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut writer = header.write(archive, size);
        writer.write_all(content)?;
        writer.finish()
    }
}

/// The inittab of the driver domain. busybox's init restarts a program of `respawn` when it ends.
pub fn inittab(console: &[&str]) -> String {
    let mounts = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")];
    let mut lines: Vec<_> = mounts
        .iter()
        .map(|(kind, place)| format!("::sysinit:{BUSYBOX} mount -t {kind} {kind} {place}"))
        .collect();
    // Open for writing only: the backends inherit it, and must not read the console's input.
    lines.push(format!("::respawn:{SHIM} run {SHIM_CONFIG} >/dev/console 2>&1"));
    if !console.is_empty() {
        lines.push(format!("ttyAMA0::respawn:{}", console.join(" ")));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use cpio::newc::Reader;
    use flate2::read::GzDecoder;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut ramdisk = Ramdisk::new(b"busybox".to_vec());
        ramdisk.file("/etc/deep/inittab", inittab(&["/usr/bin/agent", "--quiet"]));
        ramdisk.into_bytes().unwrap()
    }

    /// Path, mode, inode and content of each entry.
    fn entries(archive: &[u8]) -> Vec<(String, u32, u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        GzDecoder::new(archive).read_to_end(&mut bytes).unwrap();
        let mut rest = bytes.as_slice();
        let mut entries = Vec::new();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let (name, mode, inode) =
                (reader.entry().name().to_owned(), reader.entry().mode(), reader.entry().ino());
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            entries.push((name, mode, inode, content));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn same_content_gives_same_bytes() {
        assert_eq!(sample(), sample());
    }

    /// The kernel unpacks in order, and loses a file whose directory comes later.
    #[test]
    fn directory_comes_before_its_files() {
        let names: Vec<_> = entries(&sample()).into_iter().map(|(name, ..)| name).collect();
        for (index, name) in names.iter().enumerate() {
            if let Some((parent, _)) = name.rsplit_once('/') {
                assert!(names[..index].iter().any(|before| before == parent), "{name} before {parent}");
            }
        }
    }

    #[test]
    fn entries_have_the_given_type_and_content() {
        let entries = entries(&sample());
        let find = |wanted: &str| entries.iter().find(|(name, ..)| name == wanted).unwrap();
        assert_eq!(find("bin/busybox").1, 0o100_755);
        assert_eq!(find("bin/busybox").3, b"busybox");
        assert_eq!(find("bin/sh").1, 0o120_777);
        assert_eq!(find("bin/sh").3, b"busybox");
        assert_eq!(find("dev/console").1, 0o020_600);
        assert_eq!(find("etc/deep").1, 0o040_755);
        assert_eq!(find("etc/deep/inittab").1, 0o100_644);
    }

    /// Entries with the same inode number would be hard links of one file.
    #[test]
    fn each_entry_has_its_own_inode_number() {
        let mut inodes: Vec<_> = entries(&sample()).into_iter().map(|(_, _, inode, _)| inode).collect();
        inodes.dedup();
        assert_eq!(inodes.len(), entries(&sample()).len());
    }

    #[test]
    fn inittab_respawns_the_shim_and_an_optional_console_program() {
        assert!(inittab(&[]).ends_with(
            "::respawn:/usr/bin/xen-frontend-shim run /etc/xen-frontend-shim.toml >/dev/console 2>&1\n"
        ));
        assert!(inittab(&["/usr/bin/agent", "-q"]).ends_with("ttyAMA0::respawn:/usr/bin/agent -q\n"));
    }
}
