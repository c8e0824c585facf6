// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mistakes of an author: a value out of range, a name that is taken, an empty list, the same item twice.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use toml::{Table, Value};

use crate::generate::Documents;

/// Integers at the limits of some range.
const INTEGERS: [i64; 26] = [
    0,
    1,
    2,
    3,
    -1,
    7,
    8,
    0x77,
    0x78,
    0x7f,
    0x80,
    255,
    256,
    512,
    1000,
    1001,
    1023,
    4095,
    65_535,
    65_536,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    i64::MIN,
    i64::MAX,
];

/// Strings with characters that are special to a consumer, and names that are taken.
const STRINGS: [&str; 103] = [
    "",
    " ",
    "a b",
    "a\0b",
    "a\nb",
    "a\tb",
    "\"",
    "\\",
    "'",
    "`",
    "é",
    "日本",
    "a,b",
    "a=b",
    "a:b",
    "a;b",
    "#a",
    "$a",
    "-",
    "--",
    "-x",
    "a-",
    "--help",
    "/",
    "//",
    "/..",
    "../x",
    "a/b",
    "a//b",
    "a@",
    "@",
    "@1",
    "a@b@c",
    "a@1",
    "a@01",
    "a@zz",
    ".",
    "..",
    "a.b",
    "a_b",
    "A",
    "0",
    "1",
    "-1",
    "any",
    "stay",
    "pull-up",
    "i2c",
    "gpio",
    "edge-rising",
    "security",
    "device",
    "irq",
    "iomem",
    "ioport",
    "nobody",
    "dom0",
    "domxen",
    "domio",
    "xenboot",
    "xen",
    "lock",
    "root",
    "host",
    "board",
    "image",
    "driver",
    "driver-domain",
    "domain",
    "guest",
    "shim",
    "system",
    "system-u",
    "object",
    "allow",
    "type",
    "role",
    "user",
    "sid",
    "class",
    "if",
    "define",
    "dnl",
    "include",
    "len",
    "unlabeled",
    "idle",
    "chosen",
    "module",
    "passthrough",
    "gic",
    "grant-dma",
    "0 MiB",
    "31 MiB",
    "1 GiB",
    "17592186044415 MiB",
    "0:0",
    "10002:10002",
    "12000:12000",
    "20022:20022",
    "all",
    "rng",
    "other",
];

/// Paths of the driver domain.
const PATHS: [&str; 12] = [
    "/init",
    "/bin",
    "/bin/busybox",
    "/bin/busybox/a",
    "/dev/console",
    "/proc/a",
    "/run/a",
    "/etc/inittab",
    "/etc/passwd",
    "/usr/bin/backend",
    "/usr/bin/agent/a",
    "/etc/xen-frontend-shim.toml",
];

/// Properties with a meaning for dtc, Xen or Linux.
const PROPERTIES: [&str; 22] = [
    "phandle",
    "linux,phandle",
    "reg",
    "ranges",
    "compatible",
    "status",
    "device_type",
    "name",
    "model",
    "label",
    "interrupts",
    "interrupt-parent",
    "interrupt-controller",
    "#interrupt-cells",
    "#address-cells",
    "#size-cells",
    "clocks",
    "clock-names",
    "gpios",
    "reset-gpios",
    "xen,path",
    "xen,reg",
];

/// Lengths at the limits of some buffer.
const LENGTHS: [usize; 12] = [31, 32, 63, 64, 255, 256, 1000, 1023, 1024, 2047, 2048, 4096];

/// A change, and where it is made.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    kind: Index,
    place: Index,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    /// Another value.
    Value(Value),
    /// The value of the same key elsewhere.
    Copy(Index),
    /// No value.
    Remove,
    /// An item of a list twice.
    Again,
    /// Another key, in a table with keys of the author.
    Rename(String),
}

/// No change, or up to three.
pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let mutation = (any::<Index>(), any::<Index>(), change());
    let mutation = mutation.prop_map(|(kind, place, change)| Mutation { kind, place, change });
    prop_oneof![1 => Just(Vec::new()), 3 => vec(mutation, 1..=3)]
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![
        4 => select(INTEGERS.to_vec()).prop_map(Value::from),
        4 => strings().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Array(Vec::new())),
        1 => Just(Value::Table(Table::new())),
    ];
    prop_oneof![
        8 => value.prop_map(Change::Value),
        4 => any::<Index>().prop_map(Change::Copy),
        1 => Just(Change::Remove),
        2 => Just(Change::Again),
        4 => strings().prop_map(Change::Rename),
    ]
}

fn strings() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(STRINGS.to_vec()).prop_map(str::to_owned),
        1 => select(PATHS.to_vec()).prop_map(str::to_owned),
        2 => select(PROPERTIES.to_vec()).prop_map(str::to_owned),
        1 => select(LENGTHS.to_vec()).prop_map(|length| "a".repeat(length)),
        1 => "[ -~]{1,12}",
    ]
}

/// A step from a value to one in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Item(place) => write!(f, "{place}"),
        }
    }
}

