// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Attempts of each role: what it must not do kills the process or fails, and what it has to do succeeds.
//!
//! Each attempt is a process: this program starts itself again, confines itself as a role does, and makes the
//! attempt. Two layers are tested separately: the list of system calls kills; without that list users, limits
//! and Landlock refuse. The remaining rights of each role are compared with what the kernel reports.

mod attempt;
mod outside;
mod subject;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use landlock::{ABI, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::io::Errno;
use rustix::process::geteuid;

use subject::Subject;

const SIGABRT: i32 = 6;
const SIGXFSZ: i32 = 25;
const SIGSYS: i32 = 31;

/// The result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Refused(Errno),
    Killed(i32),
}

use End::{Done, Killed, Refused};

const KILLED: End = Killed(SIGSYS);

/// An attempt, the subjects that make it, and the expected result.
type Promise = (&'static str, &'static [Subject], End);

use Subject::{
    Console, Gpio, I2c, I2cOnXen, I2cWithoutGrants, Listed, Loose, LooseProgram, LooseSupervisor,
    LooseWorker, Program, Simulated, Supervisor, Threaded, Worker, WorkerWithoutGrants, Writer,
};

const BACKENDS: &[Subject] = &[Simulated, I2c, Gpio, Console, I2cOnXen];
const WORKERS: &[Subject] = &[Worker, Threaded];
const ALL: &[Subject] = &[Simulated, I2c, Gpio, Console, I2cOnXen, Worker, Threaded];
/// Processes of a guest that has no grants.
const WITHOUT_GRANTS: &[Subject] = &[I2cWithoutGrants, WorkerWithoutGrants];
/// Subjects whose list of system calls is not enforced, which leaves the other layers.
const UNLISTED: &[Subject] = &[Loose, LooseWorker];
/// Programs of other projects that may make most system calls.
const PROGRAMS: &[Subject] = &[Program, LooseProgram];

