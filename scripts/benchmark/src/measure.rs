// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The measurements, in three boots: contenders, one guest, eight guests.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ledger::Mark;
use ledger::record::DRIVER_DOMAIN;

use crate::figures::{Figures, Idle, Report, Scale, Start};
use crate::image::{Image, MOST_GUESTS};
use crate::spent::Spent;
use crate::stack::{Clock, Host, Run, Stack, Where};
use crate::statistics::{Distribution, as_f64, per, rank};
use crate::workload::{Contender, Workload};

/// The amount of measurement.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// The number of rounds. Each contender runs once in a round.
    pub rounds: usize,
    /// The number of requests of a run.
    pub requests: u32,
    /// The number of edges of a run.
    pub edges: u32,
    /// The number of requests of the measured guest, while the other guests send requests without pause.
    pub each: u32,
    /// The numbers of guests.
    pub steps: &'static [usize],
}

impl Amount {
    /// The amount for published figures.
    pub const FULL: Self =
        Self { rounds: 5, requests: 1000, edges: 200, each: 500, steps: &[1, 2, 4, MOST_GUESTS] };
    /// The amount for checks during development.
    pub const QUICK: Self = Self { rounds: 3, requests: 200, edges: 30, each: 200, steps: &[1, MOST_GUESTS] };
}

/// The command of the guest that makes load.
fn load() -> (Where, String) {
    (Where::Guest(2), format!("time-gpio-set gpiochip0 0 {WITHOUT_END}"))
}

/// More requests than it can send before it is stopped.
const WITHOUT_END: u32 = 1_000_000;
const UNDER_LOAD: &str = "ours_under_load";

/// All runs of one contender in one workload.
#[derive(Debug, Default)]
struct Turns {
    costs: Vec<u64>,
    rounds: Vec<u64>,
    errors: u64,
    spent: Vec<(u64, Spent)>,
    profile: BTreeMap<String, u64>,
}

impl Turns {
    fn add(&mut self, run: &Run, stack: &Stack, clock: Clock) -> Result<()> {
        let costs = match clock {
            Clock::Instructions => &run.finish.costs,
            Clock::Wall => &run.finish.nanoseconds,
        };
        let median = Distribution::of(costs).context("no request was measured")?.median;
        self.rounds.push(median);
        self.costs.extend(costs);
        self.errors += run.errors;
        let spent = Spent::between(&run.begin, &run.finish, &stack.threads);
        self.spent.push((u64::try_from(costs.len())?, spent));
        for (function, count) in stack.symbols.by_function(&run.finish.profile) {
            *self.profile.entry(function).or_default() += count;
        }
        Ok(())
    }

    fn figures(&self) -> Result<Figures> {
        let requests = u64::try_from(self.costs.len())?;
        let (in_round, spent) = middle(&self.spent).context("no round was measured")?;
        Ok(Figures {
            requests,
            errors: self.errors,
            cost: Distribution::of(&self.costs).context("no request was measured")?,
            rounds: self.rounds.clone(),
            places: spent.places(*in_round),
            counted: spent.counted(*in_round),
            profile: self.profile.iter().map(|(name, count)| (name.clone(), per(*count, requests))).collect(),
        })
    }
}

/// The costs of all requests, by workload and contender, for the plot.
pub type Latencies = BTreeMap<(&'static str, &'static str), Vec<u64>>;

/// Measures the contenders, interleaved in one boot.
///
/// # Errors
/// Returns an error if a step fails.
pub fn contenders(host: &Host, clock: Clock, amount: Amount, report: &mut Report) -> Result<Latencies> {
    let mut stack = Stack::boot(host, Image::Contenders, clock)?;
    let mut turns: BTreeMap<(&'static str, &'static str), Turns> = BTreeMap::new();
    for round in 1..=amount.rounds {
        for workload in Workload::ALL {
            eprintln!("bench: round {round} of {}: {}", amount.rounds, workload.name());
            for contender in Contender::ALL {
                let run = turn(&mut stack, workload, contender, amount)
                    .with_context(|| format!("{} of {}", workload.name(), contender.name()))?;
                let of = turns.entry((workload.name(), contender.name())).or_default();
                of.add(&run, &stack, clock)?;
            }
        }
        under_load(&mut stack, clock, amount, &mut turns)?;
    }
    report.idle = Some(idle(&mut stack)?);
    stack.alive()?;
    for ((workload, contender), of) in &turns {
        let figures = of.figures()?;
        ensure!(figures.errors == 0, "{workload} of {contender}: {} transfers failed", figures.errors);
        report.workloads.entry((*workload).to_owned()).or_default().insert((*contender).to_owned(), figures);
    }
    Ok(turns.into_iter().map(|(name, turns)| (name, turns.costs)).collect())
}

fn turn(stack: &mut Stack, workload: Workload, contender: Contender, amount: Amount) -> Result<Run> {
    let place = contender.place();
    let run = match workload.command(contender, amount.requests) {
        Some(command) => stack.run(place, &command)?,
        None => stack.edges(place, contender.chip(), contender.line(), amount.edges)?,
    };
    // A backend may have started a thread for these requests.
    stack.threads.extend(stack.find_threads()?);
    Ok(run)
}

