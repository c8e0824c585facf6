// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What serves a device: a program that the shim starts, or a socket at which another program serves.

use std::path::PathBuf;

use confinement::User;
use serde::{Deserialize, Serialize};

/// The place in a command of the number of a connected socket.
pub const FD: &str = "{fd}";
/// The place in a command of the number of a listening socket.
pub const LISTEN_FD: &str = "{listen-fd}";
/// The place in a command of the path at which the program is to listen.
pub const SOCKET: &str = "{socket}";

/// What serves a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Backend {
    /// A vhost-user backend program that the shim starts.
    Program(Program),
    /// The socket of a vhost-user backend that is started by another program.
    Socket(PathBuf),
}

/// A vhost-user backend program that the shim starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Program {
    /// The words of the command. Exactly one place of [`FD`], [`LISTEN_FD`] or [`SOCKET`].
    pub command: Vec<String>,
    /// The user to start the program as: for a program that does not change its user by itself and opens no
    /// file of root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// The confinement of the program. `None`: it confines itself, as those of this project do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confine: Option<Confine>,
}

/// What a program that does not confine itself may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Confine {
    /// Paths below which it may read and execute, besides its own program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<PathBuf>,
    /// Paths below which it may also write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<PathBuf>,
    /// The largest amount of memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The largest number of open files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// The names of the system calls that it may make. `None`: all that are not forbidden to every backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_calls: Option<Vec<String>>,
}

impl Program {
    /// A program that confines itself and is started as root.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self { command, ..Self::default() }
    }
}
