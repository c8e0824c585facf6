// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `xen-frontend-shim confine`: what a program can do that does not confine itself.
//!
//! Crate `confinement` tries each right of the role. These tests show that the program has it after it was
//! executed, and what the user reads if it cannot be started.
#![allow(clippy::unwrap_used)]

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use command_fds::{CommandFdExt, FdMapping};

const SIGSYS: i32 = 31;

/// A shell with `options`. Only root can start a program as another user: nothing without it.
fn shell(options: &[&str], script: &str) -> Option<Command> {
    let is_root = rustix::process::geteuid().is_root();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xen-frontend-shim"));
    command.args(["confine", "--name=guest-a/rng", "--user=10102:10103"]);
    // The loader and the libraries of the shell.
    command.args(["/usr", "/lib", "/bin"].map(|path| format!("--read={path}"))).args(options);
    command.args(["--", "/bin/sh", "-c", script]);
    is_root.then_some(command)
}

/// The result of a shell with `options`.
fn confined(options: &[&str], script: &str) -> Option<Output> {
    shell(options, script).map(|mut command| command.output().unwrap())
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory that the program can pass, with a file that it may read as its user.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "content").unwrap();
    std::fs::set_permissions(file, Permissions::from_mode(0o666)).unwrap();
    directory
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

#[test]
fn program_has_its_user_and_its_name_and_no_capabilities() {
    let script = "id -u; id -G; grep -E '^(CapPrm|CapBnd|NoNewPrivs)' /proc/self/status; ulimit -n; \
                  tr '\\0' ' ' </proc/$$/cmdline";
    let Some(output) = confined(&["--read=/proc", "--open-files=33"], script) else { return };
    let expected = "10102\n10103\nCapPrm:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n33\n\
                    guest-a/rng:/bin/sh -c ";
    assert!(text(&output).starts_with(expected), "{output:?}");
}

#[test]
fn program_has_the_socket_that_it_is_started_with() {
    let Some(mut command) = shell(&[], "echo works >&3") else { return };
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mapping = FdMapping { parent_fd: theirs.into(), child_fd: 3 };
    let mut child = command.fd_mappings(vec![mapping]).unwrap().spawn().unwrap();
    // It holds the other end.
    drop(command);
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "works\n");
}

#[test]
fn program_reads_and_writes_named_paths_only() {
    let directory = directory();
    let file = directory.path().join("file");
    let script = format!("cat {0} && echo more >>{0}", file.display());
    // (options, what it reads, whether it writes)
    for (options, read, writes) in [
        (vec![], "", false),
        (vec![option("read", &file)], "content", false),
        (vec![option("write", directory.path())], "content", true),
    ] {
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let Some(output) = confined(&options, &script) else { return };
        // A kernel without Landlock permits what the user may.
        if confinement::has_landlock() {
            assert_eq!((text(&output).as_str(), output.status.success()), (read, writes), "{output:?}");
        }
    }
}

#[test]
fn program_with_a_list_is_killed_by_another_call() {
    let Some(output) = confined(&["--system-calls=read,write"], "true") else { return };
    assert_eq!(output.status.signal(), Some(SIGSYS), "{output:?}");
    let Some(output) = confined(&["--system-calls=read,write", "--seccomp=off"], "echo works") else {
        return;
    };
    assert_eq!(text(&output), "works\n");
}

#[test]
fn program_that_cannot_be_started_names_the_reason() {
    let Some(output) = confined(&["--read=/no/such"], "true") else { return };
    assert!(errors(&output).contains("cannot confine /bin/sh: cannot allow access to a path:"), "{output:?}");
    assert!(errors(&output).contains("/no/such") && output.status.code() == Some(1), "{output:?}");
    let Some(output) = confined(&["--system-calls=raed"], "true") else { return };
    assert!(errors(&output).contains("raed"), "{output:?}");
    let program = env!("CARGO_BIN_EXE_xen-frontend-shim");
    let output = Command::new(program).args(["confine", "--", "/no/such/program"]).output().unwrap();
    assert!(errors(&output).contains("cannot start /no/such/program: there is no such"), "{output:?}");
}
