// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Valid manifests and boards, with all their keys.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use toml::{Table, Value, toml};

/// Kernels among the input files, with their sizes in MiB.
pub(crate) const KERNELS: [(&str, u64); 3] = [("Image", 8), ("rtos.bin", 1), ("Image,new", 12)];

/// Ramdisks among them.
pub(crate) const RAMDISKS: [(&str, u64); 2] = [("guest.cpio.gz", 4), ("small.cpio.gz", 1)];

/// Programs among them.
pub(crate) const PROGRAMS: [&str; 3] = ["bin/agent", "bin/other", "bin/daemon"];

/// The largest number of hardware of a board.
pub(crate) const MOST_HARDWARE: u64 = 6;

/// The largest number of guests, and the number of I2C addresses and GPIO lines for each.
const MOST_GUESTS: i64 = 4;
const ADDRESSES_EACH: i64 = 24;
const LINES_EACH: i64 = 150;

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

/// A manifest and its board.
#[derive(Clone)]
pub(crate) struct Documents {
    pub(crate) manifest: Table,
    pub(crate) board: Table,
    /// The mutations.
    pub(crate) changes: Vec<String>,
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { manifest, board, changes } = self;
        writeln!(f, "changes: {changes:#?}\nmanifest.toml:\n{manifest}board.toml:\n{board}")
    }
}

/// The address of the registers of the hardware at `place` in the list.
pub(crate) fn base(place: u64) -> u64 {
    0x0900_0000 + (place << 16)
}

/// Its SPIs.
pub(crate) fn spis(place: u64) -> std::ops::Range<u32> {
    let first = u32::try_from(place).unwrap() * 4;
    first..first + 4
}

/// The parent and the name of its host node.
pub(crate) fn host_node(place: u64) -> (&'static str, String) {
    (if place.is_multiple_of(2) { "/" } else { "/soc" }, format!("device@{:x}", base(place)))
}

/// Any of them.
pub(crate) fn documents() -> impl Strategy<Value = Documents> {
    (machine(), vec(hardware(), 1..=6), driver_domain(), vec(guest(), 1..=4), option::of(qemu())).prop_map(
        |(machine, hardware, driver_domain, guests, qemu)| {
            let (hardware, kinds): (Table, Vec<_>) = place_hardware(hardware);
            let mut board = toml! { xen = { bootargs = "console=dtuart dtuart=/pl011@9000000 bootscrub=0" } };
            board.insert("machine".into(), machine.into());
            board.insert("hardware".into(), hardware.into());
            board.extend(qemu.map(|qemu| ("qemu".into(), qemu.into())));
            let mut manifest = toml! { board = "board.toml" };
            let mut driver_domain = driver_domain;
            let names: Vec<_> = kinds.iter().map(|(name, _)| name.clone()).collect();
            driver_domain.insert("hardware".into(), names.into());
            manifest.insert("driver-domain".into(), driver_domain.into());
            let guests: Vec<Value> = (0..MOST_GUESTS)
                .zip(guests)
                .map(|(number, guest)| guest.place(number, &kinds).into())
                .collect();
            manifest.insert("guest".into(), guests.into());
            Documents { manifest, board, changes: Vec::new() }
        },
    )
}

fn region(base: i64, size: i64) -> Value {
    toml! { base = base size = size }.into()
}

fn machine() -> impl Strategy<Value = Table> {
    (1..=8_i64, vec(1..=4_i64, 1..=3), 64..=512_i64, 0..=63_i64, 1..=2_i64).prop_map(
        |(cpus, banks, modules, offset, fraction)| {
            let mut ram = Vec::new();
            let mut next = GIB;
            for size in banks {
                ram.push(region(next, size * GIB));
                next += (size + 1) * GIB;
            }
            let (last, size) = (next - GIB - 256 * MIB, 256 * MIB / fraction);
            let mut machine = toml! { cpus = cpus };
            machine.insert("ram".into(), ram.into());
            machine.insert("modules".into(), region(GIB + (132 + offset) * MIB, modules * MIB / 4 * 4));
            machine.insert("static-memory".into(), region(last, size));
            machine
        },
    )
}