const PROMISES: &[Promise] = &[
    // Files, programs, tracing, mounts.
    ("open-a-file", ALL, KILLED),
    ("open-a-file", UNLISTED, Refused(Errno::ACCESS)),
    ("list-a-directory", UNLISTED, Refused(Errno::ACCESS)),
    ("make-a-file", UNLISTED, Refused(Errno::ACCESS)),
    ("execute", ALL, KILLED),
    ("execute", UNLISTED, Refused(Errno::ACCESS)),
    ("start-a-program", ALL, KILLED),
    ("start-a-program", &[Loose], Refused(Errno::AGAIN)),
    ("start-a-thread", ALL, KILLED),
    ("start-a-thread", &[Loose], Refused(Errno::AGAIN)),
    ("trace", ALL, KILLED),
    ("trace-its-parent", UNLISTED, Refused(Errno::PERM)),
    ("mount", ALL, KILLED),
    ("mount", UNLISTED, Refused(Errno::PERM)),
    // Other processes.
    ("kill-its-parent", ALL, KILLED),
    ("kill-its-parent", UNLISTED, Refused(Errno::PERM)),
    ("kill-its-parent-by-pidfd", ALL, KILLED),
    ("kill-its-parent-by-pidfd", UNLISTED, Refused(Errno::PERM)),
    // Regaining rights.
    ("become-root", ALL, KILLED),
    ("become-root", UNLISTED, Refused(Errno::PERM)),
    ("regain-capabilities", UNLISTED, Refused(Errno::PERM)),
    ("raise-a-limit", ALL, KILLED),
    ("raise-a-limit", UNLISTED, Refused(Errno::PERM)),
    ("be-dumpable", ALL, KILLED),
    // New connections.
    ("make-a-socket", ALL, KILLED),
    ("connect-to-the-network", ALL, KILLED),
    ("connect-to-the-network", UNLISTED, Refused(Errno::ACCESS)),
    ("connect-to-an-abstract-socket", UNLISTED, Refused(Errno::PERM)),
    ("make-a-pair-of-sockets", BACKENDS, KILLED),
    ("make-a-pair-of-sockets", WORKERS, Done),
    // Requests of devices.
    ("ioctl-of-a-terminal", ALL, KILLED),
    ("ioctl-hypercall", ALL, KILLED),
    ("ioctl-map-foreign-pages", ALL, KILLED),
    ("ioctl-restrict", ALL, KILLED),
    // Requests that would extend a descriptor restricted to a guest.
    ("ioctl-map-a-resource", ALL, KILLED),
    ("ioctl-assign-an-ioeventfd", ALL, KILLED),
    ("ioctl-bind-a-static-channel", ALL, KILLED),
    ("ioctl-notify-when-unmapped", ALL, KILLED),
    // Requests that affect the whole adapter or chip.
    ("ioctl-i2c-retries", ALL, KILLED),
    ("ioctl-i2c-timeout", ALL, KILLED),
    ("ioctl-gpio-watch", ALL, KILLED),
    ("ioctl-dm-op", BACKENDS, KILLED),
    ("ioctl-dm-op", WORKERS, Refused(Errno::NOTTY)),
    ("ioctl-bind-a-channel", ALL, KILLED),
    ("ioctl-notify", BACKENDS, KILLED),
    ("ioctl-notify", WORKERS, Refused(Errno::NOTTY)),
    ("ioctl-grant-copy", &[Simulated, I2c, Gpio, Console], KILLED),
    ("ioctl-grant-copy", &[I2cOnXen, Worker], Refused(Errno::NOTTY)),
    // Processes of a guest without grants map its pages, and make no other request of the same descriptor.
    ("ioctl-map-foreign-pages", WITHOUT_GRANTS, Refused(Errno::NOTTY)),
    ("ioctl-grant-copy", &[I2cWithoutGrants], KILLED),
    ("ioctl-dm-op", &[I2cWithoutGrants], KILLED),
    ("ioctl-hypercall", WITHOUT_GRANTS, KILLED),
    ("ioctl-restrict", WITHOUT_GRANTS, KILLED),
    ("ioctl-map-a-resource", WITHOUT_GRANTS, KILLED),
    ("ioctl-assign-an-ioeventfd", WITHOUT_GRANTS, KILLED),
    ("ioctl-i2c-transfer", &[Simulated, Gpio, Console, Worker], KILLED),
    ("ioctl-i2c-transfer", &[I2c, I2cOnXen], Refused(Errno::NOTTY)),
    ("ioctl-i2c-slave-force", BACKENDS, KILLED),
    ("ioctl-gpio-line", &[Simulated, I2c, Console, I2cOnXen, Worker], KILLED),
    ("ioctl-gpio-line", &[Gpio], Refused(Errno::NOTTY)),
    // Executable memory.
    ("make-code-of-data", ALL, KILLED),
    ("map-code", ALL, KILLED),
    // Resources.
    ("take-many-descriptors", ALL, Refused(Errno::MFILE)),
    ("take-much-memory", ALL, Refused(Errno::NOMEM)),
    ("grow-a-file", &[I2c, Gpio, Console, Worker], Killed(SIGXFSZ)),
    // Programs of other projects: their paths.
    ("read-a-named-file", PROGRAMS, Done),
    ("write-a-file-that-is-named-to-read", PROGRAMS, Refused(Errno::ACCESS)),
    ("make-a-file-in-its-directory", &[Writer], Done),
    ("make-a-file-in-its-directory", PROGRAMS, Refused(Errno::ACCESS)),
    ("make-a-file-beside-its-socket", &[Program, Writer, LooseProgram], Refused(Errno::ACCESS)),
    ("replace-its-socket", PROGRAMS, Done),
    ("open-a-file", PROGRAMS, Refused(Errno::ACCESS)),
    ("list-a-directory", PROGRAMS, Refused(Errno::ACCESS)),
    ("make-a-file", PROGRAMS, Refused(Errno::ACCESS)),
    ("execute", PROGRAMS, Refused(Errno::ACCESS)),
    ("start-a-program", PROGRAMS, Refused(Errno::ACCESS)),
    // Their rights.
    ("start-a-thread", PROGRAMS, Done),
    ("trace", &[Program], Refused(Errno::PERM)),
    ("trace-its-parent", PROGRAMS, Refused(Errno::PERM)),
    ("mount", PROGRAMS, Refused(Errno::PERM)),
    ("make-a-namespace", &[Program], Refused(Errno::PERM)),
    ("start-a-process-in-a-namespace", &[Program], Refused(Errno::PERM)),
    ("kill-its-parent", PROGRAMS, Refused(Errno::PERM)),
    ("kill-its-parent-by-pidfd", PROGRAMS, Refused(Errno::PERM)),
    ("become-root", PROGRAMS, Refused(Errno::PERM)),
    ("regain-capabilities", PROGRAMS, Refused(Errno::PERM)),
    ("raise-a-limit", PROGRAMS, Refused(Errno::PERM)),
    ("make-a-socket", PROGRAMS, Done),
    ("make-a-socket-of-the-kernel", &[Program], Refused(Errno::PERM)),
    ("connect-to-the-network", &[Program], Refused(Errno::PERM)),
    ("connect-to-the-network", &[LooseProgram], Refused(Errno::ACCESS)),
    ("connect-to-an-abstract-socket", PROGRAMS, Refused(Errno::PERM)),
    ("take-many-descriptors", PROGRAMS, Refused(Errno::MFILE)),
    ("take-much-memory", PROGRAMS, Refused(Errno::NOMEM)),
    ("grow-a-file", PROGRAMS, Killed(SIGXFSZ)),
    ("grow-a-file", &[Writer], Done),
    // Their descriptors of Xen, of hardware and of the log.
    ("ioctl-hypercall", &[Program], Refused(Errno::PERM)),
    ("ioctl-dm-op", &[Program], Refused(Errno::PERM)),
    ("ioctl-map-a-resource", &[Program], Refused(Errno::PERM)),
    ("ioctl-assign-an-ioeventfd", &[Program], Refused(Errno::PERM)),
    ("ioctl-notify-when-unmapped", &[Program], Refused(Errno::PERM)),
    ("ioctl-of-a-terminal", &[Program], Refused(Errno::PERM)),
    ("ioctl-map-foreign-pages", &[Program], Refused(Errno::NOTTY)),
    ("ioctl-grant-copy", &[Program], Refused(Errno::NOTTY)),
    ("ioctl-i2c-transfer", &[Program], Refused(Errno::NOTTY)),
    // A list of their system calls.
    ("read-a-named-file", &[Listed], Done),
    ("open-a-file", &[Listed], Refused(Errno::ACCESS)),
    ("make-a-socket", &[Listed], KILLED),
    ("make-a-namespace", &[Listed], KILLED),
    ("start-a-thread", &[Listed], KILLED),
    // The supervisor.
    ("trace", &[Supervisor], KILLED),
    ("mount", &[Supervisor], KILLED),
    ("mount", &[LooseSupervisor], Refused(Errno::PERM)),
    ("start-a-program-that-mounts", &[LooseSupervisor], Refused(Errno::PERM)),
    ("make-a-node", &[Supervisor], Refused(Errno::PERM)),
    ("regain-capabilities", &[Supervisor], Done),
    ("gain-other-capabilities", &[Supervisor], Refused(Errno::PERM)),
    ("open-a-file", &[Supervisor], Done),
    ("start-a-program", &[Supervisor], Done),
    ("start-a-program-as-another-user", &[Supervisor], Done),
    ("start-a-program-that-is-bounded", &[Supervisor], Done),
    ("kill-a-process-of-another-user", &[Supervisor], Done),
    // Permitted work.
    ("serve", ALL, Done),
    ("serve", PROGRAMS, Done),
    ("accept", BACKENDS, Done),
    ("abort", ALL, Killed(SIGABRT)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, subject, attempt, directory] = arguments.as_slice()
        && word == "attempt"
    {
        return attempt::run(subject, attempt, Path::new(directory));
    }
    let attempts = PROMISES.iter().flat_map(|(attempt, subjects, end)| {
        subjects.iter().map(move |subject| trial(attempt, *subject, *end))
    });
    let left = outside::LEFT.iter().map(|left| {
        let trial = Trial::test(format!("what-is-left::{:?}", left.subject), || left.check());
        unless(obstacle(ABI::Unsupported), trial)
    });
    libtest_mimic::run(&Arguments::from_args(), attempts.chain(left).collect()).exit_code()
}

