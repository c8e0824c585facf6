// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The start of a program that does not confine itself: `xen-frontend-shim confine … -- PROGRAM`.
//!
//! ```text
//!   supervisor ── starts ──▶ this program, confine ── role `program` ──▶ executes the backend's program
//! ```
//!
//! The process is confined before the program's first instruction, and the supervisor runs no code of its own
//! between fork and execution. The command can also be typed, to see what a program lacks.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use confinement::role::program::ProgramRole;
use confinement::{Enforcement, User};
use thiserror::Error;

/// The subcommand.
const WORD: &str = "confine";

/// A program, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Launch {
    /// The guest and the device that it serves, for the log and the process list
    #[arg(long, default_value = "confine")]
    pub name: String,
    /// The user that it becomes, as UID:GID
    #[arg(long)]
    pub user: Option<User>,
    /// A path that it reads, with all below it
    #[arg(long)]
    pub read: Vec<PathBuf>,
    /// A path that it reads and changes, with all below it
    #[arg(long)]
    pub write: Vec<PathBuf>,
    /// The directory in which it makes its socket
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// The private memory that it may use, in bytes
    #[arg(long)]
    pub memory: Option<u64>,
    /// The number of files that it may have open
    #[arg(long)]
    pub open_files: Option<u64>,
    /// The system calls that it may make, separated by commas. Without this it may make most
    #[arg(long, value_delimiter = ',')]
    pub system_calls: Option<Vec<String>>,
    /// What happens on other system calls
    #[arg(long, value_name = "MODE", default_value_t)]
    pub seccomp: Enforcement,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Reasons why a program is not started.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// There is no program.
    #[error("cannot start {0}: there is no such program")]
    NoProgram(PathBuf),
    /// The process cannot be confined.
    #[error("cannot confine {0}: {1}")]
    Confinement(PathBuf, #[source] confinement::Error),
    /// The program cannot be executed.
    #[error(
        "cannot start {0}: {1} (its user has to be able to execute it; a program with a loader and libraries \
         needs these in `read`)"
    )]
    Execute(PathBuf, #[source] io::Error),
}

impl Launch {
    /// The command that starts this program to confine itself and to execute the program.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(format!("xen-frontend-shim: {}", self.name)).args(self.arguments());
        command
    }

    fn arguments(&self) -> Vec<OsString> {
        let option = |name: &str, value: OsString| {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            word
        };
        let mut words = vec![WORD.into(), option("name", self.name.clone().into())];
        words.extend(self.user.map(|user| option("user", user.to_string().into())));
        words.extend(self.read.iter().map(|path| option("read", path.into())));
        words.extend(self.write.iter().map(|path| option("write", path.into())));
        words.extend(self.socket.iter().map(|path| option("socket", path.into())));
        words.extend(self.memory.map(|bytes| option("memory", bytes.to_string().into())));
        words.extend(self.open_files.map(|count| option("open-files", count.to_string().into())));
        words.extend(self.system_calls.iter().map(|names| option("system-calls", names.join(",").into())));
        words.push(option("seccomp", self.seccomp.to_string().into()));
        words.push("--".into());
        words.extend(self.command.iter().cloned());
        words
    }

    /// Confines this process and executes the program. Returns only if that fails.
    #[must_use]
    pub fn execute(self) -> LaunchError {
        let mut words = self.command.into_iter();
        let word = words.next().unwrap_or_default();
        let Some(program) = find(Path::new(&word)) else { return LaunchError::NoProgram(word.into()) };
        let role = ProgramRole {
            user: self.user,
            read: self.read.into_iter().chain([program.clone()]).collect(),
            write: self.write,
            socket: self.socket,
            memory: self.memory,
            open_files: self.open_files,
            system_calls: self.system_calls,
            logs_to_file: logging::is_to_file(),
        };
        if let Err(error) = role.enter(self.seccomp) {
            return LaunchError::Confinement(program, error);
        }
        let error = Command::new(&program).arg0(title(&self.name, &program)).args(words).exec();
        LaunchError::Execute(program, error)
    }
}

/// The name of `program` in the process list. A program may take its own name from behind the last slash.
pub fn title(name: &str, program: &Path) -> OsString {
    let slash = if program.is_absolute() { "" } else { "/" };
    format!("{name}:{slash}{}", program.display()).into()
}

/// The places where a program may be. A name without a slash is searched in PATH.
pub fn candidates(program: &Path) -> Vec<PathBuf> {
    if program.components().count() != 1 || program.is_absolute() {
        return vec![program.to_owned()];
    }
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&search).map(|directory| directory.join(program)).collect()
}

/// The file of a program.
pub fn find(program: &Path) -> Option<PathBuf> {
    candidates(program).into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        launch: Launch,
    }

    #[test]
    fn arguments_are_parsed_as_they_were_written() {
        let least = Launch {
            name: "guest-a/rng".into(),
            user: None,
            read: Vec::new(),
            write: Vec::new(),
            socket: None,
            memory: None,
            open_files: None,
            system_calls: None,
            seccomp: Enforcement::On,
            command: vec!["/usr/bin/vhost-device-rng".into()],
        };
        let most = Launch {
            user: "10100:10101".parse().ok(),
            read: vec!["/dev/hwrng".into(), "/a b".into()],
            write: vec!["/var/-x".into()],
            socket: Some("/run/s".into()),
            memory: Some(1 << 20),
            open_files: Some(64),
            system_calls: Some(vec!["read".into(), "write".into()]),
            seccomp: Enforcement::Log,
            command: vec!["rng".into(), "--socket-path=/run/s/socket".into(), "--".into(), "-x".into()],
            ..least.clone()
        };
        for launch in [least, most] {
            // The parser takes the first word for the name of the program.
            let parsed = Arguments::try_parse_from(launch.arguments()).unwrap().launch;
            assert_eq!(parsed, launch);
        }
    }

    #[test]
    fn program_without_a_slash_is_searched_in_the_path() {
        assert!(find(Path::new("sh")).is_some_and(|path| path.is_absolute() && path.ends_with("sh")));
        assert_eq!(find(Path::new("no-such-program")), None);
        assert_eq!(candidates(Path::new("/no/such")), [PathBuf::from("/no/such")]);
        assert_eq!(candidates(Path::new("no/such")), [PathBuf::from("no/such")]);
    }
}
