// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each role, told to do what it may not: it is killed or refused. And told to do its work, it is not.
//!
//! Every attempt is a process of its own: this program starts itself again, confines itself by the real policy of a role,
//! and then tries. Two layers are looked at one by one: the list of system calls kills, and behind it, where that list is
//! not enforced, users, limits and Landlock refuse. What is left to each is compared with what the kernel says of it.

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

/// What an attempt comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Refused(Errno),
    Killed(i32),
}

use End::{Done, Killed, Refused};

const KILLED: End = Killed(SIGSYS);

/// An attempt of some subjects and what has to become of it.
type Promise = (&'static str, &'static [Subject], End);

use Subject::{
    Gpio, I2c, I2cOnXen, Loose, LooseSupervisor, LooseWorker, Simulated, Supervisor, Threaded, Worker,
};

const BACKENDS: &[Subject] = &[Simulated, I2c, Gpio, I2cOnXen];
const WORKERS: &[Subject] = &[Worker, Threaded];
const ALL: &[Subject] = &[Simulated, I2c, Gpio, I2cOnXen, Worker, Threaded];
/// The list of system calls is not enforced: what is behind it?
const UNLISTED: &[Subject] = &[Loose, LooseWorker];

const PROMISES: &[Promise] = &[
    // Nothing is opened, started or traced.
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
    // Nobody else is signalled.
    ("kill-its-parent", ALL, KILLED),
    ("kill-its-parent", UNLISTED, Refused(Errno::PERM)),
    ("kill-its-parent-by-pidfd", BACKENDS, KILLED),
    ("kill-its-parent-by-pidfd", WORKERS, Refused(Errno::PERM)),
    // Nothing is got back.
    ("become-root", ALL, KILLED),
    ("become-root", UNLISTED, Refused(Errno::PERM)),
    ("regain-capabilities", UNLISTED, Refused(Errno::PERM)),
    ("raise-a-limit", ALL, KILLED),
    ("raise-a-limit", UNLISTED, Refused(Errno::PERM)),
    ("be-dumpable", ALL, KILLED),
    // No connection but those that there are.
    ("make-a-socket", ALL, KILLED),
    ("connect-to-the-network", ALL, KILLED),
    ("connect-to-the-network", UNLISTED, Refused(Errno::ACCESS)),
    ("connect-to-an-abstract-socket", UNLISTED, Refused(Errno::PERM)),
    ("make-a-pair-of-sockets", BACKENDS, KILLED),
    ("make-a-pair-of-sockets", WORKERS, Done),
    // Requests of devices, by their numbers.
    ("ioctl-of-a-terminal", ALL, KILLED),
    ("ioctl-hypercall", ALL, KILLED),
    ("ioctl-map-foreign-pages", ALL, KILLED),
    ("ioctl-restrict", ALL, KILLED),
    // What is restricted to a guest stays so, and gets no more of it than it has.
    ("ioctl-map-a-resource", ALL, KILLED),
    ("ioctl-assign-an-ioeventfd", ALL, KILLED),
    ("ioctl-bind-a-static-channel", ALL, KILLED),
    ("ioctl-notify-when-unmapped", ALL, KILLED),
    // What concerns an adapter or a chip as a whole.
    ("ioctl-i2c-retries", ALL, KILLED),
    ("ioctl-i2c-timeout", ALL, KILLED),
    ("ioctl-gpio-watch", ALL, KILLED),
    ("ioctl-dm-op", BACKENDS, KILLED),
    ("ioctl-dm-op", WORKERS, Refused(Errno::NOTTY)),
    ("ioctl-bind-a-channel", ALL, KILLED),
    ("ioctl-notify", BACKENDS, KILLED),
    ("ioctl-notify", WORKERS, Refused(Errno::NOTTY)),
    ("ioctl-grant-copy", &[Simulated, I2c, Gpio], KILLED),
    ("ioctl-grant-copy", &[I2cOnXen, Worker], Refused(Errno::NOTTY)),
    ("ioctl-i2c-transfer", &[Simulated, Gpio, Worker], KILLED),
    ("ioctl-i2c-transfer", &[I2c, I2cOnXen], Refused(Errno::NOTTY)),
    ("ioctl-i2c-slave-force", BACKENDS, KILLED),
    ("ioctl-gpio-line", &[Simulated, I2c, I2cOnXen, Worker], KILLED),
    ("ioctl-gpio-line", &[Gpio], Refused(Errno::NOTTY)),
    // No code.
    ("make-code-of-data", ALL, KILLED),
    ("map-code", ALL, KILLED),
    // No more than a share.
    ("take-many-descriptors", ALL, Refused(Errno::MFILE)),
    ("take-much-memory", ALL, Refused(Errno::NOMEM)),
    ("grow-a-file", &[I2c, Gpio, Worker], Killed(SIGXFSZ)),
    // What stays privileged has what it needs, and no more.
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
    // What it is for.
    ("serve", ALL, Done),
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

/// Ignores a trial for a reason, which stands before its name.
fn unless(obstacle: Option<String>, trial: Trial) -> Trial {
    match obstacle {
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        None => trial,
    }
}

/// Why a trial cannot be made that needs this of Landlock.
fn obstacle(needed: ABI) -> Option<String> {
    // The policies are those of processes that start as root.
    if !geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    // An older kernel lacks a part of Landlock.
    (!kernel_has(needed)).then(|| format!("the kernel lacks version {needed} of Landlock"))
}

/// What an attempt needs of Landlock to be refused.
fn landlock_for(attempt: &str, subject: Subject) -> ABI {
    match attempt {
        _ if !UNLISTED.contains(&subject) => ABI::Unsupported,
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

/// This program, as `subject` that makes `attempt`.
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

/// The exit status of an attempt is the number of its error; one that could not be made says 255.
fn end(status: ExitStatus) -> Option<End> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Some(Done),
        (Some(255), _) => None,
        (Some(code), _) => Some(Refused(Errno::from_raw_os_error(code))),
        (None, Some(signal)) => Some(Killed(signal)),
        (None, None) => None,
    }
}
