// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The start of a backend's program, with the socket of its connection in its command.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping, FdMappingCollision};
use confinement::Enforcement;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, socket_with,
};
use shim_config::backend::{FD, LISTEN_FD, SOCKET};
use shim_config::{Confine, Program};
use thiserror::Error;

use super::process::{self, ChildProcess};
use super::socket::{SocketDirectory, listen_at};
use crate::launch::{Launch, find, title};

/// The number of the vhost-user socket in a program.
const SOCKET_FD: i32 = 3;
/// The number of the keep socket in a program, and the variable that names it: see [`keep_socket`].
const KEEP_FD: i32 = 4;
const KEEP_VARIABLE: &str = "KEEP_FD";

/// Reasons why a program is not started.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// The configuration names no program.
    #[error("the command is empty: the device's `backend` needs a program")]
    NoCommand,
    /// The program does not exist.
    #[error("cannot start {0}: there is no such program")]
    NoProgram(PathBuf),
    /// The command does not tell the program its socket.
    #[error(
        "the command needs one place for its socket: {FD} (a connected descriptor), {LISTEN_FD} (a listening \
         one) or {SOCKET} (a path at which it listens)"
    )]
    NoPlace,
    /// The program cannot be started.
    #[error("cannot start {0}: {1}")]
    Spawn(PathBuf, #[source] io::Error),
    /// The socket or its directory cannot be made.
    #[error("cannot make the socket of {0}: {1}")]
    Socket(PathBuf, #[source] io::Error),
    /// The descriptors of the program cannot be passed.
    #[error("cannot start {0}: {1}")]
    Fds(PathBuf, #[source] FdMappingCollision),
}

/// The place of its socket in a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Fd,
    ListenFd,
    Socket,
}

impl Place {
    const ALL: [(Self, &str); 3] = [(Self::Fd, FD), (Self::ListenFd, LISTEN_FD), (Self::Socket, SOCKET)];

    /// The only place of a command.
    fn of(command: &[String]) -> Option<(Self, &'static str)> {
        let count = |text| command.iter().map(|word| word.matches(text).count()).sum::<usize>();
        match Self::ALL.map(|(_, text)| count(text)) {
            [1, 0, 0] | [0, 1, 0] | [0, 0, 1] => Self::ALL.into_iter().find(|(_, text)| count(text) == 1),
            _ => None,
        }
    }
}

/// Whether a command has one place for its socket.
pub(crate) fn has_place(command: &[String]) -> bool {
    Place::of(command).is_some()
}

/// What a program is started with besides its configuration.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// The names of guest and device, for messages and the process list.
    pub(super) name: String,
    /// The path of the directory in which a program makes its socket. It need not exist.
    pub(super) sockets: PathBuf,
    /// What happens on a system call that the program may not make.
    pub(super) seccomp: Enforcement,
    /// The keep socket, which every process of this backend inherits: see [`keep_socket`].
    pub(super) kept: Option<OwnedFd>,
}

/// The connection to a program.
#[derive(Debug)]
pub(super) enum ProgramSocket {
    /// It is there.
    Connected(UnixStream),
    /// The program will listen in this directory.
    Awaited(SocketDirectory),
}

/// The parts of a connection before the program runs.
struct Prepared {
    socket: ProgramSocket,
    /// The word in the place of the socket.
    word: String,
    /// The descriptor of the program.
    passed: Option<OwnedFd>,
}

