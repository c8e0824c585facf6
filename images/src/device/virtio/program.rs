// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A backend's program, which the shim starts and confines.

use std::path::PathBuf;

use confinement::User;
use shim_config::Confine;
use shim_config::backend::{FD, LISTEN_FD, SOCKET};
use toml_span::de_helpers::TableHelper;
use toml_span::value::Value;
use toml_span::{DeserError, Deserialize, Spanned};

use super::Checks;
use crate::device::Place;
use crate::diagnostics::{Diagnostic, listed};
use crate::spanned::{Memory, custom};
use crate::validate::files::{has_program, is_below, is_path};

/// Paths that no backend gets: the nodes of the hypervisor, which reach every guest, and the shim's state.
const REFUSED: [&str; 2] = ["/dev/xen", "/run/xen-frontend-shim"];

/// The numbers of open files with which a program works, and which the kernel grants (`fs.nr_open`).
const OPEN_FILES: std::ops::RangeInclusive<u64> = 16..=1_048_576;

/// A program.
#[derive(Debug)]
pub(super) struct Program {
    command: Vec<Spanned<String>>,
    command_span: toml_span::Span,
    /// The user, if it is not the builder's choice.
    pub(super) user: Option<Spanned<User>>,
    read: Vec<Spanned<String>>,
    write: Vec<Spanned<String>>,
    memory: Option<Spanned<Memory>>,
    open_files: Option<Spanned<u64>>,
    system_calls: Option<Vec<Spanned<String>>>,
}

/// A user as `UID:GID`.
struct UserKey(User);

impl<'de> Deserialize<'de> for UserKey {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let text = value.take_string(Some("a user such as \"10100:10100\""))?;
        let user = text.parse::<User>();
        user.map(Self)
            .map_err(|error| custom(span, format!("`{text}` cannot be the user of a backend"), error).into())
    }
}

impl Program {
    /// Takes the keys out of `table`. Returns none if there are none.
    pub(super) fn read(table: &mut TableHelper<'_>) -> Option<Result<Self, toml_span::Error>> {
        let keys = ["command", "user", "read", "write", "memory", "open-files", "system-calls"];
        let is_there = keys.iter().any(|key| table.contains(key));
        let command: Option<Result<Spanned<Vec<Spanned<String>>>, _>> = if is_there {
            Some(table.required_s("command"))
        } else {
            // Names the key in the list of those that are possible.
            table.optional_s("command").map(Ok)
        };
        let user: Option<Spanned<UserKey>> = table.optional("user");
        let user = user.map(|user| Spanned::with_span(user.value.0, user.span));
        let (read, write) = (table.optional("read"), table.optional("write"));
        let (memory, open_files) = (table.optional("memory"), table.optional("open-files"));
        let system_calls = table.optional("system-calls");
        Some(command?.map(|command| Self {
            command_span: command.span,
            command: command.value,
            user,
            read: read.unwrap_or_default(),
            write: write.unwrap_or_default(),
            memory,
            open_files,
            system_calls,
        }))
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        self.check_command(checks);
        for path in self.read.iter().chain(&self.write) {
            check_path(path, checks.found);
        }
        if let Some(Spanned { value, span }) = self.memory
            && value.bytes == 0
        {
            let diagnostic = Diagnostic::new(span, "a program without memory", "no program runs in this");
            checks.found.push(diagnostic.help("write \"16 MiB\" or more, or leave `memory` out"));
        }
        if let Some(Spanned { value, span }) = self.open_files
            && !OPEN_FILES.contains(&value)
        {
            let title = format!("a program cannot have {value} open files");
            let help = format!("write {} to {}", OPEN_FILES.start(), OPEN_FILES.end());
            checks.found.push(Diagnostic::new(span, title, "out of range").help(help));
        }
        for name in self.system_calls.iter().flatten() {
            check_system_call(name, checks.found);
        }
    }

