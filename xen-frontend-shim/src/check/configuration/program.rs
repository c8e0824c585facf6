// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program of a backend: whether it can be started, and what it may access.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use confinement::role::program::check_names;
use confinement::{User, with_effective};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use shim_config::{Confine, Program};

use super::super::{Finding, Paths};
use crate::launch::candidates;
use crate::supervisor::has_place;

/// Checks `program`. The finding of a program that can be started tells its user and its paths.
pub(super) fn check(what: &str, program: &Program, paths: &Paths) -> Finding {
    let Some(word) = program.command.first() else {
        return Finding::missing(what, "its `command` is empty: name a program");
    };
    let mut complaints: Vec<String> = runnable(word, paths).err().into_iter().collect();
    if !has_place(&program.command) {
        complaints.push(
            "its `command` needs one of {fd}, {listen-fd} and {socket}, where the program is told its socket"
                .into(),
        );
    }
    let Some(confine) = &program.confine else {
        return Finding::of(format!("{what}: {word}, which confines itself"), &complaints);
    };
    let read = confine.read.iter().map(|path| (path, Access::READ_OK));
    let write = confine.write.iter().map(|path| (path, Access::READ_OK | Access::WRITE_OK));
    let accesses = read.chain(write);
    complaints.extend(accesses.filter_map(|(path, access)| refusal(path, access, program.user, paths)));
    if let Some(Err(error)) = confine.system_calls.as_deref().map(check_names) {
        complaints.push(error.to_string());
    }
    let what = format!("{what}: {word} {}", rights(program, confine));
    if complaints.is_empty() && program.user.is_none() {
        return Finding::weak(what, "it runs as root: give the device a `user`");
    }
    Finding::of(what, &complaints)
}

/// The user and the paths of a program.
fn rights(program: &Program, confine: &Confine) -> String {
    let user = program.user.map_or_else(|| "root".to_owned(), |user| user.to_string());
    let list = |verb: &str, paths: &[PathBuf]| {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        if paths.is_empty() { String::new() } else { format!(", {verb} {}", paths.join(" ")) }
    };
    format!("as {user}{}{}", list("reads", &confine.read), list("writes", &confine.write))
}

/// Why the program cannot access a path.
fn refusal(path: &Path, access: Access, user: Option<User>, paths: &Paths) -> Option<String> {
    let (is_absolute, place) = (path.is_absolute(), paths.path(path));
    let path = path.display();
    if !is_absolute || !place.exists() {
        return Some(format!(
            "there is no {path}: create it, load its driver, or correct `read` and `write` (full paths)"
        ));
    }
    let user = user?;
    let try_access = || accessat(CWD, &place, access, AtFlags::EACCESS);
    // Only root can try this as another user.
    let tried = with_effective(user.uid(), user.gid(), try_access).ok()?;
    let right = if access.contains(Access::WRITE_OK) { "read and write" } else { "read" };
    tried.err().map(|_| format!("{user} may not {right} {path}: change its owner or mode at the start"))
}

fn runnable(program: &str, paths: &Paths) -> Result<(), String> {
    let candidates = candidates(Path::new(program)).into_iter();
    let found = candidates.map(|path| paths.path(path)).find_map(|path| path.metadata().ok());
    match found {
        None => Err(format!("there is no {program}: install it, or correct the device's `command`")),
        Some(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => Ok(()),
        Some(_) => Err(format!("{program} is no program: chmod +x it, or correct the device's `command`")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::fake;
    use super::*;

    fn finding(change: impl FnOnce(&mut Program)) -> String {
        let (_directory, paths) = fake();
        std::fs::set_permissions(&paths.root, PermissionsExt::from_mode(0o755)).unwrap();
        for path in ["/run", "/dev"] {
            std::fs::set_permissions(paths.path(path), PermissionsExt::from_mode(0o777)).unwrap();
        }
        let mut program = Program {
            command: ["/usr/bin/backend", "--socket-path={socket}"].map(str::to_owned).into(),
            user: "10100:10101".parse().ok(),
            confine: Some(Confine { read: vec!["/dev/i2c-0".into()], ..Confine::default() }),
        };
        change(&mut program);
        check("guest-a: backend of rng", &program, &paths).to_string()
    }

    #[test]
    fn program_that_can_be_started_is_shown_with_its_rights() {
        let shown = "ok       guest-a: backend of rng: /usr/bin/backend as 10100:10101, reads /dev/i2c-0";
        assert_eq!(finding(|_| ()), shown);
        let own = "ok       guest-a: backend of rng: /usr/bin/backend, which confines itself";
        assert_eq!(finding(|program| program.confine = None), own);
        let confine = |program: &mut Program| {
            program.confine =
                Some(Confine { write: vec!["/run".into(), "/dev".into()], ..Confine::default() });
        };
        assert!(finding(confine).ends_with("as 10100:10101, writes /run /dev"));
    }

    #[test]
    fn path_that_the_user_may_not_access_is_missing() {
        // Only root can try this as another user.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_directory, paths) = fake();
        let root = &paths.root;
        let place = paths.path("/dev/i2c-0");
        let user = "10100:10101".parse().ok();
        let refused = |access| refusal(Path::new("/dev/i2c-0"), access, user, &paths);
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o604)).unwrap();
        assert_eq!(refused(Access::READ_OK), None);
        let refusal = refused(Access::READ_OK | Access::WRITE_OK).unwrap();
        assert!(refusal.starts_with("10100:10101 may not read and write /dev/i2c-0: change"), "{refusal}");
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(refused(Access::READ_OK).unwrap().starts_with("10100:10101 may not read /dev/i2c-0: "));
    }

    #[test]
    fn program_without_a_user_is_weak() {
        let weak = finding(|program| program.user = None);
        assert!(weak.starts_with("weak     ") && weak.contains("runs as root: give the device"), "{weak}");
    }

    #[test]
    fn each_mistake_names_the_remedy() {
        type Change = fn(&mut Program);
        let cases: [(Change, &str); 6] = [
            (|program| program.command.clear(), "its `command` is empty"),
            (|program| program.command[0] = "/no/such".into(), "there is no /no/such: install it"),
            (|program| program.command.truncate(1), "needs one of {fd}, {listen-fd} and {socket}"),
            (|program| program.confine.as_mut().unwrap().read.push("/no".into()), "there is no /no: create"),
            (|program| program.confine.as_mut().unwrap().write.push("run".into()), "there is no run: create"),
            (|program| program.confine.as_mut().unwrap().system_calls = Some(vec!["raed".into()]), "raed"),
        ];
        for (change, expected) in cases {
            let finding = finding(change);
            assert!(finding.starts_with("missing  ") && finding.contains(expected), "{expected}: {finding}");
        }
    }
}