impl Surroundings {
    /// Starts `program`. It is to exit when its connection ends.
    pub(super) fn start(&mut self, program: &Program) -> Result<(ChildProcess, ProgramSocket), ProgramError> {
        let word = program.command.first().ok_or(ProgramError::NoCommand)?;
        let file = find(Path::new(word)).ok_or_else(|| ProgramError::NoProgram(word.into()))?;
        let (place, text) = Place::of(&program.command).ok_or(ProgramError::NoPlace)?;
        let made = self.prepare(place, program);
        let Prepared { socket, word, passed } =
            made.map_err(|error| ProgramError::Socket(file.clone(), error))?;
        let arguments = program.command.iter().skip(1).map(|argument| argument.replace(text, &word).into());
        let mut command = match &program.confine {
            Some(confine) => self.confined(confine, program, &file, arguments.collect(), &socket),
            None => self.unconfined(program, &file, arguments.collect()),
        };
        let failed = |error| ProgramError::Spawn(file.clone(), error);
        let mut mappings: Vec<_> = passed.map(|fd| mapping(fd, SOCKET_FD)).into_iter().collect();
        if program.confine.is_none() {
            command.env(KEEP_VARIABLE, KEEP_FD.to_string());
            mappings.push(mapping(self.keep_socket().map_err(failed)?, KEEP_FD));
        }
        command.fd_mappings(mappings).map_err(|error| ProgramError::Fds(file.clone(), error))?;
        Ok((ChildProcess::start(command).map_err(failed)?, socket))
    }

    fn prepare(&self, place: Place, program: &Program) -> io::Result<Prepared> {
        let number = SOCKET_FD.to_string();
        Ok(match place {
            Place::Fd => {
                let (ours, theirs) = UnixStream::pair()?;
                Prepared { socket: ProgramSocket::Connected(ours), word: number, passed: Some(theirs.into()) }
            }
            Place::ListenFd => {
                let (listener, ours) = listen_at(&self.sockets.with_extension("listen"))?;
                Prepared {
                    socket: ProgramSocket::Connected(ours),
                    word: number,
                    passed: Some(listener.into()),
                }
            }
            Place::Socket => {
                let directory = SocketDirectory::prepare(self.sockets.clone(), program.user)?;
                let word = directory.socket().display().to_string();
                Prepared { socket: ProgramSocket::Awaited(directory), word, passed: None }
            }
        })
    }

    /// The command of a program that this one confines first.
    fn confined(
        &self,
        confine: &Confine,
        program: &Program,
        file: &Path,
        arguments: Vec<OsString>,
        socket: &ProgramSocket,
    ) -> Command {
        let directory = match socket {
            ProgramSocket::Awaited(directory) => Some(directory.path().to_owned()),
            ProgramSocket::Connected(_) => None,
        };
        let launch = Launch {
            name: self.name.clone(),
            user: program.user,
            read: confine.read.clone(),
            write: confine.write.clone(),
            socket: directory,
            memory: confine.memory,
            open_files: confine.open_files,
            system_calls: confine.system_calls.clone(),
            seccomp: self.seccomp,
            command: std::iter::once(file.into()).chain(arguments).collect(),
        };
        launch.command()
    }

    /// The command of a program that confines itself.
    fn unconfined(&self, program: &Program, file: &Path, arguments: Vec<OsString>) -> Command {
        let mut command = Command::new(file);
        command.arg0(title(&self.name, file)).args(arguments);
        process::run_as(&mut command, program.user);
        command
    }

    fn keep_socket(&mut self) -> io::Result<OwnedFd> {
        match &self.kept {
            Some(kept) => kept.try_clone(),
            None => self.kept.insert(keep_socket()?).try_clone(),
        }
    }
}

fn mapping(parent_fd: OwnedFd, child_fd: i32) -> FdMapping {
    FdMapping { parent_fd, child_fd }
}

/// Creates a socket in which a program keeps descriptors for the next process of the same backend: a datagram
/// socket that is connected to itself. Messages stay in its queue when the program ends. Other sockets cannot
/// send to it, since it accepts messages of its peer only.
fn keep_socket() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new_unnamed())?;
    connect(&socket, &getsockname(&socket)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_has_one_place_for_its_socket() {
        let place = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
            Place::of(&words).map(|(place, _)| place)
        };
        assert_eq!(place(&["x", "--fd={fd}"]), Some(Place::Fd));
        assert_eq!(place(&["x", "--fd", "{listen-fd}"]), Some(Place::ListenFd));
        assert_eq!(place(&["x", "path={socket},cid=3"]), Some(Place::Socket));
        for words in [&["x"][..], &["x", "{fd}", "{socket}"], &["x", "{fd}{fd}"], &["x", "{sock}"]] {
            assert_eq!(place(words), None, "{words:?}");
        }
    }
}
