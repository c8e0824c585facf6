// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The attacks: the command of the bare-metal guest, how often it runs, and what it has to reach.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::host::machine::Machine;
use serde_json::json;

use crate::shared;

/// The limit for one command of the guest. Only a failure takes that long.
const LIMIT: Duration = Duration::from_secs(600);

/// An attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// The command of the guest, without its last arguments: the seed and the number of attempts.
    command: &'static str,
    /// The number of attempts in each command.
    size: u64,
    /// The number of commands in the normal run, and in the long run.
    commands: [u64; 2],
    /// The counts of the report that must not be 0: they show that attempts passed the first checks.
    reached: &'static [&'static str],
    /// The number of messages that the bus delays, in each command.
    delays: u64,
}

/// The duration of a delayed message.
const DELAY_MILLISECONDS: u64 = 100;
/// The address of the guest's target.
const EEPROM: u16 = 0x50;

/// The attacks, in the order in which they run.
pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "hostile-register-accesses",
        command: "registers",
        size: 5000,
        commands: [4, 210],
        reached: &["started"],
        delays: 0,
    },
    Attack {
        name: "hostile-rings-of-the-i2c-device",
        command: "rings i2c",
        size: 100,
        commands: [1, 50],
        reached: &["started"],
        delays: 0,
    },
    Attack {
        name: "hostile-rings-of-the-gpio-device",
        command: "rings gpio",
        size: 100,
        commands: [1, 50],
        reached: &["started"],
        delays: 0,
    },
    Attack {
        name: "hostile-chains-for-the-i2c-device",
        command: "chains i2c",
        size: 250,
        commands: [2, 205],
        reached: &["used", "needs-reset"],
        delays: 0,
    },
    Attack {
        name: "hostile-chains-for-the-gpio-device",
        command: "chains gpio",
        size: 250,
        commands: [6, 205],
        reached: &["used", "needs-reset"],
        delays: 0,
    },
    Attack {
        name: "kick-storm",
        command: "storm",
        size: 2000,
        commands: [1, 50],
        reached: &["kicks"],
        delays: 0,
    },
    Attack {
        name: "grants-revoked-while-in-use",
        command: "revoked",
        size: 14,
        commands: [1, 10],
        reached: &["in-flight", "rings-in-use"],
        delays: 14,
    },
];

impl Attack {
    /// Runs all commands of the attack, and `at_quarter` after a quarter of them.
    ///
    /// # Errors
    /// Returns an error if the guest did not complete them, if they reached less than they have to, or if an
    /// access was aborted.
    pub(crate) fn run(&self, machine: &Machine, mut at_quarter: impl FnMut() -> Result<()>) -> Result<()> {
        let [short, long] = self.commands;
        let commands = if shared::is_long() { long } else { short };
        let seed: u64 = env::var("XBA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        let start = Instant::now();
        let mut total = Totals::default();
        for number in 0..commands {
            if number == commands / 4 {
                at_quarter()?;
            }
            let (seed, size) = (seed.wrapping_add(number).to_string(), self.size.to_string());
            let mut command = vec!["hostile"];
            command.extend(self.command.split(' ').chain([seed.as_str(), size.as_str()]));
            if self.delays > 0 {
                let fault = json!({ "delay-ms": DELAY_MILLISECONDS });
                let injection = json!({ "address": EEPROM, "fault": fault, "count": self.delays });
                machine.i2c.control(&json!({ "inject": injection }))?;
            }
            let text = machine.guest_a.check(&command, LIMIT).with_context(|| command.join(" "))?;
            total.add(&text).with_context(|| format!("{}: {text}", command.join(" ")))?;
        }
        eprintln!("{}: {} in {:.0} s", self.name, total.text(), start.elapsed().as_secs_f64());
        let is_reached = self.reached.iter().all(|name| total.of(name) > 0);
        ensure!(is_reached, "the attack has not reached {}: {}", self.reached.join(" and "), total.text());
        ensure!(total.of("aborts") == 0, "{} accesses were aborted", total.of("aborts"));
        Ok(())
    }
}

/// The sums of the guest's reports, which are `name=number` separated by spaces.
#[derive(Default)]
struct Totals(BTreeMap<String, u64>);

impl Totals {
    fn add(&mut self, report: &str) -> Result<()> {
        for pair in report.split_whitespace() {
            let (name, number) = pair.split_once('=').context("not a report")?;
            *self.0.entry(name.to_owned()).or_default() += number.parse::<u64>()?;
        }
        Ok(())
    }

    fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn text(&self) -> String {
        let pairs: Vec<String> = self.0.iter().map(|(name, number)| format!("{name}={number}")).collect();
        pairs.join(" ")
    }
}
