// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state directory and its lock.
//!
//! Workers and backends end when their supervisor ends. Until then they have guest pages mapped, event
//! channels bound and the hardware open, so the next supervisor must not start. Therefore they hold the lock
//! as well: a `flock` belongs to the open file, and they inherit a descriptor of it. The next supervisor
//! waits for the lock; after a time limit it kills the process group of the former supervisor.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal, getpgrp, kill_process_group};
use shim_config::LOCK_FILE;

use super::record;

/// The time that processes of a former supervisor have to end by themselves.
const END_LIMIT: Duration = Duration::from_secs(2);
/// The time that they have to end when they are killed: the kernel unmaps and closes.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// The lowest number of the inherited descriptor of the lock.
const INHERITED: i32 = 200;
/// The interval between two attempts to lock. The kernel has no wait for a lock with a time limit.
const INTERVAL: Duration = Duration::from_millis(10);

/// The locked state directory.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    /// Holds the lock while it or a duplicate of it is open.
    lock: File,
}

impl StateDirectory {
    /// Opens the directory at `path`, which is created if necessary, and waits until no former supervisor
    /// uses it.
    pub fn open(path: &Path) -> io::Result<Self> {
        make(path)?;
        let path_of_lock = path.join(LOCK_FILE);
        let mut owner = open(&path_of_lock)?;
        // Children inherit a descriptor for reading only: the file names the process group that the next
        // supervisor kills.
        let lock = File::open(&path_of_lock).map_err(|error| about(&path_of_lock, &error))?;
        take(&lock)?;
        owner.set_len(0)?;
        // The kernel does not reuse the number while a process of the group exists.
        write!(owner, "{}", getpgrp().as_raw_nonzero())?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Makes the lock persist while any program that is started from now on runs.
    pub fn persist_lock(&mut self) -> io::Result<()> {
        // The number is above those of descriptors that are passed to a program.
        let inherited = fcntl_dupfd_cloexec(&self.lock, INHERITED)?;
        fcntl_setfd(&inherited, FdFlags::empty())?;
        self.lock = inherited.into();
        Ok(())
    }

    /// The records of the guest `name`.
    pub fn guest(&self, name: &str) -> io::Result<GuestState> {
        let path = self.path.join(component(name)?);
        make(&path)?;
        Ok(GuestState { path })
    }
}

/// The records of one guest.
#[derive(Clone, Debug)]
pub struct GuestState {
    path: PathBuf,
}

impl GuestState {
    /// The file of the record of the guest's ioreq server.
    pub fn server(&self) -> io::Result<File> {
        open_record(&self.path.join("server"))
    }

    /// The file of a device's state record.
    pub fn transport(&self, device: &str) -> io::Result<File> {
        open_record(&self.file(device, "transport")?)
    }

    /// The file of a device's in-flight record.
    pub fn inflight(&self, device: &str) -> io::Result<File> {
        open(&self.file(device, "inflight")?)
    }

    /// The directory in which the program of a device makes its socket. It need not exist.
    pub fn sockets(&self, device: &str) -> io::Result<PathBuf> {
        self.file(device, "sockets")
    }

    /// Removes the records of a device.
    pub fn remove(&self, device: &str) -> io::Result<()> {
        for kind in ["transport", "inflight"] {
            match fs::remove_file(self.file(device, kind)?) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&self, device: &str, kind: &str) -> io::Result<PathBuf> {
        Ok(self.path.join(format!("{}.{kind}", component(device)?)))
    }
}

/// Checks that a name is one component of a path.
fn component(name: &str) -> io::Result<&str> {
    let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    let refusal = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} cannot be a file name: rename the guest or device"),
        )
    };
    is_plain.then_some(name).ok_or_else(refusal)
}

/// Creates a directory that only root can read: its records decide which ioreq server and state are used.
/// Others pass it to the sockets of their backends.
fn make(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.map_err(|error| about(path, &error))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| about(path, &error))
}

