// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A manifest of any content is refused with a place and a message, or all files can be made from it. After a
//! line of dashes the input has a board file; without one it is the demo's.

#![no_main]

use std::collections::HashSet;

use annotate_snippets::Renderer;
use images::board::Board;
use images::diagnostics::{Diagnostic, Source, render};
use images::emit::{accounts, driver_dt::driver_dt, guest_dt::guest_dt, policy, shim::shim};
use images::explain::explain;
use images::manifest::Manifest;
use images::plan::{INTERRUPTS, Plan, WINDOWS};
use images::validate;
use libfuzzer_sys::{Corpus, fuzz_target};

const BOARD: &str = include_str!("../../boards/qemu-virt.toml");

/// The longest input. The time of a run is proportional to the length.
const LONGEST: usize = 16 * 1024;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(input) else { return Corpus::Reject };
    if text.len() > LONGEST {
        return Corpus::Reject;
    }
    let (manifest, board) = text.split_once("\n-----\n").unwrap_or((text, BOARD));
    let refused = |text: &str, found: &[Diagnostic]| {
        assert!(!found.is_empty(), "refused without a reason");
        let source = Source { path: "manifest.toml".into(), text: text.into() };
        let message = render(found, &source, &Renderer::plain());
        assert!(message.contains("manifest.toml:"), "no place is named: {message}");
    };
    let (manifest_text, board_text) = (manifest, board);
    let manifest = Manifest::parse(manifest_text).inspect_err(|found| refused(manifest_text, found));
    let board = Board::parse(board_text).inspect_err(|found| refused(board_text, found));
    let (Ok(manifest), Ok(board)) = (manifest, board) else { return Corpus::Keep };
    let found = validate::board(&board);
    if !found.is_empty() {
        refused(board_text, &found);
        return Corpus::Keep;
    }
    let found = validate::validate(&manifest, &board);
    if found.is_empty() {
        build(&manifest, &board);
    } else {
        refused(manifest_text, &found);
    }
    Corpus::Keep
});

/// An accepted manifest can be built.
fn build(manifest: &Manifest, board: &Board) {
    let plan = Plan::new(manifest, board).expect("a plan");
    for guest in &plan.guests {
        let mut taken = HashSet::new();
        for device in &guest.devices {
            let (base, irq) = (device.configuration.base, device.configuration.irq);
            assert!((WINDOWS.base..WINDOWS.end()).contains(&base), "a window at {base:#x}");
            assert!((INTERRUPTS.first..=INTERRUPTS.last).contains(&irq), "interrupt {irq}");
            assert!(taken.insert(base) && taken.insert(irq.into()), "given twice");
        }
        assert!(!guest_dt(guest).expect("a device tree").to_dtb().is_empty());
    }
    assert!(!driver_dt(&plan).expect("a device tree").to_dtb().is_empty());
    assert!(!policy::domains(&plan).is_empty());
    assert!(!explain(&plan).is_empty() && !accounts::passwd(&plan).is_empty());
    toml::to_string(&shim(&plan)).expect("a configuration");
}
