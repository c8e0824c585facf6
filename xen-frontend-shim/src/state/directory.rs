// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state directory: of one supervisor at a time, and only when nothing of the one before is left.
//!
//! A supervisor that was killed leaves workers and backends, which end when they find that it is gone. Until then they
//! have the guest's pages mapped, the event channels bound and the hardware open. All of them hold the lock that the
//! supervisor took, without doing anything for it: it belongs to an open file, of which they inherit a descriptor. The
//! next supervisor waits for the lock, and kills whoever does not let go of it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal, getpgrp, kill_process_group};
use shim_config::LOCK_FILE;

/// How long what a former supervisor has started may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How long it may take to end when it is killed: the kernel unmaps and closes.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// The lowest number that the lock may have in the programs that inherit it.
const INHERITED: i32 = 200;
/// How often the lock is tried. There is no event to wait for that could be bounded.
const INTERVAL: Duration = Duration::from_millis(10);

/// The state of all guests, locked.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    /// It has the lock while it or a copy of it is open.
    lock: File,
}

impl StateDirectory {
    /// Opens the directory at `path`, made if it is not there, as soon as nobody else uses it.
    pub fn open(path: &Path) -> io::Result<Self> {
        make(path)?;
        let path_of_lock = path.join(LOCK_FILE);
        let mut owner = open(&path_of_lock)?;
        // What is inherited cannot be written: the next supervisor kills the process group that it reads there.
        let lock = File::open(&path_of_lock).map_err(|error| about(&path_of_lock, &error))?;
        take(&lock)?;
        owner.set_len(0)?;
        // A number that no other group gets while one of ours is left.
        write!(owner, "{}", getpgrp().as_raw_nonzero())?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Leaves the lock to all programs that are started from now on, which must be gone before the next supervisor begins.
    pub fn bequeath(&mut self) -> io::Result<()> {
        // A number that no descriptor gets which a program is given on purpose.
        let inherited = fcntl_dupfd_cloexec(&self.lock, INHERITED)?;
        fcntl_setfd(&inherited, FdFlags::empty())?;
        self.lock = inherited.into();
        Ok(())
    }

    /// The state of the guest of this name.
    pub fn guest(&self, name: &str) -> io::Result<GuestState> {
        let path = self.path.join(component(name)?);
        make(&path)?;
        Ok(GuestState { path })
    }
}

/// The state of one guest.
#[derive(Clone, Debug)]
pub struct GuestState {
    path: PathBuf,
}

impl GuestState {
    /// The file of which ioreq server is the guest's.
    pub fn server(&self) -> io::Result<File> {
        open(&self.path.join("server"))
    }

    /// The file of what a device's driver has said.
    pub fn transport(&self, device: &str) -> io::Result<File> {
        open(&self.file(device, "transport")?)
    }

    /// The file of which requests of a device are in flight.
    pub fn inflight(&self, device: &str) -> io::Result<File> {
        open(&self.file(device, "inflight")?)
    }

    /// Forgets a device.
    pub fn forget(&self, device: &str) -> io::Result<()> {
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

/// A name that is one component of a path.
fn component(name: &str) -> io::Result<&str> {
    let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    let refusal =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} cannot be the name of a file"));
    is_plain.then_some(name).ok_or_else(refusal)
}

/// A directory for root only: what is in it decides what is mapped and executed.
fn make(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| about(path, &error))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| about(path, &error))
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Takes the lock from whoever has it.
fn take(mut lock: &File) -> io::Result<()> {
    if wait(lock, Duration::ZERO)? {
        return Ok(());
    }
    info!("waiting for what a former supervisor has left behind to end");
    if wait(lock, END_LIMIT)? {
        return Ok(());
    }
    let mut text = String::new();
    lock.read_to_string(&mut text)?;
    let group = text.trim().parse().ok().and_then(Pid::from_raw);
    match group {
        // Never oneself: whoever started this one may have started the other in the same group.
        Some(group) if group != getpgrp() => {
            warn!(
                "killing what a former supervisor (process group {}) has left behind",
                group.as_raw_nonzero()
            );
            kill_process_group(group, Signal::KILL)?;
        }
        _ => {}
    }
    if wait(lock, KILL_LIMIT)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "another supervisor uses the state directory: end it first"))
}

/// Whether the lock could be had within `limit`.
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
    use std::os::unix::fs::PermissionsExt;
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
    fn it_is_made_for_its_owner_only_and_keeps_what_is_written() {
        let (_directory, path) = place();
        {
            let state = StateDirectory::open(&path).unwrap();
            let guest = state.guest("guest-a").unwrap();
            guest.transport("i2c0").unwrap().write_all(b"x").unwrap();
            guest.inflight("i2c0").unwrap();
        }
        for directory in [path.clone(), path.join("guest-a")] {
            assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
        }
        let guest = StateDirectory::open(&path).unwrap().guest("guest-a").unwrap();
        let mut text = String::new();
        guest.transport("i2c0").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        guest.forget("i2c0").unwrap();
        guest.forget("i2c0").unwrap();
        assert_eq!(fs::read_dir(path.join("guest-a")).unwrap().count(), 0);
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let (_directory, path) = place();
        let state = StateDirectory::open(&path).unwrap();
        for name in ["", ".", "..", "a/b", "/etc"] {
            assert!(state.guest(name).is_err(), "{name:?}");
            assert!(state.guest("guest-a").unwrap().transport(name).is_err(), "{name:?}");
        }
    }

    /// A process of another group that holds the lock as the children of a supervisor do, until its input ends.
    fn left_behind(state: StateDirectory, program: &str) -> std::process::Child {
        let mut child = Command::new("sh");
        child.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let parent_fd = state.lock.try_clone().unwrap().into();
        child.fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }]).unwrap();
        let child = child.spawn().unwrap();
        fs::write(state.path.join("lock"), child.id().to_string()).unwrap();
        child
    }

    #[test]
    fn what_inherits_the_lock_cannot_say_whom_the_next_one_kills() {
        let (_directory, path) = place();
        let state = StateDirectory::open(&path).unwrap();
        let mut inherited = state.lock.try_clone().unwrap();
        assert_eq!(inherited.write(b"1").unwrap_err().raw_os_error(), Some(Errno::BADF.raw_os_error()));
        assert!(inherited.set_len(0).is_err());
        assert_eq!(fs::read_to_string(path.join("lock")).unwrap(), getpgrp().as_raw_nonzero().to_string());
    }

    #[test]
    fn the_next_one_waits_until_nothing_of_the_former_is_left() {
        let (_directory, path) = place();
        let mut child = left_behind(StateDirectory::open(&path).unwrap(), "read line");
        let lock = open(&path.join("lock")).unwrap();
        assert!(!wait(&lock, Duration::from_millis(50)).unwrap());
        drop(child.stdin.take());
        take(&lock).unwrap();
        assert!(child.wait().unwrap().code().is_some(), "it was not killed");
    }

    #[test]
    fn the_lock_is_inherited_without_being_handed_over() {
        let (_directory, path) = place();
        let mut state = StateDirectory::open(&path).unwrap();
        state.bequeath().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        drop(state);
        let lock = open(&path.join("lock")).unwrap();
        assert!(!wait(&lock, Duration::ZERO).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        // Another test may have started a program meanwhile, which has inherited it as well.
        assert!(wait(&lock, Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn what_does_not_end_by_itself_is_killed() {
        let (_directory, path) = place();
        let mut child =
            left_behind(StateDirectory::open(&path).unwrap(), "trap '' TERM; while :; do read line; done");
        StateDirectory::open(&path).unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it was killed");
    }
}
