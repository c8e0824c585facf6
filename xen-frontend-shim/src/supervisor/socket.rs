// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets at which a program listens: one that the supervisor makes, or one that the program makes itself.
//!
//! A program makes its socket in a directory of its own, which belongs to root and to the group of its user.
//! The supervisor has no right to override permissions, and the mode of the socket is up to the program. So
//! the supervisor connects as the program's user, which may always connect.
//!
//! The program controls what is in its directory. The supervisor therefore uses nothing there but a socket of
//! the program's user, and follows no link: another guest's backend could be behind it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use confinement::{User, with_effective};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{getegid, geteuid};

/// The name of the socket in its directory.
const NAME: &str = "socket";
/// The names that a program gives its socket: some append the number of the device, of which they have one.
const NAMES: [&str; 2] = [NAME, "socket0"];

/// The directory in which a program makes its socket.
#[derive(Debug)]
pub(super) struct SocketDirectory {
    path: PathBuf,
    uid: u32,
    gid: u32,
}

impl SocketDirectory {
    /// Makes the directory at `path` for a program of `user`, and removes a socket that a former process has
    /// left there.
    pub(super) fn prepare(path: PathBuf, user: Option<User>) -> io::Result<Self> {
        let uid = user.map_or(geteuid().as_raw(), User::uid);
        let gid = user.map_or(getegid().as_raw(), User::gid);
        let directory = Self { path, uid, gid };
        if !directory.exists()? {
            directory.make()?;
        }
        for name in NAMES {
            match fs::remove_file(directory.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(directory)
    }

    /// Whether it is there. One for another user is removed.
    fn exists(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() && found.gid() == self.gid => Ok(true),
            Ok(_) => fs::remove_dir(&self.path).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn make(&self) -> io::Result<()> {
        // A directory gets the group of the process that makes it: it could not be changed later.
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        with_effective(geteuid().as_raw(), self.gid, || builder.create(&self.path))??;
        fs::set_permissions(&self.path, Permissions::from_mode(0o770))
    }

    /// The path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path at which the program is to listen.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join(NAME)
    }

    /// Connects to the socket, without blocking. `None` while no program listens.
    pub(super) fn connect(&self) -> io::Result<Option<UnixStream>> {
        for name in NAMES {
            let found = match open(self.path.join(name), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                found => found?,
            };
            if !self.is_socket_of_program(&found)? {
                return Err(io::Error::other("this is no socket, or of another user"));
            }
            // This names the socket that was checked, whatever is at its path now.
            let path = format!("/proc/self/fd/{}", found.as_raw_fd());
            match with_effective(self.uid, self.gid, || connect_to(Path::new(&path)))? {
                // It does not listen yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                connected => return connected.map(Some),
            }
        }
        Ok(None)
    }

    fn is_socket_of_program(&self, file: &OwnedFd) -> io::Result<bool> {
        let status = fstat(file)?;
        Ok(FileType::from_raw_mode(status.st_mode) == FileType::Socket && status.st_uid == self.uid)
    }
}

/// Connects to `path` without blocking.
pub(super) fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A listening socket at which one connection waits, and the other end of that. Its path is removed: no other
/// process can connect.
pub(super) fn listen_at(path: &Path) -> io::Result<(UnixListener, UnixStream)> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let connected = connect_to(path);
    fs::remove_file(path)?;
    Ok((listener, connected?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory for another user if this is root, and the user.
    fn prepared(parent: &tempfile::TempDir) -> SocketDirectory {
        let user = if geteuid().is_root() { "10102:10103".parse().ok() } else { None };
        let traversable = Permissions::from_mode(0o711);
        fs::set_permissions(parent.path(), traversable).unwrap();
        SocketDirectory::prepare(parent.path().join("rng.sockets"), user).unwrap()
    }

    /// Acts as the program.
    fn as_program<T>(directory: &SocketDirectory, action: impl FnOnce() -> T) -> T {
        with_effective(directory.uid, directory.gid, action).unwrap()
    }

    fn listen(directory: &SocketDirectory, name: &str, mode: u32) -> UnixListener {
        let path = directory.path().join(name);
        as_program(directory, || {
            let listener = UnixListener::bind(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            listener
        })
    }

    #[test]
    fn socket_of_the_program_is_connected_whatever_its_mode_and_index() {
        for (name, mode) in [("socket", 0o755), ("socket", 0o700), ("socket0", 0o755), ("socket0", 0o777)] {
            let parent = tempfile::tempdir().unwrap();
            let directory = prepared(&parent);
            assert!(directory.connect().unwrap().is_none());
            let listener = listen(&directory, name, mode);
            let mut stream = directory.connect().unwrap().unwrap();
            listener.accept().unwrap().0.write_all(b"!").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn socket_that_is_left_is_removed_and_one_without_a_listener_is_waited_for() {
        let parent = tempfile::tempdir().unwrap();
        let directory = prepared(&parent);
        for name in NAMES {
            drop(listen(&directory, name, 0o755));
        }
        assert!(directory.connect().unwrap().is_none());
        let again = prepared(&parent);
        assert_eq!(fs::read_dir(again.path()).unwrap().count(), 0);
    }

    #[test]
    fn link_and_file_at_the_place_of_the_socket_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = prepared(&parent);
        let other = parent.path().join("other");
        let _listener = UnixListener::bind(&other).unwrap();
        as_program(&directory, || symlink(&other, directory.socket())).unwrap();
        assert!(directory.connect().is_err());
        let directory = prepared(&parent);
        as_program(&directory, || fs::write(directory.socket(), "")).unwrap();
        assert!(directory.connect().is_err());
    }

    #[test]
    fn directory_of_another_group_is_made_again() {
        let parent = tempfile::tempdir().unwrap();
        let directory = prepared(&parent);
        let found = fs::metadata(directory.path()).unwrap();
        assert_eq!((found.mode() & 0o777, found.uid()), (0o770, geteuid().as_raw()));
        assert_eq!(found.gid(), directory.gid);
        let path = directory.path().to_owned();
        let own = SocketDirectory::prepare(path.clone(), None).unwrap();
        assert_eq!(fs::metadata(path).unwrap().gid(), own.gid);
    }

    #[test]
    fn listening_socket_has_one_connection_and_no_path() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("listen");
        fs::write(&path, "").unwrap();
        let (listener, mut stream) = listen_at(&path).unwrap();
        listener.accept().unwrap().0.write_all(b"!").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        assert!(!path.exists());
    }
}
