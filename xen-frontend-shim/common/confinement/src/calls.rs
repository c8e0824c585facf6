// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lists of permitted system calls, enforced by seccomp.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use libc::c_long;
use rustix::io::Errno;
use rustix::ioctl::Opcode;
use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads, compile_from_json,
};
use serde_json::json;

use crate::confinement::Error;
use crate::ioctl::{FIONBIO, TERMINAL};

/// What happens on a system call that is not on the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// The process is killed.
    #[default]
    On,
    /// The call is made and logged by the kernel's audit system: to derive the list again.
    Log,
    /// The call is made.
    Off,
}

/// The error for a word that is no [`Enforcement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use `on`, `log` or `off`")]
pub struct NoEnforcement;

const WORDS: [(Enforcement, &str); 3] =
    [(Enforcement::On, "on"), (Enforcement::Log, "log"), (Enforcement::Off, "off")];

impl FromStr for Enforcement {
    type Err = NoEnforcement;

    fn from_str(text: &str) -> Result<Self, NoEnforcement> {
        WORDS.into_iter().find_map(|(value, word)| (word == text).then_some(value)).ok_or(NoEnforcement)
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            WORDS.into_iter().find_map(|(value, word)| (value == *self).then_some(word)).unwrap_or_default(),
        )
    }
}

impl Enforcement {
    /// The action of seccomp on a call that is not permitted. `None` without seccomp.
    fn action(self) -> Option<SeccompAction> {
        match self {
            Self::On => Some(SeccompAction::KillProcess),
            Self::Log => Some(SeccompAction::Log),
            Self::Off => None,
        }
    }
}

/// The system calls that a process may make, with conditions on their arguments.
#[derive(Clone, Debug)]
pub struct Calls(Rules);

/// The calls of every program of ours after it has opened its files: memory, time, events, open descriptors,
/// and the end of the process. Calls with conditions on their arguments are in [`Calls::basic`].
const BASIC: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Open descriptors.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // Connected sockets.
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // Events.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    // Time. Most reads of a clock need no system call.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Existing threads, one of which may be starting, and the seeds of hash tables.
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    // The end of the process, by return and by abort.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// Further calls of the same kind that only older architectures have.
#[cfg(target_arch = "x86_64")]
const BASIC_LEGACY: &[c_long] = &[libc::SYS_dup2, libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const BASIC_LEGACY: &[c_long] = &[];

/// The commands of `fcntl`: duplicates, flags, and seals of memory files.
const FCNTL: &[i32] = &[
    libc::F_ADD_SEALS,
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_GETFL,
    libc::F_GET_SEALS,
    libc::F_SETFD,
    libc::F_SETFL,
];

/// A condition on an argument, of which the kernel uses 32 bits.
fn argument(
    position: u8,
    operator: SeccompCmpOp,
    value: impl Into<i64>,
) -> Result<SeccompCondition, BackendError> {
    // A negative number in C has the same bits.
    let value = value.into().cast_unsigned() & u64::from(u32::MAX);
    SeccompCondition::new(position, SeccompCmpArgLen::Dword, operator, value)
}

impl Calls {
    /// The calls of every program of ours.
    pub(crate) fn basic() -> Result<Self, BackendError> {
        let mut calls = Self(BTreeMap::new());
        calls.allow(BASIC);
        calls.allow(BASIC_LEGACY);
        // No memory becomes executable, so no code is loaded.
        let executable = u64::from(libc::PROT_EXEC.cast_unsigned());
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            calls.allow_if(call, vec![argument(2, SeccompCmpOp::MaskedEq(executable), 0)?])?;
        }
        for command in FCNTL {
            calls.allow_if(libc::SYS_fcntl, vec![argument(1, SeccompCmpOp::Eq, *command)?])?;
        }
        // The type of a socket that was passed to the process.
        calls.allow_if(libc::SYS_getsockopt, vec![argument(1, SeccompCmpOp::Eq, libc::SOL_SOCKET)?])?;
        // The size of an open file. A call with a path would tell whether a file exists; the path itself
        // cannot be checked, as it is in memory.
        let descriptor = SeccompCmpOp::MaskedEq(u64::from(libc::AT_EMPTY_PATH.cast_unsigned()));
        for (call, flags) in [(libc::SYS_statx, 2), (libc::SYS_newfstatat, 3)] {
            calls.allow_if(call, vec![argument(flags, descriptor.clone(), libc::AT_EMPTY_PATH)?])?;
        }
        // abort() signals its own thread. Signals to other processes are not permitted.
        let own = argument(0, SeccompCmpOp::Eq, getpid().as_raw_pid())?;
        let abort = argument(2, SeccompCmpOp::Eq, libc::SIGABRT)?;
        calls.allow_if(libc::SYS_tgkill, vec![own, abort])?;
        calls.allow_if(libc::SYS_prctl, vec![argument(0, SeccompCmpOp::Eq, libc::PR_SET_NAME)?])?;
        calls.allow_ioctls(&[FIONBIO])?;
        Ok(calls)
    }

    /// Adds calls with any arguments.
    pub(crate) fn allow(&mut self, calls: &[c_long]) {
        for call in calls {
            self.0.insert(*call, Vec::new());
        }
    }

    /// Adds requests of `ioctl`.
    pub(crate) fn allow_ioctls(&mut self, requests: &[Opcode]) -> Result<(), BackendError> {
        for request in requests {
            self.allow_if(libc::SYS_ioctl, vec![argument(1, SeccompCmpOp::Eq, *request)?])?;
        }
        Ok(())
    }

    /// Adds pairs of connected sockets.
    pub(crate) fn allow_socket_pairs(&mut self) -> Result<(), BackendError> {
        self.allow_if(libc::SYS_socketpair, vec![argument(0, SeccompCmpOp::Eq, libc::AF_UNIX)?])
    }

    fn allow_if(&mut self, call: c_long, conditions: Vec<SeccompCondition>) -> Result<(), BackendError> {
        self.0.entry(call).or_default().push(SeccompRule::new(conditions)?);
        Ok(())
    }

    /// Restricts all threads of the process to these system calls from now on.
    ///
    /// # Errors
    /// If the kernel refuses the list, for example because it has no seccomp.
    pub fn enforce(self, enforcement: Enforcement) -> Result<(), Error> {
        let Some(otherwise) = enforcement.action() else { return Ok(()) };
        install(self.0, otherwise, SeccompAction::Allow)
    }

    /// Compiles the list of the calls with these names, with any arguments. `None` without seccomp.
    pub(crate) fn named<'a>(
        names: impl Iterator<Item = &'a str>,
        enforcement: Enforcement,
    ) -> Result<Option<BpfProgram>, Error> {
        let otherwise = match enforcement {
            Enforcement::On => "kill_process",
            Enforcement::Log => "log",
            Enforcement::Off => return Ok(None),
        };
        let calls: Vec<_> = names.map(|name| json!({ "syscall": name })).collect();
        let filter = json!({ "mismatch_action": otherwise, "match_action": "allow", "filter": calls });
        let text = json!({ "list": filter }).to_string();
        let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
        let compiled = compile_from_json(text.as_bytes(), architecture);
        let mut programs = compiled.map_err(|error| Error::Name(Box::new(error)))?;
        Ok(programs.remove("list"))
    }

    /// Forbids `calls` to all threads of the process and all programs that it starts from now on.
    pub(crate) fn forbid(calls: &[c_long], enforcement: Enforcement) -> Result<(), Error> {
        let Some(action) = enforcement.action() else { return Ok(()) };
        install(any(calls), SeccompAction::Allow, action)
    }
}

