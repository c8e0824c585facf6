// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The report as Markdown.

use std::fmt::Write;

use crate::figures::{Figures, Report};
use crate::measure::spread;
use crate::spent::Counted;

/// The number of functions of a profile in the table. The JSON file has all.
const MOST_FUNCTIONS: usize = 25;

/// The contenders in the order of the table.
const CONTENDERS: [&str; 4] = ["ours", "upstream", "ioctl", "ours_under_load"];

/// Returns the whole report.
#[must_use]
pub fn markdown(report: &Report) -> String {
    [
        costs(report),
        places(report),
        counted(report),
        profile(report),
        start_and_idle(report),
        scale(report),
        ratios(report),
    ]
    .concat()
}

fn all(report: &Report) -> impl Iterator<Item = (&str, &str, &Figures)> {
    report.workloads.iter().flat_map(|(workload, contenders)| {
        let of = |name: &'static str| contenders.get(name).map(|figures| (workload.as_str(), name, figures));
        CONTENDERS.into_iter().filter_map(of)
    })
}

fn rows<const N: usize>(title: &str, head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    let rule: String = (0..N).map(|column| if column == 0 { "|---|" } else { "---:|" }).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("\n### {title}\n\n{}{rule}\n{body}", line(&head.map(str::to_owned)))
}

fn costs(report: &Report) -> String {
    let title = format!("What a request costs ({}, `{}`)", report.unit, report.clock);
    let head = ["", "median", "p99", "p99.9", "requests", "spread of rounds"];
    let row = |(workload, contender, figures): (&str, &str, &Figures)| {
        let cost = figures.cost;
        [
            format!("{workload}, {contender}"),
            cost.median.to_string(),
            cost.p99.to_string(),
            cost.p999.to_string(),
            figures.requests.to_string(),
            format!("{:.2} %", spread(&figures.rounds) * 100.0),
        ]
    };
    rows(&title, head, all(report).map(row))
}

fn places(report: &Report) -> String {
    let head = ["", "guest", "Xen", "driver-domain kernel", "shim", "daemon", "caller"];
    let row = |(workload, contender, figures): (&str, &str, &Figures)| {
        let [guest, xen, kernel, shim, daemon, other] =
            figures.places.named().map(|(_, value)| format!("{value:.0}"));
        [format!("{workload}, {contender}"), guest, xen, kernel, shim, daemon, other]
    };
    rows("Where the instructions go (mean of the median round)", head, all(report).map(row))
}

fn counted(report: &Report) -> String {
    let head = [
        "",
        "Xen entries",
        "hypercalls",
        "system calls of the shim",
        "of the daemon",
        "context switches",
        "TLB invalidations (Xen + kernel)",
        "page faults",
    ];
    let row = |(workload, contender, figures): (&str, &str, &Figures)| {
        let counted = &figures.counted;
        [
            format!("{workload}, {contender}"),
            format!("{:.1}", counted.xen_entries),
            calls(&counted.hypercalls),
            calls(&counted.shim_calls),
            calls(&counted.daemon_calls),
            format!("{:.1}", counted.context_switches),
            format!("{:.1} + {:.1}", counted.tlb_invalidations_xen, counted.tlb_invalidations_kernel),
            format!("{:.2}", counted.page_faults),
        ]
    };
    rows("Counted for each request (calls and switches: in the driver domain)", head, all(report).map(row))
}

/// Returns the functions with most instructions of our own requests, if there is a profile.
fn profile(report: &Report) -> String {
    let ours = all(report).filter(|(_, contender, _)| *contender == "ours");
    ours.map(|(workload, _, figures)| {
        let mut functions: Vec<_> = figures.profile.iter().collect();
        functions.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let row = |(name, count): (&String, &f64)| [name.clone(), format!("{count:.0}")];
        let most = functions.into_iter().take(MOST_FUNCTIONS).map(row);
        rows(&format!("Functions that {workload} is in"), ["", "instructions"], most)
    })
    .collect()
}

/// Returns the frequent calls, the most frequent first.
fn calls(calls: &std::collections::BTreeMap<String, f64>) -> String {
    let mut frequent: Vec<_> = calls.iter().filter(|(_, count)| **count >= 0.05).collect();
    frequent.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let text: Vec<_> = frequent.iter().map(|(name, count)| format!("{count:.1} {name}")).collect();
    if text.is_empty() { "–".to_owned() } else { text.join(", ") }
}

fn start_and_idle(report: &Report) -> String {
    let mut text = String::new();
    if let Some(start) = &report.start {
        let lines = [
            ("the guest's first instruction", start.to_guest),
            ("its first program", start.to_guest_program),
            ("its first transfer is answered", start.to_first_answer),
        ]
        .map(|(what, count)| [what.to_owned(), format!("{:.1}", crate::statistics::as_f64(count) / 1e6)]);
        let title = "From the driver domain's first instruction (millions of instructions)";
        text += &rows(title, ["until", "instructions"], lines.into_iter());
    }
    if let Some(idle) = &report.idle {
        let Counted { xen_entries, context_switches, idle_waits, .. } = idle.counted;
        let places = idle.places.named().map(|(name, count)| [name.to_owned(), format!("{count:.0}")]);
        text += &rows("An idle second, three guests", ["", "instructions"], places.into_iter());
        let _ = writeln!(
            text,
            "\nXen is entered {xen_entries:.0} times; the driver domain switches threads \
             {context_switches:.0} times and goes to sleep {idle_waits:.0} times."
        );
    }
    text
}

fn scale(report: &Report) -> String {
    let row = |(workload, scale): (&String, &crate::figures::Scale)| {
        let at = |guests| scale.cost.get(&guests).map_or_else(|| "–".to_owned(), |cost| format!("{cost:.0}"));
        [workload.clone(), at(1), at(2), at(4), at(8)]
    };
    let head = ["guests that ask, of 8 with 2 devices each", "1", "2", "4", "8"];
    rows("Instructions for each request, by the number of guests", head, report.scale.iter().map(row))
}

fn ratios(report: &Report) -> String {
    let row = |(name, ratio): (&String, &f64)| [name.clone(), format!("{ratio:.3}")];
    rows("Ratios", ["", ""], report.ratios.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_as_many_columns_as_their_heads() {
        let text = rows("Title", ["a", "b"], [["x".to_owned(), "1".to_owned()]].into_iter());
        assert_eq!(text, "\n### Title\n\n| a | b |\n|---|---:|\n| x | 1 |\n");
        assert_eq!(rows("Title", ["a"], std::iter::empty()), "");
    }

    #[test]
    fn rare_calls_are_left_out() {
        let some = [("ioctl", 2.0), ("read", 3.04), ("brk", 0.01)];
        assert_eq!(calls(&some.map(|(name, count)| (name.to_owned(), count)).into()), "3.0 read, 2.0 ioctl");
        assert_eq!(calls(&[].into()), "–");
    }
}