fn trial(attempt: &'static str, subject: Subject, expected: End) -> Trial {
    let trial = Trial::test(format!("{attempt}::{subject:?}"), move || {
        let end = perform(attempt, subject)?;
        if end == expected { Ok(()) } else { Err(format!("{end:?}, not {expected:?}").into()) }
    });
    unless(obstacle(landlock_for(attempt, subject)), trial)
}

/// Ignores a trial if there is an obstacle, which is shown before its name.
fn unless(obstacle: Option<String>, trial: Trial) -> Trial {
    match obstacle {
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        None => trial,
    }
}

/// The reason why a trial that needs this version of Landlock cannot be made.
fn obstacle(needed: ABI) -> Option<String> {
    // The roles are for processes that start as root.
    if !geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    // An older kernel has an older version of Landlock.
    (!kernel_has(needed)).then(|| format!("the kernel lacks version {needed} of Landlock"))
}

/// The version of Landlock that refuses an attempt.
fn landlock_for(attempt: &str, subject: Subject) -> ABI {
    match attempt {
        _ if ![UNLISTED, PROGRAMS, &[Listed, Writer]].concat().contains(&subject) => ABI::Unsupported,
        "connect-to-the-network" => ABI::V4,
        "connect-to-an-abstract-socket" => ABI::V6,
        _ => ABI::V1,
    }
}

fn kernel_has(abi: ABI) -> bool {
    let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let ruleset = match abi {
        ABI::Unsupported => return true,
        ABI::V6 => strict().scope(Scope::AbstractUnixSocket),
        ABI::V4 => strict().handle_access(AccessNet::ConnectTcp),
        _ => strict().handle_access(AccessFs::ReadFile),
    };
    ruleset.and_then(Ruleset::create).is_ok()
}

/// The command that runs this program as `subject` making `attempt`.
fn command(attempt: &str, subject: Subject, directory: &Path) -> io::Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["attempt", &format!("{subject:?}"), attempt]).arg(directory).stdin(Stdio::null());
    subject.start_as(&mut command, directory)?;
    Ok(command)
}

fn perform(attempt: &str, subject: Subject) -> Result<End, Failed> {
    let directory = tempfile::tempdir()?;
    let status = command(attempt, subject, directory.path())?.stderr(Stdio::piped()).output()?;
    end(status.status).ok_or_else(|| String::from_utf8_lossy(&status.stderr).into_owned().into())
}

/// The result by the exit status: the number of the error, or 255 for an attempt that could not be made.
fn end(status: ExitStatus) -> Option<End> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Some(Done),
        (Some(255), _) => None,
        (Some(code), _) => Some(Refused(Errno::from_raw_os_error(code))),
        (None, Some(signal)) => Some(Killed(signal)),
        (None, None) => None,
    }
}