/// Lists of calls, with conditions on their arguments.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Calls with any arguments.
pub(crate) fn any<'a>(calls: impl IntoIterator<Item = &'a c_long>) -> Rules {
    calls.into_iter().map(|call| (*call, Vec::new())).collect()
}

/// Calls that reach beyond the process by some of their arguments: new namespaces, other networks than those
/// of Unix sockets, input of a terminal.
pub(crate) fn dangerous_arguments() -> Result<Rules, BackendError> {
    let namespaces = [
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ];
    let namespace = |flag: i32| {
        let set = SeccompCmpOp::MaskedEq(u64::from(flag.cast_unsigned()));
        SeccompRule::new(vec![argument(0, set, flag)?])
    };
    let socket = SeccompRule::new(vec![argument(0, SeccompCmpOp::Ne, libc::AF_UNIX)?])?;
    let terminal = |request: &Opcode| SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, *request)?]);
    Ok(Rules::from([
        (libc::SYS_clone, namespaces.into_iter().map(namespace).collect::<Result<_, _>>()?),
        (libc::SYS_socket, vec![socket]),
        (libc::SYS_ioctl, TERMINAL.iter().map(terminal).collect::<Result<_, _>>()?),
    ]))
}

/// All requests of `ioctl` of these types but those that are listed with the type.
pub(crate) fn requests_beyond(listed: &[(u8, &[Opcode])]) -> Result<Rules, BackendError> {
    let rule = |(kind, requests): &(u8, &[Opcode])| {
        let is_of_kind = argument(1, SeccompCmpOp::MaskedEq(0xff00), i64::from(*kind) << 8);
        let is_other = requests.iter().map(|request| argument(1, SeccompCmpOp::Ne, *request));
        SeccompRule::new(std::iter::once(is_of_kind).chain(is_other).collect::<Result<_, _>>()?)
    };
    Ok(Rules::from([(libc::SYS_ioctl, listed.iter().map(rule).collect::<Result<_, _>>()?)]))
}

/// Makes calls fail with `error`.
pub(crate) fn refuse(rules: Rules, error: Errno, enforcement: Enforcement) -> Result<(), Error> {
    let action = match enforcement {
        Enforcement::On => SeccompAction::Errno(error.raw_os_error().cast_unsigned()),
        Enforcement::Log => SeccompAction::Log,
        Enforcement::Off => return Ok(()),
    };
    install(rules, SeccompAction::Allow, action)
}

/// Enforces a compiled list.
pub(crate) fn install_program(program: &BpfProgram) -> Result<(), Error> {
    Ok(apply_filter_all_threads(program)?)
}

fn install(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> Result<(), Error> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, otherwise, listed, architecture)?;
    install_program(&BpfProgram::try_from(filter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enforcement_is_parsed_and_shown_as_a_word() {
        for (value, word) in WORDS {
            assert_eq!(word.parse(), Ok(value));
            assert_eq!(value.to_string(), word);
        }
        assert_eq!("true".parse::<Enforcement>(), Err(NoEnforcement));
    }
}