fn qemu() -> impl Strategy<Value = Table> {
    vec(words(), 0..3).prop_map(|args| {
        let mut qemu = toml! { program = "qemu-system-aarch64" machine = "virt,virtualization=on" };
        qemu.insert("args".into(), args.into());
        qemu
    })
}

/// A piece of hardware without its place.
#[derive(Clone, Debug)]
struct Piece {
    table: Table,
    kind: &'static str,
    reg: Vec<(u64, u64)>,
    triggers: Vec<&'static str>,
}

fn hardware() -> impl Strategy<Value = Piece> {
    let clocks = vec(("[a-z][a-z0-9_]{0,9}", 1..=u32::MAX), 0..=2);
    let reg = vec((0..0x800_u64, 1..0x800_u64), 1..=2);
    let triggers = vec(select(vec!["edge-rising", "level-high"]), 0..=3);
    let kind = select(vec!["i2c", "gpio", "other"]);
    (kind, any::<bool>(), compatible(), clocks, properties(), reg, triggers).prop_map(
        |(kind, has_qemu, compatible, clocks, properties, reg, triggers)| {
            let mut table = Table::new();
            table.insert("kind".into(), kind.into());
            if kind == "gpio" {
                table.insert("lines".into(), (MOST_GUESTS * LINES_EACH).into());
            }
            table.insert("compatible".into(), compatible);
            let mut seen = HashSet::new();
            let clocks = clocks.into_iter().filter(|(name, _)| seen.insert(name.clone()));
            let clocks: Vec<Value> =
                clocks.map(|(name, frequency)| toml! { name = name frequency = frequency }.into()).collect();
            table.insert("clocks".into(), clocks.into());
            table.insert("properties".into(), properties.into());
            if has_qemu {
                let device = toml! { vhost-user = "vhost-user-device" bus = "virtio-mmio-bus.1" };
                table.insert("qemu".into(), device.into());
            }
            Piece { table, kind, reg, triggers }
        },
    )
}