fn under_load(
    stack: &mut Stack,
    clock: Clock,
    amount: Amount,
    turns: &mut BTreeMap<(&'static str, &'static str), Turns>,
) -> Result<()> {
    // While a message is on the bus, only the host's clock runs: how much the load executes depends on the
    // host.
    let workloads: &[_] = match clock {
        Clock::Instructions => &[Workload::GpioGet],
        Clock::Wall => &[Workload::I2cRead, Workload::GpioGet],
    };
    for workload in workloads {
        let command = workload.command(Contender::Ours, amount.requests).context("no command")?;
        let run = stack.run_beside(&[load()], Contender::Ours.place(), &command)?;
        turns.entry((workload.name(), UNDER_LOAD)).or_default().add(&run, stack, clock)?;
    }
    Ok(())
}

/// Measures one second of the domain's clock without requests.
fn idle(stack: &mut Stack) -> Result<Idle> {
    eprintln!("bench: an idle second");
    let run = stack.run(Where::Guest(0), "idle 1000")?;
    let spent = Spent::between(&run.begin, &run.finish, &stack.threads);
    Ok(Idle { places: spent.places(1), counted: spent.counted(1) })
}

/// Measures the start of a driver domain with one guest.
///
/// # Errors
/// Returns an error if a step fails.
pub fn start(host: &Host, clock: Clock) -> Result<Start> {
    let mut stack = Stack::boot(host, Image::Guests(1), clock)?;
    let guest = Where::Guest(0);
    let ready = crate::records::of(&stack.boot, guest.domain()?, Mark::Ready).cloned();
    let ready = ready.context("the plugin has no record of the guest's agent")?;
    let run = stack.run(guest, "time-i2c 0 0x48 0 2 1")?;
    let began = |domain: u16| ready.first.get(&domain).copied().context("a domain has not run");
    let driver = began(DRIVER_DOMAIN)?;
    let answer = run.finish.costs.first().copied().context("no transfer")?;
    Ok(Start {
        to_guest: began(guest.domain()?)?.saturating_sub(driver),
        to_guest_program: ready.instructions.saturating_sub(driver),
        to_first_answer: (ready.instructions + answer).saturating_sub(driver),
    })
}

/// Measures the same request by one guest, and by up to eight at the same time.
///
/// # Errors
/// Returns an error if a step fails.
pub fn scale(host: &Host, clock: Clock, amount: Amount) -> Result<BTreeMap<String, Scale>> {
    let mut stack = Stack::boot(host, Image::Guests(MOST_GUESTS), clock)?;
    let mut scales = BTreeMap::new();
    for workload in [Workload::I2cRead, Workload::GpioGet] {
        let most = u64::try_from(MOST_GUESTS)?;
        let mut scale = Scale { guests: most, devices: 2, ..Scale::default() };
        for &guests in amount.steps {
            eprintln!("bench: {} by {guests} of {MOST_GUESTS} guests", workload.name());
            let ask = |count: u32| match workload {
                Workload::GpioGet => format!("time-gpio-get gpiochip0 0 {count}"),
                _ => format!("time-i2c 0 0x48 0 2 {count}"),
            };
            let others: Vec<_> = (1..guests).map(|guest| (Where::Guest(guest), ask(WITHOUT_END))).collect();
            let run = stack.run_beside(&others, Where::Guest(0), &ask(amount.each))?;
            let requests = run.finish.requests.saturating_sub(run.begin.requests);
            let spent = Spent::between(&run.begin, &run.finish, &stack.threads);
            let (guests, places) = (u64::try_from(guests)?, spent.places(requests));
            scale.cost.insert(guests, (places.outside_guest() + places.guest).round());
            scale.places.insert(guests, places);
        }
        scales.insert(workload.name().to_owned(), scale);
    }
    stack.alive()?;
    Ok(scales)
}

/// Returns the median round by cost per request, so that a disturbed round does not count.
fn middle(rounds: &[(u64, Spent)]) -> Option<&(u64, Spent)> {
    let mut sorted: Vec<_> = rounds.iter().collect();
    let cost = |(requests, spent): &(u64, Spent)| {
        let places = spent.places(*requests);
        places.outside_guest() + places.guest
    };
    sorted.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// Returns the distance between the lowest and the highest round, as a fraction of the median.
#[must_use]
pub fn spread(rounds: &[u64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_unstable();
    let (Some(least), Some(middle), Some(most)) = (sorted.first(), rank(&sorted, 500), sorted.last()) else {
        return 0.0;
    };
    as_f64(most - least) / as_f64(middle.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_round_does_not_count() {
        let round = |requests| (requests, Spent::default());
        assert_eq!(middle(&[round(1), round(2), round(3)]).unwrap().0, 2);
        assert!(middle(&[]).is_none());
    }

    #[test]
    fn equal_rounds_have_no_spread() {
        assert_eq!(spread(&[100, 100, 100]), 0.0);
        assert_eq!(spread(&[100, 110, 90]), 0.2);
        assert_eq!(spread(&[]), 0.0);
    }
}
