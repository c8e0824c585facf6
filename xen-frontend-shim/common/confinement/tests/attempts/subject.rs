// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The subjects of attempts: the roles, confined as the programs confine themselves.
#![allow(clippy::expect_used)]

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use confinement::role::backend::{BackendRole, Hardware, Memory};
use confinement::role::program::ProgramRole;
use confinement::role::supervisor;
use confinement::role::worker::WorkerRole;
use confinement::{Enforcement, Error, User};

/// The user of the workers.
const UID: u32 = 10002;
/// The user of the programs of other projects.
const PROGRAM_UID: u32 = 10102;

/// The calls of a listed program.
const LIST: &[&str] = &["fcntl", "futex", "madvise", "openat", "read", "statx"];

/// A process that makes attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Simulated,
    I2c,
    Gpio,
    Console,
    I2cOnXen,
    /// A backend of a guest on Xen that has no grants.
    I2cWithoutGrants,
    /// A backend whose system calls are not restricted.
    Loose,
    Worker,
    /// The worker of a guest that has no grants.
    WorkerWithoutGrants,
    /// A worker, in a thread that existed before the list was enforced.
    Threaded,
    /// A worker whose system calls are not restricted.
    LooseWorker,
    /// A program of another project.
    Program,
    /// Such a program with a directory to write.
    Writer,
    /// Such a program with a list of system calls.
    Listed,
    /// Such a program whose system calls are not restricted.
    LooseProgram,
    Supervisor,
    /// A supervisor whose system calls are not restricted.
    LooseSupervisor,
}

const SUBJECTS: &[Subject] = &[
    Subject::Simulated,
    Subject::I2c,
    Subject::Gpio,
    Subject::Console,
    Subject::I2cOnXen,
    Subject::I2cWithoutGrants,
    Subject::Loose,
    Subject::Worker,
    Subject::WorkerWithoutGrants,
    Subject::Threaded,
    Subject::LooseWorker,
    Subject::Program,
    Subject::Writer,
    Subject::Listed,
    Subject::LooseProgram,
    Subject::Supervisor,
    Subject::LooseSupervisor,
];

impl Subject {
    pub(crate) fn named(name: &str) -> Option<Self> {
        SUBJECTS.iter().copied().find(|subject| format!("{subject:?}") == name)
    }

    /// Starts a backend or a program as root, a worker as its guest's user.
    pub(crate) fn start_as(self, command: &mut Command, directory: &Path) -> io::Result<()> {
        if self.worker().is_some() {
            command.uid(UID).gid(UID);
            chown(directory, Some(UID), Some(UID))?;
        }
        if self.program(directory).is_some() {
            chown(directory, Some(PROGRAM_UID), Some(PROGRAM_UID))?;
        }
        Ok(())
    }

    fn enforcement(self) -> Enforcement {
        match self {
            Self::Loose | Self::LooseWorker | Self::LooseProgram | Self::LooseSupervisor => Enforcement::Off,
            _ => Enforcement::On,
        }
    }

    fn worker(self) -> Option<WorkerRole> {
        let maps_ram = self == Self::WorkerWithoutGrants;
        matches!(self, Self::Worker | Self::WorkerWithoutGrants | Self::Threaded | Self::LooseWorker)
            .then_some(WorkerRole { logs_to_file: false, maps_ram })
    }

    fn program(self, directory: &Path) -> Option<ProgramRole> {
        let list = || LIST.iter().map(|&name| name.to_owned()).collect();
        matches!(self, Self::Program | Self::Writer | Self::Listed | Self::LooseProgram).then(|| {
            ProgramRole {
                user: User::new(PROGRAM_UID, PROGRAM_UID).ok(),
                read: vec![directory.join("file")],
                write: if self == Self::Writer { vec![directory.join("own")] } else { Vec::new() },
                socket: Some(directory.join("sockets")),
                memory: None,
                open_files: None,
                system_calls: (self == Self::Listed).then(list),
                logs_to_file: false,
            }
        })
    }

    fn backend(self) -> Option<BackendRole> {
        let (hardware, memory) = match self {
            Self::Simulated => (Hardware::Simulated, Memory::Shared),
            Self::I2c | Self::Loose => (Hardware::I2c, Memory::Shared),
            Self::Gpio => (Hardware::Gpio, Memory::Shared),
            Self::Console => (Hardware::None, Memory::Shared),
            Self::I2cOnXen => (Hardware::I2c, Memory::Granted),
            Self::I2cWithoutGrants => (Hardware::I2c, Memory::Foreign),
            _ => return None,
        };
        // A user without other processes, since the kernel counts the processes of a user.
        let number = 100_000 + std::process::id();
        Some(BackendRole { user: User::new(number, number).ok(), hardware, memory, logs_to_file: false })
    }

    /// Confines the process and makes the attempt.
    pub(crate) fn confined<T: Send + 'static>(
        self,
        directory: &Path,
        attempt: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(backend) = self.backend() {
            backend.enter()?;
            backend.enforce(self.enforcement())?;
            return Ok(attempt());
        }
        if let Some(program) = self.program(directory) {
            program.enter(self.enforcement())?;
            return Ok(attempt());
        }
        let Some(worker) = self.worker() else {
            supervisor::confine(self.enforcement())?;
            return Ok(attempt());
        };
        worker.enter()?;
        if self != Self::Threaded {
            worker.enforce(self.enforcement())?;
            return Ok(attempt());
        }
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv().map(|()| attempt()));
        worker.enforce(self.enforcement())?;
        go.send(()).expect("a thread that waits");
        Ok(thread.join().expect("a thread").expect("a message"))
    }
}