/// Opens the file of a record and allocates all of it, so that no later write fails for want of memory.
fn open_record(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    let allocated = fallocate(&file, FallocateFlags::empty(), 0, record::FILE_SIZE);
    allocated.map_err(|error| about(path, &error.into()))?;
    Ok(file)
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Takes the lock, if necessary by killing the processes that hold it.
fn take(mut lock: &File) -> io::Result<()> {
    if wait(lock, Duration::ZERO)? {
        return Ok(());
    }
    info!("waiting until the workers and backends of a former supervisor have ended");
    if wait(lock, END_LIMIT)? {
        return Ok(());
    }
    let mut text = String::new();
    lock.read_to_string(&mut text)?;
    let group = text.trim().parse().ok().and_then(Pid::from_raw);
    match group {
        // Both supervisors may have been started in one group: this one must not kill itself.
        Some(group) if group != getpgrp() => {
            warn!(
                "killing the workers and backends of a former supervisor (process group {})",
                group.as_raw_nonzero()
            );
            kill_process_group(group, Signal::KILL)?;
        }
        _ => {}
    }
    if wait(lock, KILL_LIMIT)? {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        "another supervisor uses the state directory: stop it first",
    ))
}

/// Takes the lock within `limit`. Returns whether it did.
fn wait(lock: &File, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() >= end => return Ok(false),
            Err(Errno::WOULDBLOCK) => thread::sleep(INTERVAL),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use command_fds::{CommandFdExt, FdMapping};

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        (directory, path)
    }

    #[test]
    fn directory_is_private_and_keeps_its_files() {
        let (_directory, path) = place();
        {
            let state = StateDirectory::open(&path).unwrap();
            let guest = state.guest("guest-a").unwrap();
            let mut file = guest.transport("i2c0").unwrap();
            file.write_all(b"x").unwrap();
            assert!(file.metadata().unwrap().blocks() * 512 >= record::FILE_SIZE);
            guest.inflight("i2c0").unwrap();
        }
        for directory in [path.clone(), path.join("guest-a")] {
            assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o711);
        }
        let guest = StateDirectory::open(&path).unwrap().guest("guest-a").unwrap();
        let mut first = [0];
        guest.transport("i2c0").unwrap().read_exact(&mut first).unwrap();
        assert_eq!(&first, b"x");
        guest.remove("i2c0").unwrap();
        guest.remove("i2c0").unwrap();
        assert_eq!(fs::read_dir(path.join("guest-a")).unwrap().count(), 0);
    }

    #[test]
    fn name_that_is_a_path_is_refused() {
        let (_directory, path) = place();
        let state = StateDirectory::open(&path).unwrap();
        for name in ["", ".", "..", "a/b", "/etc"] {
            assert!(state.guest(name).is_err(), "{name:?}");
            assert!(state.guest("guest-a").unwrap().transport(name).is_err(), "{name:?}");
        }
    }

    /// A process of another group that holds the lock as a child of a supervisor does.
    fn holder(state: StateDirectory, program: &str) -> std::process::Child {
        let mut child = Command::new("sh");
        child.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let parent_fd = state.lock.try_clone().unwrap().into();
        child.fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }]).unwrap();
        let child = child.spawn().unwrap();
        fs::write(state.path.join("lock"), child.id().to_string()).unwrap();
        child
    }

    #[test]
    fn inherited_lock_cannot_be_written() {
        let (_directory, path) = place();
        let state = StateDirectory::open(&path).unwrap();
        let mut inherited = state.lock.try_clone().unwrap();
        assert_eq!(inherited.write(b"1").unwrap_err().raw_os_error(), Some(Errno::BADF.raw_os_error()));
        assert!(inherited.set_len(0).is_err());
        assert_eq!(fs::read_to_string(path.join("lock")).unwrap(), getpgrp().as_raw_nonzero().to_string());
    }

    #[test]
    fn open_waits_until_the_holders_of_the_lock_end() {
        let (_directory, path) = place();
        let mut child = holder(StateDirectory::open(&path).unwrap(), "read line");
        let lock = open(&path.join("lock")).unwrap();
        assert!(!wait(&lock, Duration::from_millis(50)).unwrap());
        drop(child.stdin.take());
        take(&lock).unwrap();
        assert!(child.wait().unwrap().code().is_some(), "it was not killed");
    }

    #[test]
    fn persisted_lock_is_held_by_a_child() {
        let (_directory, path) = place();
        let mut state = StateDirectory::open(&path).unwrap();
        state.persist_lock().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        drop(state);
        let lock = open(&path.join("lock")).unwrap();
        assert!(!wait(&lock, Duration::ZERO).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        // A program that another test started meanwhile may have inherited it.
        assert!(wait(&lock, Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn holder_of_the_lock_that_does_not_end_is_killed() {
        let (_directory, path) = place();
        let mut child =
            holder(StateDirectory::open(&path).unwrap(), "trap '' TERM; while :; do read line; done");
        StateDirectory::open(&path).unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it was killed");
    }
}
