// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the driver domain's kernel and its root file system have to offer.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{Access, access};

use super::{Finding, Paths};

/// The nodes that the shim opens, and the options of the kernel that make them.
const NODES: [(&str, &str); 3] = [
    ("/dev/xen/privcmd", "CONFIG_XEN_PRIVCMD=y"),
    ("/dev/xen/evtchn", "CONFIG_XEN_DEV_EVTCHN=y"),
    ("/dev/xen/gntdev", "CONFIG_XEN_GNTDEV=y"),
];

pub(super) fn check(place: &Paths) -> Vec<Finding> {
    let mut findings: Vec<_> = NODES.iter().map(|(path, option)| node(place, path, option)).collect();
    findings.push(seccomp(place));
    findings.push(landlock(confinement::has_landlock()));
    findings.push(state(place));
    findings
}

fn node(place: &Paths, path: &str, option: &str) -> Finding {
    match OpenOptions::new().read(true).write(true).open(place.path(path)) {
        Ok(_) => Finding::ok(path),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Finding::missing(
                path,
                format!("this has to be a domain of Xen whose kernel has {option}, with devtmpfs on /dev"),
            ),
            ErrorKind::PermissionDenied => Finding::missing(path, "start this as root"),
            _ => Finding::missing(path, format!("it cannot be opened: {error}")),
        },
    }
}

/// The kernel shows the mode of each process if there are modes.
fn seccomp(place: &Paths) -> Finding {
    const WHAT: &str = "seccomp";
    match std::fs::read_to_string(place.path("/proc/self/status")) {
        Ok(status) if status.lines().any(|line| line.starts_with("Seccomp:")) => Finding::ok(WHAT),
        Ok(_) => Finding::missing(
            WHAT,
            "build the kernel with CONFIG_SECCOMP_FILTER=y, or go without (`--seccomp off`, also for backends)",
        ),
        Err(error) => Finding::missing(WHAT, format!("mount proc at /proc ({error})")),
    }
}

fn landlock(is_there: bool) -> Finding {
    const WHAT: &str = "Landlock";
    if is_there {
        return Finding::ok(WHAT);
    }
    Finding::weak(
        WHAT,
        "works, but nothing keeps a process that was taken over from files that its user may open: build the kernel with \
         CONFIG_SECURITY_LANDLOCK=y and landlock in CONFIG_LSM",
    )
}

/// The state directory, or where it would be made.
fn state(place: &Paths) -> Finding {
    let what = format!("state directory {}", place.state.display());
    let wanted = place.path(&place.state);
    let Some(present) = wanted.ancestors().find(|path| path.exists()) else {
        return Finding::missing(what, "there is no file system");
    };
    if !present.is_dir() {
        return Finding::missing(what, format!("{} is no directory", shown(present, place)));
    }
    match access(present, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(what),
        Err(error) => Finding::missing(
            what,
            format!("{} cannot be written ({error}): mount a tmpfs there", shown(present, place)),
        ),
    }
}

/// A path as the user knows it.
fn shown(path: &Path, place: &Paths) -> String {
    format!("/{}", path.strip_prefix(&place.root).unwrap_or(path).display())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, lines};
    use super::*;

    #[test]
    fn a_driver_domain_as_it_should_be() {
        let (_directory, place) = fake();
        let findings = check(&place);
        let missing: Vec<_> = findings.iter().filter(|finding| finding.is_missing()).collect();
        assert_eq!((missing.len(), findings.len()), (0, 6), "{missing:?}");
    }

    #[test]
    fn each_node_that_is_not_there_names_its_option() {
        for (path, option) in NODES {
            let (_directory, place) = fake();
            std::fs::remove_file(place.path(path)).unwrap();
            let complaints = lines(check(&place).iter().filter(|finding| finding.is_missing()));
            assert!(complaints.starts_with(&format!("missing  {path}: ")), "{complaints}");
            assert!(complaints.contains(option) && complaints.lines().count() == 1, "{complaints}");
        }
    }

    #[test]
    fn a_kernel_without_seccomp_is_told_what_to_build() {
        let (_directory, place) = fake();
        std::fs::write(place.path("/proc/self/status"), "Name:\tinit\n").unwrap();
        assert!(seccomp(&place).to_string().contains("CONFIG_SECCOMP_FILTER=y"));
        std::fs::remove_file(place.path("/proc/self/status")).unwrap();
        assert!(seccomp(&place).to_string().contains("mount proc"));
    }

    #[test]
    fn a_kernel_without_landlock_will_do() {
        assert!(landlock(true).is_ok());
        let weak = landlock(false);
        assert!(!weak.is_ok() && !weak.is_missing());
        assert!(weak.to_string().contains("CONFIG_SECURITY_LANDLOCK=y"));
    }

    #[test]
    fn the_state_directory_need_not_be_there_but_must_be_possible() {
        let (_directory, mut place) = fake();
        assert!(state(&place).is_ok());
        place.state = "/proc/self/status/state".into();
        assert!(state(&place).to_string().contains("/proc/self/status is no directory"));
        place.state = "/proc/self".into();
        assert!(state(&place).is_ok());
    }
}
