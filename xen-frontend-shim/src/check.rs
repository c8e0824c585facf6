// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The requirements of the shim: what the kernel, Xen, the policy or the configuration lacks, and the remedy.
//!
//! ```text
//!   xen-frontend-shim check [CONFIG] ─┬▶ kernel          /dev/xen, seccomp, Landlock, state directory
//!                                     ├▶ hardware        I2C and GPIO device nodes, for our backends
//!                                     ├▶ configuration   windows, interrupts, users, programs of backends
//!                                     └▶ xen             each guest: whether it exists and may be served
//! ```
//!
//! Each requirement is one line. `run` checks all but the last group when it starts, and reports the last by
//! its own errors.

mod configuration;
mod hardware;
mod kernel;
mod xen;

use std::fmt;
use std::path::{Path, PathBuf};

use shim_config::Config;

/// A requirement and whether it is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    what: String,
    status: FindingStatus,
}

/// Whether a requirement is met; if not, the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FindingStatus {
    /// It is met.
    Ok,
    /// It is not met; the shim works with a restriction.
    Weak(String),
    /// It is not met; the shim does not work.
    Missing(String),
}

/// The paths that are checked.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The root of the file system. Tests use a temporary directory.
    pub root: PathBuf,
    /// The state directory.
    pub state: PathBuf,
}

impl Paths {
    fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let path = absolute.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self { what: what.into(), status: FindingStatus::Ok }
    }

    fn weak(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), status: FindingStatus::Weak(advice.into()) }
    }

    fn missing(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), status: FindingStatus::Missing(advice.into()) }
    }

    /// Met if there are no complaints.
    fn of(what: impl Into<String>, complaints: &[String]) -> Self {
        if complaints.is_empty() { Self::ok(what) } else { Self::missing(what, complaints.join("; ")) }
    }

    /// Whether the requirement is met.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == FindingStatus::Ok
    }

    /// Whether the shim does not work like this.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.status, FindingStatus::Missing(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.status {
            FindingStatus::Ok => write!(f, "ok       {}", self.what),
            FindingStatus::Weak(advice) => write!(f, "weak     {}: {advice}", self.what),
            FindingStatus::Missing(advice) => write!(f, "missing  {}: {advice}", self.what),
        }
    }
}

/// Checks the kernel, the hardware and the configuration.
#[must_use]
pub fn quick(config: &Config, paths: &Paths) -> Vec<Finding> {
    let mut findings = kernel::check(paths);
    findings.extend(hardware::check(config, paths));
    findings.extend(configuration::check(config, paths));
    findings
}

/// Checks all requirements. Guests may be served meanwhile.
#[must_use]
pub fn all(config: &Config, paths: &Paths) -> Vec<Finding> {
    let mut findings = quick(config, paths);
    findings.extend(xen::check(config));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim_config::{Backend, Device, Guest, Program};

    /// A root file system that meets all requirements.
    pub(super) fn fake() -> (tempfile::TempDir, Paths) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths { root: directory.path().to_owned(), state: "/run/xen-frontend-shim".into() };
        for path in ["/dev/xen", "/proc/self", "/run", "/usr/bin"] {
            std::fs::create_dir_all(paths.path(path)).unwrap();
        }
        let nodes =
            ["/dev/xen/privcmd", "/dev/xen/evtchn", "/dev/xen/gntdev", "/dev/i2c-0", "/dev/gpiochip0"];
        for path in nodes.into_iter().chain(["/usr/bin/backend"]) {
            std::fs::write(paths.path(path), "").unwrap();
        }
        let program = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(paths.path("/usr/bin/backend"), program).unwrap();
        std::fs::write(paths.path("/proc/self/status"), "Name:\tinit\nSeccomp:\t0\n").unwrap();
        (directory, paths)
    }

    /// The configuration of two guests with two devices each, as the image builder writes it.
    pub(super) fn config() -> Config {
        let command = ["/usr/bin/backend", "i2c", "--fd={fd}"].map(str::to_owned).to_vec();
        let backend = Backend::Program(Program::new(command));
        let device = |name: &str, base, irq| Device::new(name.into(), 34, 1, base, irq, backend.clone());
        let guest = |name: &str, domid: u16| Guest {
            name: name.into(),
            domid,
            user: format!("{0}:{0}", 10000 + domid).parse().ok(),
            memory: Vec::new(),
            device: vec![device("i2c0", 0x200_0000, 33), device("i2c1", 0x200_0200, 34)],
        };
        Config { domid: 1, guest: vec![guest("guest-a", 2), guest("guest-b", 3)] }
    }

    pub(super) fn lines<'a>(findings: impl Iterator<Item = &'a Finding>) -> String {
        findings.map(Finding::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn finding_is_one_line() {
        assert_eq!(Finding::ok("this").to_string(), "ok       this");
        assert_eq!(Finding::weak("this", "do that").to_string(), "weak     this: do that");
        assert_eq!(Finding::of("this", &["do that".into()]).to_string(), "missing  this: do that");
    }

    #[test]
    fn quick_check_of_a_complete_system_finds_nothing_missing() {
        let (_directory, paths) = fake();
        let findings = quick(&config(), &paths);
        let missing = lines(findings.iter().filter(|finding| finding.is_missing()));
        assert_eq!((missing.as_str(), findings.len()), ("", 17));
    }
}
