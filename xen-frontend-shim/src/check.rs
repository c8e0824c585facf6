// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What of kernel, Xen, policy or configuration is missing, and how to get it.
//!
//! ```text
//!   xen-frontend-shim check [CONFIG] ─┬▶ kernel          nodes of Xen, seccomp, Landlock, the state directory
//!                                     ├▶ hardware        what the kernel has of I2C and GPIO, for our backends
//!                                     ├▶ configuration   windows, interrupts, users, backends' programs
//!                                     └▶ xen             each guest: is it there, may we serve it
//! ```
//!
//! One line for each thing that was looked at. `run` looks at all but the last when it starts, for they cost nothing,
//! and meets the last by itself.

mod configuration;
mod hardware;
mod kernel;
mod xen;

use std::fmt;
use std::path::{Path, PathBuf};

use shim_config::Config;

/// What was looked at, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    what: String,
    verdict: Verdict,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works without, though not as well; and what to do.
    Weak(String),
    /// It does not work like this; and what to do.
    Missing(String),
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Where the file system begins. Tests have one of their own.
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
        Self { what: what.into(), verdict: Verdict::Ok }
    }

    fn weak(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Weak(advice.into()) }
    }

    fn missing(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Missing(advice.into()) }
    }

    /// All is well with `what`, unless there are complaints.
    fn of(what: impl Into<String>, complaints: &[String]) -> Self {
        if complaints.is_empty() { Self::ok(what) } else { Self::missing(what, complaints.join("; ")) }
    }

    /// Whether nothing needs to be done.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.verdict == Verdict::Ok
    }

    /// Whether something does not work.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.verdict, Verdict::Missing(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Ok => write!(f, "ok       {}", self.what),
            Verdict::Weak(advice) => write!(f, "weak     {}: {advice}", self.what),
            Verdict::Missing(advice) => write!(f, "missing  {}: {advice}", self.what),
        }
    }
}

/// Looks at what `run` would stumble over later: the kernel, the hardware and the configuration.
#[must_use]
pub fn quick(config: &Config, place: &Paths) -> Vec<Finding> {
    let mut findings = kernel::check(place);
    findings.extend(hardware::check(config, place));
    findings.extend(configuration::check(config, place));
    findings
}

/// Looks at everything. Guests may be served meanwhile.
#[must_use]
pub fn all(config: &Config, place: &Paths) -> Vec<Finding> {
    let mut findings = quick(config, place);
    findings.extend(xen::check(config));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim_config::{Backend, Device, Guest};

    /// A root file system that has all that is looked for.
    pub(super) fn fake() -> (tempfile::TempDir, Paths) {
        let directory = tempfile::tempdir().unwrap();
        let place = Paths { root: directory.path().to_owned(), state: "/run/xen-frontend-shim".into() };
        for path in ["/dev/xen", "/proc/self", "/run", "/usr/bin"] {
            std::fs::create_dir_all(place.path(path)).unwrap();
        }
        let nodes =
            ["/dev/xen/privcmd", "/dev/xen/evtchn", "/dev/xen/gntdev", "/dev/i2c-0", "/dev/gpiochip0"];
        for path in nodes.into_iter().chain(["/usr/bin/backend"]) {
            std::fs::write(place.path(path), "").unwrap();
        }
        let program = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(place.path("/usr/bin/backend"), program).unwrap();
        std::fs::write(place.path("/proc/self/status"), "Name:\tinit\nSeccomp:\t0\n").unwrap();
        (directory, place)
    }

    /// Two guests with two devices each, as the image builder writes them.
    pub(super) fn config() -> Config {
        let device = |name: &str, base, irq| Device {
            name: name.into(),
            device_id: 34,
            base,
            irq,
            queues: 1,
            user: None,
            backend: Backend::Command(vec!["/usr/bin/backend".into(), "i2c".into()]),
        };
        let guest = |name: &str, domid: u16| Guest {
            name: name.into(),
            domid,
            user: format!("{0}:{0}", 10000 + domid).parse().ok(),
            device: vec![device("i2c0", 0x200_0000, 33), device("i2c1", 0x200_0200, 34)],
        };
        Config { domid: 1, guest: vec![guest("guest-a", 2), guest("guest-b", 3)] }
    }

    pub(super) fn lines<'a>(findings: impl Iterator<Item = &'a Finding>) -> String {
        findings.map(Finding::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_finding_is_one_line() {
        assert_eq!(Finding::ok("this").to_string(), "ok       this");
        assert_eq!(Finding::weak("this", "do that").to_string(), "weak     this: do that");
        assert_eq!(Finding::of("this", &["do that".into()]).to_string(), "missing  this: do that");
    }

    #[test]
    fn the_quick_look_is_at_kernel_hardware_and_configuration() {
        let (_directory, place) = fake();
        let findings = quick(&config(), &place);
        let missing = lines(findings.iter().filter(|finding| finding.is_missing()));
        assert_eq!((missing.as_str(), findings.len()), ("", 17));
    }
}