/// The table of all hardware, and the name and the kind of each.
fn place_hardware(pieces: Vec<Piece>) -> (Table, Vec<(String, &'static str)>) {
    let mut all = Table::new();
    let mut kinds = Vec::new();
    for (place, piece) in (0..MOST_HARDWARE).zip(pieces) {
        let Piece { mut table, kind, reg, triggers } = piece;
        let start = |page: u64, offset: u64| i64::try_from(base(place) + (page << 12) + offset).unwrap();
        let first = start(0, reg.first().map_or(0, |(offset, _)| *offset));
        let (parent, name) = host_node(place);
        table.insert("host-node".into(), format!("{}/{name}", parent.trim_end_matches('/')).into());
        table.insert("node".into(), format!("{kind}@{first:x}").into());
        let reg: Vec<_> = (0..)
            .zip(reg)
            .map(|(page, (offset, size))| region(start(page, offset), i64::try_from(size).unwrap()))
            .collect();
        table.insert("reg".into(), reg.into());
        let interrupts: Vec<Value> = spis(place)
            .map(i64::from)
            .zip(triggers)
            .map(|(spi, trigger)| toml! { spi = spi trigger = trigger }.into())
            .collect();
        table.insert("interrupts".into(), interrupts.into());
        let name = format!("{kind}{place}");
        kinds.push((name.clone(), kind));
        all.insert(name, table.into());
    }
    (all, kinds)
}

/// The keys of every domain.
fn domain() -> impl Strategy<Value = Table> {
    let kernel = select(KERNELS.map(|(name, _)| name).to_vec());
    (32..=64_i64, option::of(1..=8_i64), option::of(kernel), option::of(words())).prop_map(
        |(memory, vcpus, kernel, bootargs)| {
            let mut domain = Table::new();
            domain.insert("memory".into(), format!("{memory} MiB").into());
            domain.extend(vcpus.map(|vcpus| ("vcpus".into(), vcpus.into())));
            domain.extend(kernel.map(|kernel| ("kernel".into(), kernel.into())));
            domain.extend(bootargs.map(|bootargs| ("bootargs".into(), bootargs.into())));
            domain
        },
    )
}

fn driver_domain() -> impl Strategy<Value = Table> {
    (domain(), 64..=120_i64, 2..=8_i64, any::<bool>()).prop_map(|(mut domain, memory, vcpus, has_console)| {
        domain.insert("memory".into(), format!("{memory} MiB").into());
        domain.insert("vcpus".into(), vcpus.into());
        if has_console {
            domain.insert("console".into(), vec!["/usr/bin/agent", "--quiet"].into());
            let files = toml! { "/usr/bin/agent" = "bin/agent" "/etc/deep/other" = "bin/other" };
            domain.insert("files".into(), files.into());
        }
        domain
    })
}

/// A guest without its addresses and lines.
#[derive(Clone, Debug)]
struct Guest {
    table: Table,
    name: String,
    i2c: Vec<I2c>,
    gpio: Vec<Gpio>,
    virtio: Vec<Table>,
    telemetry: Option<Table>,
}

type I2c = (prop::sample::Index, Vec<(i64, Table)>, Option<i64>, bool);
type Gpio = (prop::sample::Index, i64, i64, Table, Option<i64>);

fn guest() -> impl Strategy<Value = Guest> {
    let ramdisk = option::of(select(RAMDISKS.map(|(name, _)| name).to_vec()));
    let busy_poll = || option::of(0..=1000_i64);
    let targets = vec((0..ADDRESSES_EACH, target()), 1..=3);
    let i2c = vec((any::<prop::sample::Index>(), targets, busy_poll(), any::<bool>()), 0..=3);
    let count = prop_oneof![20 => 1..=4_i64, 1 => 120..=LINES_EACH];
    let gpio = vec((any::<prop::sample::Index>(), 0..LINES_EACH, count, line(), busy_poll()), 0..=2);
    let access = option::of(select(vec!["granted", "all"]));
    let virtio = (vec(virtio(), 0..=2), option::of(telemetry()));
    (domain(), "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8})?", ramdisk, access, i2c, gpio, virtio).prop_map(
        |(mut table, name, ramdisk, access, i2c, gpio, (virtio, telemetry))| {
            table.extend(ramdisk.map(|ramdisk| ("ramdisk".into(), ramdisk.into())));
            table.extend(access.map(|access| ("memory-access".into(), access.into())));
            Guest { table, name, i2c, gpio, virtio, telemetry }
        },
    )
}

/// A device of any type, without its name and its user.
fn virtio() -> impl Strategy<Value = Table> {
    let known = select(vec!["rng", "console", "scsi", "vsock", "fs", "sound", "i2c", "gpio"]);
    let known = known.prop_map(|name| toml! { type = name });
    let unknown = (49..=99_i64, 2..=8_i64, 1..=10_u32, 0..=256_i64, 0..=0xff_ffff_i64);
    let unknown = unknown.prop_map(|(id, queues, size, config, features)| {
        let mut table = toml! { inbound = [1] device-id = id queues = queues config-size = config };
        table.insert("queue-size".into(), (1_i64 << size).into());
        table.insert("features".into(), features.into());
        let writable = toml! { offset = 0 size = config };
        table.insert("writable".into(), writable.into());
        table
    });
    (prop_oneof![known, unknown], served(), any::<bool>()).prop_map(|(mut table, served, optional)| {
        table.extend(served);
        table.insert("optional".into(), optional.into());
        table
    })
}

/// A console for any source.
fn telemetry() -> impl Strategy<Value = Table> {
    prop_oneof![
        Just(toml! { source = "log" }),
        Just(toml! { source = "file:/var/log/messages" busy-poll-us = 10 }),
        Just(toml! { source = "unix:/run/status" requests = ["json", "openmetrics"] }),
    ]
}

/// What serves a device.
fn served() -> impl Strategy<Value = Table> {
    let place = select(vec!["{fd}", "{listen-fd}", "{socket}"]);
    let paths = || vec(select(vec!["/dev/hwrng", "/srv/share", "/proc"]), 0..=2);
    let calls = option::of(vec(select(vec!["openat", "read", "preadv2"]), 1..=2));
    let limits = (option::of(1..=64_i64), option::of(16..=4096_i64));
    let program = (place, words(), paths(), paths(), calls, limits).prop_map(
        |(place, argument, read, write, calls, (memory, open_files))| {
            let socket = format!("--socket={place}");
            let command = vec!["/usr/bin/daemon".to_owned(), socket, argument];
            let mut table = toml! { files = { "/usr/bin/daemon" = "bin/daemon" } };
            table.insert("command".into(), command.into());
            table.insert("read".into(), read.into());
            table.insert("write".into(), write.into());
            table.extend(calls.map(|calls| ("system-calls".into(), calls.into())));
            table.extend(memory.map(|memory| ("memory".into(), format!("{memory} MiB").into())));
            table.extend(open_files.map(|count| ("open-files".into(), count.into())));
            table
        },
    );
    prop_oneof![4 => program, 1 => Just(toml! { socket = "/run/daemon.sock" })]
}

fn target() -> impl Strategy<Value = Table> {
    option::of((compatible(), properties())).prop_map(|node| {
        let mut target = Table::new();
        if let Some((compatible, properties)) = node {
            target.insert("compatible".into(), compatible);
            target.insert("properties".into(), properties.into());
        }
        target
    })
}

fn line() -> impl Strategy<Value = Table> {
    let safe = option::of(prop_oneof![Just(Value::from(0)), Just(Value::from(1)), Just(Value::from("stay"))]);
    let bias = option::of(select(vec!["pull-up", "pull-down", "disabled"]));
    let drive = option::of(select(vec!["push-pull", "open-drain", "open-source"]));
    let debounce = option::of(1..=1_000_000_i64);
    (safe, bias, drive, debounce).prop_map(|(safe, bias, drive, debounce)| {
        let options = [
            ("safe", safe),
            ("bias", bias.map(Value::from)),
            ("drive", drive.map(Value::from)),
            ("debounce-us", debounce.map(Value::from)),
        ];
        options.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    })
}

impl Guest {
    /// The guest with the given number, on hardware of these names and kinds.
    fn place(self, number: i64, kinds: &[(String, &'static str)]) -> Table {
        let of_kind = |wanted: &str| {
            kinds
                .iter()
                .filter(|(_, kind)| *kind == wanted)
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
        };
        let (adapters, chips, others) = (of_kind("i2c"), of_kind("gpio"), of_kind("other"));
        let mut table = self.table;
        table.insert("name".into(), format!("{}{number}", self.name).into());
        let mut taken = HashSet::new();
        let i2c = self.i2c.iter().enumerate().filter(|_| !adapters.is_empty());
        let i2c = i2c.filter_map(|(place, device)| place_i2c(place, number, device, &adapters, &mut taken));
        table.insert("i2c".into(), i2c.collect::<Vec<_>>().into());
        let mut taken = HashSet::new();
        let gpio = self.gpio.iter().enumerate().filter(|_| !chips.is_empty());
        let gpio = gpio.filter_map(|(place, device)| place_gpio(place, number, device, &chips, &mut taken));
        table.insert("gpio".into(), gpio.collect::<Vec<_>>().into());
        // The first guest has all other hardware.
        let mut others = others.into_iter().filter(|_| number == 0);
        let virtio = (0..)
            .zip(self.virtio)
            .map(|(place, device)| place_virtio(device, number * 16 + place, others.next()));
        table.insert("virtio".into(), virtio.collect::<Vec<_>>().into());
        table.extend(self.telemetry.map(|device| ("telemetry".into(), vec![Value::from(device)].into())));
        table
    }
}

fn place_virtio(mut device: Table, number: i64, hardware: Option<&str>) -> Value {
    device.insert("name".into(), format!("device{number}").into());
    if device.contains_key("command") && number % 2 == 0 {
        device.insert("user".into(), format!("{0}:{0}", 12_000 + number).into());
    }
    device.extend(hardware.map(|hardware| ("hardware".into(), vec![hardware].into())));
    device.into()
}

fn place_i2c<'a>(
    place: usize,
    guest: i64,
    (adapter, targets, busy_poll, strict): &I2c,
    adapters: &[&'a str],
    taken: &mut HashSet<(&'a str, i64)>,
) -> Option<Value> {
    let adapter = *adapter.get(adapters);
    let mut placed: Vec<Value> = Vec::new();
    for (offset, target) in targets {
        let address = 8 + guest * ADDRESSES_EACH + offset;
        if taken.insert((adapter, address)) {
            let mut target = target.clone();
            target.insert("address".into(), address.into());
            placed.push(target.into());
        }
    }
    let mut device = toml! { adapter = adapter };
    device.insert("strict".into(), (*strict).into());
    device.insert("name".into(), format!("bus{place}").into());
    device.extend(busy_poll.map(|busy_poll| ("busy-poll-us".into(), busy_poll.into())));
    let is_empty = placed.is_empty();
    device.insert("targets".into(), placed.into());
    (!is_empty).then_some(device.into())
}

fn place_gpio<'a>(
    place: usize,
    guest: i64,
    (chip, first, count, options, busy_poll): &Gpio,
    chips: &[&'a str],
    taken: &mut HashSet<(&'a str, i64)>,
) -> Option<Value> {
    let chip = *chip.get(chips);
    let mut lines: Vec<Value> = Vec::new();
    for line in (*first..LINES_EACH.min(first + count)).map(|offset| guest * LINES_EACH + offset) {
        if taken.insert((chip, line)) {
            let mut table = options.clone();
            table.insert("chip".into(), chip.into());
            table.insert("line".into(), line.into());
            table.insert("name".into(), format!("Line {line}, shared = \\no").into());
            lines.push(table.into());
        }
    }
    let mut device = Table::new();
    device.insert("name".into(), format!("chip{place}").into());
    device.extend(busy_poll.map(|busy_poll| ("busy-poll-us".into(), busy_poll.into())));
    if place == 0 && guest % 2 == 0 {
        device.insert("base".into(), 0x0200_2000.into());
        device.insert("irq".into(), 43.into());
    }
    let is_empty = lines.is_empty();
    device.insert("lines".into(), lines.into());
    (!is_empty).then_some(device.into())
}

/// Words of a kernel's or QEMU's command line.
fn words() -> impl Strategy<Value = String> {
    "[a-z]{1,8}(=[a-zA-Z0-9/.,:]{1,8})?( [a-z]{1,8}){0,3}"
}

fn compatible() -> impl Strategy<Value = Value> {
    let name = "[a-z]{1,8},[a-z0-9-]{1,12}";
    prop_oneof![name.prop_map(Value::from), vec(name, 1..=3).prop_map(Value::from)]
}

/// Properties without a meaning for dtc.
fn properties() -> impl Strategy<Value = Table> {
    vec(("[a-z]{1,8},[a-z][a-z0-9-]{0,8}", property()), 0..=3)
        .prop_map(|entries| entries.into_iter().collect())
}

fn property() -> impl Strategy<Value = Value> {
    let integer = || i64::from(i32::MIN)..=i64::from(u32::MAX);
    let wide = |width: &'static str, least: i64, most: i64| {
        vec(least..=most, 1..=3).prop_map(move |numbers| {
            Value::from(Table::from_iter([(width.to_owned(), Value::from(numbers))]))
        })
    };
    prop_oneof![
        Just(Value::from(true)),
        integer().prop_map(Value::from),
        vec(integer(), 1..=4).prop_map(Value::from),
        words().prop_map(Value::from),
        vec(words(), 1..=3).prop_map(Value::from),
        wide("u8", -128, 255),
        wide("u16", -32768, 65535),
        wide("u64", i64::MIN, i64::MAX),
    ]
}