/// Makes the changes, each at a value of the same type if there is one.
pub(crate) fn apply(documents: Documents, mutations: &[Mutation]) -> Documents {
    let mut whole = Table::new();
    whole.insert("manifest".into(), documents.manifest.clone().into());
    whole.insert("board".into(), documents.board.clone().into());
    let mut whole = Value::from(whole);
    let changes = mutations.iter().filter_map(|mutation| change_one(&mut whole, mutation)).collect();
    let table = |name: &str, before: &Table| match whole.get(name) {
        Some(Value::Table(table)) => table.clone(),
        _ => before.clone(),
    };
    Documents {
        manifest: table("manifest", &documents.manifest),
        board: table("board", &documents.board),
        changes,
    }
}

/// Makes one change and describes it. Returns none if no value fits.
fn change_one(whole: &mut Value, Mutation { kind, place, change }: &Mutation) -> Option<String> {
    let all: Vec<_> = places(whole).into_iter().filter(|path| path.len() > 1).collect();
    let at = |path: &[Step]| value(whole, path).cloned();
    let fits = |path: &&Path| match change {
        Change::Value(new) => at(path).is_some_and(|old| old.same_type(new)),
        Change::Again => matches!(path.last(), Some(Step::Item(_))),
        Change::Rename(_) => {
            matches!(path.last(), Some(Step::Key(_))) && path.iter().rev().nth(1).is_some_and(is_authors)
        }
        Change::Copy(_) | Change::Remove => true,
    };
    let fitting: Vec<_> = all.iter().filter(fits).collect();
    if fitting.is_empty() {
        return None;
    }
    // The key is chosen first, so that a key that occurs once is chosen as often as one of a hundred lines.
    let kinds: BTreeSet<_> = fitting.iter().map(|path| shape(path)).collect();
    let kind = kind.get(&Vec::from_iter(kinds)).clone();
    let of_kind: Vec<_> = fitting.into_iter().filter(|path| shape(path) == kind).collect();
    let path = *place.get(&of_kind);
    let (last, parent) = path.split_last()?;
    let old = at(path);
    let others: Vec<_> = all.iter().filter(|other| key(other) == key(path)).collect();
    let copied = if let Change::Copy(from) = change { at(from.get(&others).as_slice()) } else { None };
    let said =
        format!("{}: {change:?} {copied:?}", path.iter().map(Step::to_string).collect::<Vec<_>>().join("."));
    match (value_mut(whole, parent), last, change) {
        (Some(Value::Table(table)), Step::Key(key), Change::Remove) => {
            table.remove(key);
        }
        (Some(Value::Array(items)), Step::Item(place), Change::Remove) => {
            items.remove(*place);
        }
        (Some(Value::Array(items)), _, Change::Again) => items.extend(old),
        (Some(Value::Table(table)), Step::Key(key), Change::Rename(new)) => {
            if let Some(value) = table.remove(key) {
                table.insert(new.clone(), value);
            }
        }
        (Some(Value::Table(table)), Step::Key(key), Change::Value(new)) => {
            table.insert(key.clone(), new.clone());
        }
        (Some(Value::Table(table)), Step::Key(key), Change::Copy(_)) => {
            table.extend(copied.map(|value| (key.clone(), value)));
        }
        (Some(Value::Array(items)), Step::Item(place), _) => {
            let new = if let Change::Value(new) = change { Some(new.clone()) } else { copied };
            items.splice(place..=place, new.or(old));
        }
        _ => {}
    }
    Some(said)
}

type Path = Vec<Step>;

/// Whether the keys of this table are chosen by the author.
fn is_authors(step: &Step) -> bool {
    matches!(step, Step::Key(key) if ["hardware", "properties", "files"].contains(&key.as_str()))
}

/// The path with `*` for places in lists and keys of the author.
fn shape(path: &[Step]) -> String {
    let mut parent = None;
    let mut shape = String::new();
    for step in path {
        let is_any = matches!(step, Step::Item(_)) || parent.is_some_and(is_authors);
        shape += &if is_any { "/*".to_owned() } else { format!("/{step}") };
        parent = Some(step);
    }
    shape
}

/// The key of a value, or of the list that it is in.
fn key(path: &[Step]) -> Option<&Step> {
    path.iter().rev().find(|step| matches!(step, Step::Key(_)))
}

/// The paths of all values.
fn places(whole: &Value) -> Vec<Path> {
    let steps: Vec<(Step, &Value)> = match whole {
        Value::Table(table) => table.iter().map(|(key, value)| (Step::Key(key.clone()), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(place, item)| (Step::Item(place), item)).collect()
        }
        _ => return Vec::new(),
    };
    let mut all = Vec::new();
    for (step, value) in steps {
        all.push(vec![step.clone()]);
        all.extend(places(value).into_iter().map(|rest| [vec![step.clone()], rest].concat()));
    }
    all
}

fn value<'a>(whole: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(whole, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Item(place) => value.get(*place),
    })
}

fn value_mut<'a>(whole: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(whole, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Item(place) => value.get_mut(*place),
    })
}