    fn check_command(&self, checks: &mut Checks<'_>) {
        let Some(program) = self.command.first() else {
            let diagnostic = Diagnostic::new(self.command_span, "a command without a program", "no words");
            checks.found.push(diagnostic.help("write the program and its arguments: `[\"/usr/bin/…\", …]`"));
            return;
        };
        if !has_program(checks.manifest, &program.value) {
            let title = format!("the driver domain has no program `{}`", program.value);
            let path = if is_path(&program.value) { program.value.as_str() } else { "/usr/bin/…" };
            let help = format!("add `files = {{ \"{path}\" = \"…\" }}` to this device, and write that path");
            checks.found.push(Diagnostic::new(program.span, title, "not in its ramdisk").help(help));
        }
        for word in self.command.iter().filter(|word| word.value.contains('\0')) {
            let diagnostic = Diagnostic::new(word.span, "an argument with a NUL", "it would end there");
            checks.found.push(diagnostic.help("leave the character out"));
        }
        self.check_placeholder(checks.found);
    }

    fn check_placeholder(&self, found: &mut Vec<Diagnostic>) {
        let arguments = self.command.iter().skip(1);
        let count =
            |text: &str| arguments.clone().map(|word| word.value.matches(text).count()).sum::<usize>();
        let count: usize = [FD, LISTEN_FD, SOCKET].into_iter().map(count).sum();
        if count == 1 {
            return;
        }
        let title = match count {
            0 => "a command without a place for its socket".to_owned(),
            count => format!("a command with {count} places for its socket"),
        };
        let help = format!(
            "write one argument with `{SOCKET}` (the path at which the program listens), `{LISTEN_FD}` (the \
             number of a listening socket) or `{FD}` (the number of a connected one)"
        );
        found.push(Diagnostic::new(self.command_span, title, "one is needed").help(help));
    }

    /// The program in the shim's configuration.
    pub(super) fn configuration(&self, place: &Place<'_>) -> shim_config::Program {
        let paths = |paths: &[Spanned<String>]| paths.iter().map(|path| PathBuf::from(&path.value)).collect();
        let names = |names: &Vec<Spanned<String>>| names.iter().map(|name| name.value.clone()).collect();
        shim_config::Program {
            command: self.command.iter().map(|word| word.value.clone()).collect(),
            user: Some(self.user.as_ref().map_or(place.own_user, |user| user.value)),
            confine: Some(Confine {
                read: paths(&self.read),
                write: paths(&self.write),
                memory: self.memory.as_ref().map(|memory| memory.value.bytes),
                open_files: self.open_files.as_ref().map(|count| count.value),
                system_calls: self.system_calls.as_ref().map(names),
            }),
        }
    }

    /// What the program reaches in the driver domain.
    pub(super) fn reaches(&self) -> Vec<String> {
        let lines = [("reads", &self.read), ("reads and writes", &self.write)];
        let lines = lines.into_iter().flat_map(|(verb, paths)| {
            paths.iter().map(move |path| format!("its program {verb} {}", path.value))
        });
        lines.collect()
    }
}

fn check_path(path: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    let text = path.value.as_str();
    if !is_path(text) {
        let title = format!("{text:?} cannot be a path for a backend");
        let help = "write an absolute path such as \"/dev/hwrng\", without `.` and `..`";
        found.push(Diagnostic::new(path.span, title, "not a plain absolute path").help(help));
    } else if let Some(refused) =
        REFUSED.iter().find(|refused| is_below(text, refused) || is_below(refused, text))
    {
        let title = format!("`{text}` would open `{refused}` to a backend");
        let label = "what is there reaches other guests, too";
        let help = format!("name paths beside `{refused}`: the shim gives a backend what it needs of it");
        found.push(Diagnostic::new(path.span, title, label).help(help));
    }
}

fn check_system_call(name: &Spanned<String>, found: &mut Vec<Diagnostic>) {
    let plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    if name.value.is_empty() || !name.value.chars().all(plain) {
        let title = format!("{:?} cannot name a system call", name.value);
        let help = format!("write names as in Linux's manual pages: {}", listed(["openat", "preadv2"]));
        found.push(Diagnostic::new(name.span, title, "other characters").help(help));
    }
}
