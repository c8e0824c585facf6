// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accesses to registers by all CPUs at once: any offset, width and value. Some are steps of a driver, so
//! that the other accesses meet any state of the device.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};

use crate::cpus;
use crate::jobs::Job;
use crate::machine::Width;
use crate::random::{Pool, Random};
use crate::virtio::device::{Device, Kind, REQUIRED};
use crate::virtio::window::{
    CONFIG, CONFIG_GENERATION, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DRIVER_FEATURES, DRIVER_FEATURES_SEL,
    INTERRUPT_ACK, INTERRUPT_STATUS, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_READY,
    QUEUE_RESET, QUEUE_SEL, QUEUE_SIZE, QUEUE_SIZE_MAX, SHM_BASE, SHM_LEN, SHM_SEL, SIZE, STATUS, Window,
};

/// The registers of a driver.
const KNOWN: [u64; 24] = [
    0,
    4,
    8,
    12,
    DEVICE_FEATURES,
    DEVICE_FEATURES_SEL,
    DRIVER_FEATURES,
    DRIVER_FEATURES_SEL,
    QUEUE_SEL,
    QUEUE_SIZE_MAX,
    QUEUE_SIZE,
    QUEUE_READY,
    QUEUE_NOTIFY,
    INTERRUPT_STATUS,
    INTERRUPT_ACK,
    STATUS,
    QUEUE_DESC,
    QUEUE_DRIVER,
    QUEUE_DEVICE,
    SHM_SEL,
    SHM_LEN,
    SHM_BASE,
    QUEUE_RESET,
    CONFIG_GENERATION,
];

/// Status of a device that is in use and has found no error.
const RUNNING: u32 = 0x0f;
/// Values of Status: the steps of a driver, and others.
const STATUSES: [u32; 9] = [0, 1, 3, 0x0b, 0x0f, 0x4f, 0x80, 4, 8];

/// The accesses of one CPU to all devices.
struct Attack {
    random: Random,
    windows: Vec<Window>,
    pool: Arc<Pool>,
    left: u64,
    aborts: u64,
    /// How often a device has started.
    started: u64,
}

pub(super) fn run(job: &Job, seed: u64, count: u64) -> Result<()> {
    let (windows, pool) = (Window::all()?, Arc::new(Pool::new()?));
    ensure!(!windows.is_empty(), "the guest has no devices");
    let totals = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let shared = (Arc::clone(&pool), Arc::clone(&totals));
    let cpus = cpus::on_all(move |cpu| {
        let (random, pool) = (Random::new(seed, cpu), Arc::clone(&shared.0));
        let mut attack =
            Attack { random, windows: windows.clone(), pool, left: count / 2, aborts: 0, started: 0 };
        attack.run();
        shared.1.0.fetch_add(attack.aborts, Ordering::AcqRel);
        shared.1.1.fetch_add(attack.started, Ordering::AcqRel);
    });
    ensure!(cpus == 2, "{cpus} CPUs run, not 2");
    // No page of the pool may be mapped when the pool is dropped.
    for kind in Kind::ALL {
        drop(Device::find(kind)?);
    }
    let [aborts, started] = [&totals.0, &totals.1].map(|total| total.load(Ordering::Acquire));
    job.print(format_args!("accesses={count} aborts={aborts} started={started}"));
    Ok(())
}

impl Attack {
    fn run(&mut self) {
        while self.left > 0 {
            let place = self.random.below(self.windows.len());
            let Some(window) = self.windows.get(place).copied() else { return };
            match self.random.below(8) {
                0 => self.drive(window),
                1..4 => self.anything(window),
                _ => self.known(window),
            }
        }
    }

    fn load(&mut self, window: Window, offset: u64, width: Width) {
        self.left = self.left.saturating_sub(1);
        self.aborts += u64::from(window.load(offset, width).is_err());
    }

    fn store(&mut self, window: Window, offset: u64, width: Width, value: u64) {
        self.left = self.left.saturating_sub(1);
        self.aborts += u64::from(window.store(offset, width, value).is_err());
    }

    fn write(&mut self, window: Window, offset: u64, value: u32) {
        self.store(window, offset, Width::Word, value.into());
    }

    /// Makes an access of any width at any offset of the window, also across registers.
    fn anything(&mut self, window: Window) {
        let width = Width::ALL.get(self.random.below(4)).copied().unwrap_or(Width::Word);
        let room = usize::try_from(SIZE - width.bytes()).unwrap_or(0);
        let mut offset = u64::try_from(self.random.below(room + 1)).unwrap_or(0);
        if !self.random.one_in(4) {
            offset -= offset % width.bytes();
        }
        if self.random.one_in(2) {
            self.load(window, offset, width);
        } else {
            let value = u64::from(self.random.number()) << 32 | u64::from(self.random.number());
            self.store(window, offset, width, value);
        }
    }

    /// Accesses a register, or sometimes the configuration.
    fn known(&mut self, window: Window) {
        let register = if self.random.one_in(8) { CONFIG } else { self.random.pick(&KNOWN) };
        if self.random.one_in(2) {
            return self.load(window, register, Width::Word);
        }
        let value = match register {
            STATUS if !self.random.one_in(4) => self.random.pick(&STATUSES),
            QUEUE_SEL | QUEUE_NOTIFY | QUEUE_READY if !self.random.one_in(4) => self.random.pick(&[0, 1, 2]),
            _ => self.random.number(),
        };
        self.write(window, register, value);
    }

    /// Takes the steps of a driver from a reset up to any step, with errors.
    fn drive(&mut self, window: Window) {
        let features = REQUIRED | u64::from(self.random.pick(&[0_u32, 1, 1]));
        let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
        let mut steps = alloc::vec![
            (STATUS, 0),
            (STATUS, 1),
            (STATUS, 3),
            (DRIVER_FEATURES_SEL, 0),
            (DRIVER_FEATURES, u32::from_le_bytes([a, b, c, d])),
            (DRIVER_FEATURES_SEL, 1),
            (DRIVER_FEATURES, u32::from_le_bytes([e, f, g, h])),
            (STATUS, 0x0b),
        ];
        for queue in 0..2 {
            steps.extend([(QUEUE_SEL, queue), (QUEUE_SIZE, self.random.pick(&[2, 4, 16, 64]))]);
            for register in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE] {
                let address = match self.random.one_in(8) {
                    true => self.pool.any(&mut self.random),
                    false => self.pool.good(&mut self.random),
                };
                let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
                steps.push((register, u32::from_le_bytes([a, b, c, d])));
                steps.push((register + 4, u32::from_le_bytes([e, f, g, h])));
            }
            steps.push((QUEUE_READY, 1));
        }
        steps.extend([(STATUS, RUNNING), (QUEUE_NOTIFY, 0), (QUEUE_NOTIFY, 1), (INTERRUPT_ACK, 3)]);
        let end = 1 + self.random.below(steps.len());
        for (register, value) in steps.into_iter().take(end) {
            let value = if self.random.one_in(32) { self.random.number() } else { value };
            self.write(window, register, value);
            if (register, value) == (STATUS, RUNNING) {
                self.left = self.left.saturating_sub(1);
                self.started += u64::from(window.read(STATUS).is_ok_and(|status| status == RUNNING));
            }
        }
    }
}
