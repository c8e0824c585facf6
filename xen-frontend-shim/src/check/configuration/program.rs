// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program of a backend: whether it can be started, and what it may access.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use confinement::role::program::check_names;
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
    complaints.extend(confine.read.iter().chain(&confine.write).filter_map(|path| missing(path, paths)));
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

fn missing(path: &Path, paths: &Paths) -> Option<String> {
    let is_there = path.is_absolute() && paths.path(path).exists();
    let path = path.display();
    (!is_there).then(|| {
        format!("there is no {path}: create it, load its driver, or correct `read` and `write` (full paths)")
    })
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
