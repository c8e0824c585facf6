// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requirements on the driver domain's kernel and root file system.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{Access, access};

use super::{Finding, Paths};

/// The device nodes that the shim opens, and the kernel options that create them.
const NODES: [(&str, &str); 3] = [
    ("/dev/xen/privcmd", "CONFIG_XEN_PRIVCMD=y"),
    ("/dev/xen/evtchn", "CONFIG_XEN_DEV_EVTCHN=y"),
    ("/dev/xen/gntdev", "CONFIG_XEN_GNTDEV=y"),
];

pub(super) fn check(paths: &Paths) -> Vec<Finding> {
    let mut findings: Vec<_> = NODES.iter().map(|(path, option)| node(paths, path, option)).collect();
    findings.push(seccomp(paths));
    findings.push(landlock(confinement::has_landlock()));
    findings.push(state(paths));
    findings
}

fn node(paths: &Paths, path: &str, option: &str) -> Finding {
    match OpenOptions::new().read(true).write(true).open(paths.path(path)) {
        Ok(_) => Finding::ok(path),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Finding::missing(
                path,
                format!("run this in a domain of Xen whose kernel has {option}, with devtmpfs on /dev"),
            ),
            ErrorKind::PermissionDenied => Finding::missing(path, "run this as root"),
            _ => Finding::missing(path, format!("it cannot be opened: {error}")),
        },
    }
}

/// A kernel with seccomp shows the mode of each process.
fn seccomp(paths: &Paths) -> Finding {
    const WHAT: &str = "seccomp";
    match std::fs::read_to_string(paths.path("/proc/self/status")) {
        Ok(status) if status.lines().any(|line| line.starts_with("Seccomp:")) => Finding::ok(WHAT),
        Ok(_) => Finding::missing(
            WHAT,
            "build the kernel with CONFIG_SECCOMP_FILTER=y, or run without (`--seccomp off`, also for \
             backends)",
        ),
        Err(error) => Finding::missing(WHAT, format!("mount proc at /proc ({error})")),
    }
}

fn landlock(is_supported: bool) -> Finding {
    const WHAT: &str = "Landlock";
    if is_supported {
        return Finding::ok(WHAT);
    }
    Finding::weak(
        WHAT,
        "works, but a process that was taken over can open all files that its user may open: build the \
         kernel with CONFIG_SECURITY_LANDLOCK=y and landlock in CONFIG_LSM",
    )
}

/// The state directory, or the directory in which it would be created.
fn state(paths: &Paths) -> Finding {
    let what = format!("state directory {}", paths.state.display());
    let wanted = paths.path(&paths.state);
    let Some(present) = wanted.ancestors().find(|path| path.exists()) else {
        return Finding::missing(what, "there is no file system");
    };
    if !present.is_dir() {
        return Finding::missing(what, format!("{} is not a directory", shown(present, paths)));
    }
    match access(present, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(what),
        Err(error) => Finding::missing(
            what,
            format!("{} cannot be written ({error}): mount a tmpfs there", shown(present, paths)),
        ),
    }
}

/// A path below the checked root, as the user writes it.
fn shown(path: &Path, paths: &Paths) -> String {
    format!("/{}", path.strip_prefix(&paths.root).unwrap_or(path).display())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, lines};
    use super::*;

    #[test]
    fn complete_driver_domain_has_no_findings() {
        let (_directory, paths) = fake();
        let findings = check(&paths);
        let missing: Vec<_> = findings.iter().filter(|finding| finding.is_missing()).collect();
        assert_eq!((missing.len(), findings.len()), (0, 6), "{missing:?}");
    }

    #[test]
    fn missing_device_node_names_its_kernel_option() {
        for (path, option) in NODES {
            let (_directory, paths) = fake();
            std::fs::remove_file(paths.path(path)).unwrap();
            let complaints = lines(check(&paths).iter().filter(|finding| finding.is_missing()));
            assert!(complaints.starts_with(&format!("missing  {path}: ")), "{complaints}");
            assert!(complaints.contains(option) && complaints.lines().count() == 1, "{complaints}");
        }
    }

    #[test]
    fn kernel_without_seccomp_is_missing_an_option() {
        let (_directory, paths) = fake();
        std::fs::write(paths.path("/proc/self/status"), "Name:\tinit\n").unwrap();
        assert!(seccomp(&paths).to_string().contains("CONFIG_SECCOMP_FILTER=y"));
        std::fs::remove_file(paths.path("/proc/self/status")).unwrap();
        assert!(seccomp(&paths).to_string().contains("mount proc"));
    }

    #[test]
    fn kernel_without_landlock_is_weak() {
        assert!(landlock(true).is_ok());
        let weak = landlock(false);
        assert!(!weak.is_ok() && !weak.is_missing());
        assert!(weak.to_string().contains("CONFIG_SECURITY_LANDLOCK=y"));
    }

    #[test]
    fn state_directory_must_exist_or_be_creatable() {
        let (_directory, mut paths) = fake();
        assert!(state(&paths).is_ok());
        paths.state = "/proc/self/status/state".into();
        assert!(state(&paths).to_string().contains("/proc/self/status is not a directory"));
        paths.state = "/proc/self".into();
        assert!(state(&paths).is_ok());
    }
}
