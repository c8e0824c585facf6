// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::IrqStatus::{Invalid, Valid};
use super::*;
use crate::device::{Disconnect, QueueStart};
use crate::gpio::fake::FakeLines;
use crate::gpio::policy::Policy;
use crate::gpio::request::UncheckedLine;
use crate::inflight::{self, DeviceRecord};

/// A controller of four lines whose event buffers are numbers.
struct Bench {
    controller: Controller<FakeLines, u32>,
    policy: Policy,
}

impl Bench {
    fn new() -> Self {
        let mut policy = Policy::new(4);
        policy.set_interrupts(true);
        Self { controller: Controller::new(FakeLines::new(4), &[SafeValue::Release; 4]), policy }
    }

    fn ask(&mut self, request: GpioRequest<UncheckedLine>) -> Result<u8, ExecuteError> {
        let request = self.policy.authorise(request).expect("a line that exists");
        self.controller.execute(request)
    }

    fn direction(&mut self, line: u16, to: Direction) -> bool {
        self.ask(GpioRequest::SetDirection(UncheckedLine(line), to)).is_ok()
    }

    fn set(&mut self, line: u16, to: bool) -> bool {
        self.ask(GpioRequest::SetValue(UncheckedLine(line), to)).is_ok()
    }

    fn trigger(&mut self, line: u16, to: Option<Trigger>) -> bool {
        self.ask(GpioRequest::SetTrigger(UncheckedLine(line), to)).is_ok()
    }

    fn unmask(&mut self, line: u16, buffer: u32) {
        let line = self.policy.authorise_unmask(UncheckedLine(line)).expect("a line that exists");
        self.controller.unmask(line, buffer);
    }

    /// Drives a line and reports the edge, as the event loop does.
    fn drive(&mut self, line: u16, level: bool) {
        self.controller.hardware.drive(line, level);
        self.controller.handle_event(u32::from(line));
    }

    fn pulse(&mut self, line: u16) {
        self.drive(line, true);
        self.drive(line, false);
    }

    fn returned(&mut self) -> Vec<(u32, IrqStatus)> {
        self.controller.returned().collect()
    }

    fn setup(&mut self, line: u16) -> Setup {
        self.controller.hardware.line(line).setup
    }
}

/// 5.18.6.2 and 5.18.6.3.
#[test]
fn direction_is_what_the_driver_configured() {
    let mut bench = Bench::new();
    let get = GpioRequest::GetDirection(UncheckedLine(1));
    assert_eq!(bench.ask(get).ok(), Some(0));
    for (to, wire) in [(Direction::Input, 2), (Direction::Output, 1), (Direction::None, 0)] {
        assert!(bench.direction(1, to));
        assert_eq!(bench.ask(get).ok(), Some(wire));
    }
    assert_eq!(bench.setup(1), Setup::Released);
}

/// 5.18.6.5: "may get configured to output later, at which point this output value must be used".
#[test]
fn a_value_set_before_the_direction_is_used_by_the_output() {
    let mut bench = Bench::new();
    assert!(bench.set(0, true));
    assert_eq!(bench.setup(0), Setup::Released);
    assert!(bench.direction(0, Direction::Output));
    assert_eq!(bench.setup(0), Setup::Output(true));
    assert!(bench.set(0, false));
    assert_eq!(bench.setup(0), Setup::Output(false));
    // Also if the line was an input in between.
    assert!(bench.direction(0, Direction::Input) && bench.set(0, true));
    assert_eq!(bench.setup(0), Setup::Input(Edges::None));
    assert!(bench.direction(0, Direction::Output));
    assert_eq!(bench.setup(0), Setup::Output(true));
}

/// 5.18.6.4: "current value sensed on a line", also of one that is not configured.
#[test]
fn the_value_is_read_from_the_line() {
    let mut bench = Bench::new();
    bench.drive(2, true);
    assert_eq!(bench.ask(GpioRequest::GetValue(UncheckedLine(2))).ok(), Some(1));
    assert_eq!(bench.ask(GpioRequest::GetValue(UncheckedLine(3))).ok(), Some(0));
}

/// 5.18.6.9: "The device MUST discard all state information [...] once the driver has requested to
/// set its direction to VIRTIO_GPIO_DIRECTION_NONE."
#[test]
fn direction_none_discards_value_interrupt_latch_and_buffer() {
    let mut bench = Bench::new();
    assert!(
        bench.set(0, true) && bench.direction(0, Direction::None) && bench.direction(0, Direction::Output)
    );
    assert_eq!(bench.setup(0), Setup::Output(false));

    assert!(bench.trigger(1, Some(Trigger::Both)));
    bench.pulse(1);
    assert!(bench.direction(1, Direction::None));
    assert_eq!(bench.setup(1), Setup::Released);
    assert!(bench.trigger(1, Some(Trigger::Both)));
    bench.unmask(1, 7);
    assert_eq!(bench.returned(), []);
    assert!(bench.direction(1, Direction::None));
    assert_eq!(bench.returned(), [(7, Invalid)]);
    bench.unmask(1, 8);
    assert_eq!(bench.returned(), [(8, Invalid)]);
}

/// A driver that ignores the INVALID status queues the returned buffer again at once, for ever.
#[test]
fn a_buffer_that_was_returned_once_is_kept_when_it_is_queued_again() {
    let mut bench = Bench::new();
    bench.unmask(0, 1);
    assert_eq!(bench.returned(), [(1, Invalid)]);
    bench.unmask(0, 1);
    bench.pulse(0);
    assert_eq!(bench.returned(), []);
    assert!(bench.trigger(0, Some(Trigger::Rising)));
    assert_eq!(bench.returned(), []);
    bench.pulse(0);
    assert_eq!(bench.returned(), [(1, Valid)]);
    assert!(bench.trigger(0, None));
    bench.unmask(0, 2);
    assert_eq!(bench.returned(), [(2, Invalid)], "after NONE it is returned once more");
}

/// QEMU stops the queues when its user pauses the machine, and starts them where they were.
#[test]
fn a_driver_that_was_paused_finds_its_lines_unchanged() {
    let mut bench = Bench::new();
    assert!(bench.direction(0, Direction::Output) && bench.set(0, true));
    assert!(bench.trigger(1, Some(Trigger::Rising)) && bench.trigger(2, Some(Trigger::High)));
    assert!(bench.direction(3, Direction::Input));
    bench.pulse(1);
    bench.unmask(2, 1);
    bench.controller.return_buffers();
    bench.controller.suspend();
    assert_eq!(bench.returned(), [(1, Invalid)]);
    for line in 0..4 {
        assert_eq!(bench.setup(line), Setup::Released);
    }
    bench.unmask(2, 2);
    assert_eq!(bench.returned(), [(2, Invalid)]);
    bench.controller.hardware.taken.insert(3);
    bench.controller.start(QueueStart::SameDriver);
    assert_eq!(bench.setup(0), Setup::Output(true));
    assert_eq!(bench.ask(GpioRequest::GetDirection(UncheckedLine(3))).ok(), Some(0));
    bench.unmask(1, 3);
    bench.unmask(2, 4);
    assert_eq!(bench.returned(), [(3, Valid)], "latched before");
    bench.drive(2, true);
    assert_eq!(bench.returned(), [(4, Valid)]);
    // A start without a suspension changes nothing.
    assert!(bench.direction(0, Direction::None));
    bench.controller.start(QueueStart::SameDriver);
    assert_eq!(bench.setup(0), Setup::Released);
}

/// 5.18.6.9: "The device MUST latch an edge interrupt if the interrupt is enabled but still masked."
#[test]
fn an_edge_before_the_buffer_is_latched_once() {
    for (trigger, edges) in [(Trigger::Rising, 1), (Trigger::Falling, 1), (Trigger::Both, 2)] {
        let mut bench = Bench::new();
        assert!(bench.trigger(0, Some(trigger)));
        for _ in 0..5 {
            bench.pulse(0);
        }
        assert_eq!(bench.returned(), []);
        bench.unmask(0, 1);
        assert_eq!(bench.returned(), [(1, Valid)], "{trigger:?}");
        bench.unmask(0, 2);
        assert_eq!(bench.returned(), [], "five pulses are one latched interrupt");
        bench.pulse(0);
        assert_eq!(bench.returned(), [(2, Valid)]);
        bench.unmask(0, 3);
        // With BOTH, a pulse has two edges: the second came while the line was masked.
        assert_eq!(bench.returned().len(), edges - 1);
    }
}

/// The kernel recorded the edge, and the event loop has not reported it yet.
#[test]
fn an_edge_without_an_event_yet_is_found_when_the_line_is_unmasked() {
    let mut bench = Bench::new();
    assert!(bench.trigger(0, Some(Trigger::Rising)));
    bench.controller.hardware.drive(0, true);
    bench.unmask(0, 1);
    assert_eq!(bench.returned(), [(1, Valid)]);
    bench.controller.handle_event(0);
    bench.unmask(0, 2);
    assert_eq!(bench.returned(), [], "it is reported once");
}

/// 5.18.7.1: returning the buffers "results in masking the interrupt as well".
#[test]
fn one_buffer_reports_one_interrupt() {
    let mut bench = Bench::new();
    assert!(bench.trigger(0, Some(Trigger::Both)));
    bench.unmask(0, 1);
    bench.pulse(0);
    bench.pulse(0);
    assert_eq!(bench.returned(), [(1, Valid)]);
    bench.unmask(0, 2);
    assert_eq!(bench.returned(), [(2, Valid)], "the rest was latched");
    // Several edges in one report are the same as several reports.
    bench.unmask(0, 3);
    bench.controller.hardware.drive(0, true);
    bench.controller.hardware.drive(0, false);
    bench.controller.handle_event(0);
    bench.unmask(0, 4);
    assert_eq!(bench.returned(), [(3, Valid), (4, Valid)]);
}

/// 5.18.6.9: "The device MUST NOT latch an level interrupt if the interrupt is enabled but still
/// masked."
#[test]
fn a_level_that_ended_before_the_line_is_unmasked_is_not_reported() {
    for (trigger, active) in [(Trigger::High, true), (Trigger::Low, false)] {
        let mut bench = Bench::new();
        bench.controller.hardware.line(0).level = !active;
        assert!(bench.trigger(0, Some(trigger)));
        bench.drive(0, active);
        bench.drive(0, !active);
        // Also if the event loop has not reported it.
        bench.controller.hardware.drive(0, active);
        bench.controller.hardware.drive(0, !active);
        bench.unmask(0, 1);
        bench.controller.handle_event(0);
        assert_eq!(bench.returned(), [], "{trigger:?}");
        bench.drive(0, active);
        assert_eq!(bench.returned(), [(1, Valid)]);
    }
}

/// 5.18.7.1: "Once the interrupt is unmasked again and the interrupt on the line is still active, the
/// device shall notify the driver again."
#[test]
fn a_level_that_lasts_is_reported_at_each_unmasking() {
    for (trigger, active) in [(Trigger::High, true), (Trigger::Low, false)] {
        let mut bench = Bench::new();
        bench.controller.hardware.line(0).level = active;
        assert!(bench.trigger(0, Some(trigger)));
        for buffer in 0..3 {
            bench.unmask(0, buffer);
            assert_eq!(bench.returned(), [(buffer, Valid)]);
        }
        bench.drive(0, !active);
        bench.unmask(0, 9);
        assert_eq!(bench.returned(), []);
    }
}

/// 5.18.7.3 and 5.18.6.9: NONE returns the buffer as INVALID and discards the latch.
#[test]
fn disabling_returns_the_buffer_and_leaves_nothing_latched() {
    let mut bench = Bench::new();
    assert!(bench.direction(0, Direction::Input));
    assert!(bench.trigger(0, Some(Trigger::Rising)));
    bench.unmask(0, 1);
    assert!(bench.trigger(0, None));
    assert_eq!(bench.returned(), [(1, Invalid)]);
    assert_eq!(bench.setup(0), Setup::Input(Edges::None));

    assert!(bench.trigger(0, Some(Trigger::Rising)));
    bench.pulse(0);
    bench.controller.hardware.drive(0, true);
    assert!(bench.trigger(0, None), "one edge latched, one not yet reported");
    assert!(bench.trigger(0, Some(Trigger::Rising)));
    bench.controller.handle_event(0);
    bench.unmask(0, 2);
    assert_eq!(bench.returned(), []);
    assert!(bench.trigger(0, None) && bench.trigger(0, None), "repeated");
}

/// 5.18.7.3: "The device MUST NOT send an interrupt event [...] unless the interrupt has been both
/// unmasked and enabled"; 5.18.6.6: an unmasking without enabling is returned.
#[test]
fn a_buffer_for_a_line_without_interrupt_is_returned_invalid() {
    let mut bench = Bench::new();
    bench.unmask(0, 1);
    assert!(bench.direction(1, Direction::Output));
    bench.unmask(1, 2);
    assert!(bench.direction(2, Direction::Input));
    bench.unmask(2, 3);
    bench.pulse(2);
    assert_eq!(bench.returned(), [(1, Invalid), (2, Invalid), (3, Invalid)]);
}

/// 5.18.7.2: a driver must not queue two; the first one stays queued.
#[test]
fn a_second_buffer_for_a_line_is_returned_invalid() {
    let mut bench = Bench::new();
    assert!(bench.trigger(0, Some(Trigger::Rising)));
    bench.unmask(0, 1);
    bench.unmask(0, 2);
    assert_eq!(bench.returned(), [(2, Invalid)]);
    bench.pulse(0);
    assert_eq!(bench.returned(), [(1, Valid)]);
}

/// 5.18.6.8: no interrupts for outputs, in either order.
#[test]
fn outputs_and_interrupts_exclude_each_other() {
    let mut bench = Bench::new();
    assert!(bench.direction(0, Direction::Output));
    assert!(!bench.trigger(0, Some(Trigger::Rising)));
    assert_eq!(bench.setup(0), Setup::Output(false));
    assert!(bench.trigger(1, Some(Trigger::Rising)));
    assert!(!bench.direction(1, Direction::Output));
    assert_eq!(bench.setup(1), Setup::Input(Edges::Rising));
    assert!(bench.trigger(1, None) && bench.direction(1, Direction::Output));
}

/// Linux requests an interrupt without a direction where a device tree names the line as one.
#[test]
fn an_interrupt_without_direction_requests_and_releases_the_line() {
    let mut bench = Bench::new();
    assert!(bench.trigger(0, Some(Trigger::Falling)));
    assert_eq!(bench.setup(0), Setup::Input(Edges::Falling));
    assert_eq!(bench.ask(GpioRequest::GetDirection(UncheckedLine(0))).ok(), Some(0));
    // Setting the direction afterwards loses no event.
    bench.drive(0, true);
    bench.controller.hardware.drive(0, false);
    assert!(bench.direction(0, Direction::Input));
    bench.unmask(0, 1);
    assert_eq!(bench.returned(), [(1, Valid)]);
    assert!(bench.trigger(0, None));
    assert_eq!(bench.setup(0), Setup::Input(Edges::None));

    assert!(bench.trigger(1, Some(Trigger::Both)) && bench.trigger(1, None));
    assert_eq!(bench.setup(1), Setup::Released);
}

/// A driver must disable before it changes the trigger (5.18.6.8); Linux's does not.
#[test]
fn another_trigger_keeps_the_buffer_and_clears_the_latch() {
    let mut bench = Bench::new();
    assert!(bench.trigger(0, Some(Trigger::Rising)));
    bench.unmask(0, 1);
    bench.drive(0, true);
    bench.drive(0, false);
    bench.drive(0, true);
    assert_eq!(bench.returned(), [(1, Valid)], "and a second edge is latched");
    assert!(bench.trigger(0, Some(Trigger::Rising)), "no change");
    assert!(bench.trigger(0, Some(Trigger::Falling)));
    bench.unmask(0, 2);
    assert_eq!(bench.returned(), []);
    // The line is high, so a HIGH interrupt is active at once.
    assert!(bench.trigger(0, Some(Trigger::High)));
    assert_eq!(bench.returned(), [(2, Valid)]);
}

#[test]
fn a_line_that_fails_keeps_its_state_and_affects_no_other() {
    let mut bench = Bench::new();
    bench.controller.hardware.taken.insert(0);
    for to in [Direction::Input, Direction::Output] {
        assert!(!bench.direction(0, to));
    }
    assert_eq!(bench.ask(GpioRequest::GetDirection(UncheckedLine(0))).ok(), Some(0));
    assert!(bench.direction(1, Direction::Output) && bench.set(1, true));
    bench.controller.hardware.taken.clear();
    assert!(bench.direction(0, Direction::Input));
}

/// Linux's driver ignores the error and would queue a returned buffer again, for ever.
#[test]
fn a_buffer_for_an_interrupt_that_could_not_be_enabled_is_kept() {
    let mut bench = Bench::new();
    bench.controller.hardware.without_interrupts.insert(0);
    assert!(bench.direction(0, Direction::Input));
    assert!(!bench.trigger(0, Some(Trigger::Rising)));
    bench.unmask(0, 1);
    bench.pulse(0);
    assert_eq!(bench.returned(), []);
    assert!(bench.trigger(0, None));
    assert_eq!(bench.returned(), [(1, Invalid)]);
    // It is used if enabling succeeds later.
    assert!(!bench.trigger(0, Some(Trigger::Rising)));
    bench.unmask(0, 2);
    bench.controller.hardware.without_interrupts.clear();
    assert!(bench.trigger(0, Some(Trigger::Rising)));
    bench.pulse(0);
    assert_eq!(bench.returned(), [(2, Valid)]);
}

#[test]
fn a_reset_clears_lines_latches_and_buffers() {
    let mut bench = Bench::new();
    assert!(bench.direction(0, Direction::Output) && bench.set(0, true));
    assert!(bench.trigger(1, Some(Trigger::Rising)) && bench.trigger(2, Some(Trigger::High)));
    bench.pulse(1);
    bench.unmask(2, 1);
    bench.controller.hardware.drive(1, true);
    bench.controller.reset();
    for line in 0..4 {
        assert_eq!(bench.setup(line), Setup::Released);
        assert_eq!(bench.ask(GpioRequest::GetDirection(UncheckedLine(line))).ok(), Some(0));
        bench.drive(line, true);
        bench.drive(line, false);
    }
    assert_eq!(bench.returned(), []);
    assert!(bench.trigger(1, Some(Trigger::Rising)) && bench.trigger(2, Some(Trigger::High)));
    bench.unmask(1, 2);
    bench.unmask(2, 3);
    assert_eq!(bench.returned(), []);
}

/// Edges of enabled interrupts are still latched.
#[test]
fn stopping_the_event_queue_returns_its_buffers() {
    let mut bench = Bench::new();
    for line in [0, 3] {
        assert!(bench.trigger(line, Some(Trigger::Rising)));
        bench.unmask(line, u32::from(line));
    }
    bench.controller.return_buffers();
    assert_eq!(bench.returned(), [(0, Invalid), (3, Invalid)]);
    bench.pulse(3);
    bench.unmask(3, 5);
    assert_eq!(bench.returned(), [(5, Valid)]);
}

/// Creates a controller with a record, for another one to restore.
fn recorded(safe: [SafeValue; 4]) -> (Bench, DeviceRecord) {
    let mut bench = Bench::new();
    bench.controller = Controller::new(FakeLines::new(4), &safe);
    let record = inflight::tests::device_record(bench.controller.record_bytes());
    bench.controller.restore(record.clone());
    bench.controller.start(QueueStart::AsRecorded);
    (bench, record)
}

/// Replaces the daemon, on hardware that has released all lines and has these levels.
fn replace(bench: Bench, record: &DeviceRecord, safe: [SafeValue; 4], levels: [bool; 4]) -> Bench {
    let mut lines = FakeLines::new(4);
    for (line, level) in (0..).zip(levels) {
        lines.line(line).level = level;
    }
    replace_with(bench, record, safe, lines)
}

fn replace_with(bench: Bench, record: &DeviceRecord, safe: [SafeValue; 4], lines: FakeLines) -> Bench {
    let Bench { policy, .. } = bench;
    let mut bench = Bench { controller: Controller::new(lines, &safe), policy };
    bench.controller.restore(record.clone());
    bench.controller.start(QueueStart::AsRecorded);
    bench
}

const RELEASE: [SafeValue; 4] = [SafeValue::Release; 4];

#[test]
fn a_daemon_that_takes_over_continues_with_the_lines() {
    let (mut bench, record) = recorded(RELEASE);
    assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
    assert!(bench.direction(1, Direction::Input) && bench.trigger(1, Some(Trigger::Rising)));
    assert!(bench.set(2, true) && bench.trigger(3, Some(Trigger::High)));
    bench.pulse(1);
    let mut bench = replace(bench, &record, RELEASE, [false; 4]);
    assert_eq!(bench.setup(0), Setup::Output(true));
    assert_eq!(bench.setup(1), Setup::Input(Edges::Rising));
    assert_eq!(bench.ask(GpioRequest::GetDirection(UncheckedLine(1))).ok(), Some(2));
    bench.unmask(1, 1);
    bench.unmask(3, 2);
    assert_eq!(bench.returned(), [(1, Valid)], "latched before");
    bench.drive(3, true);
    assert_eq!(bench.returned(), [(2, Valid)]);
    // The value that was set before the direction (5.18.6.5).
    assert!(bench.direction(2, Direction::Output));
    assert_eq!(bench.setup(2), Setup::Output(true));
    // It is reported once, also if the next daemon dies.
    let mut bench = replace(bench, &record, RELEASE, [false; 4]);
    bench.unmask(1, 1);
    assert_eq!(bench.returned(), []);
    assert_eq!(bench.setup(2), Setup::Output(true));
}

/// A level that changed means an edge, which is reported if the trigger asks for it.
#[test]
fn an_edge_while_no_daemon_ran_is_reported_if_the_level_changed() {
    use Trigger::{Both, Falling, High, Low, Rising};
    for (trigger, up, down) in [
        (Rising, true, false),
        (Falling, false, true),
        (Both, true, true),
        (High, true, false),
        (Low, false, true),
    ] {
        for (before, after) in [(false, true), (true, false), (false, false), (true, true)] {
            let (mut bench, record) = recorded(RELEASE);
            bench.controller.hardware.line(0).level = before;
            assert!(bench.trigger(0, Some(trigger)));
            let mut bench = replace(bench, &record, RELEASE, [after; 4]);
            bench.unmask(0, 1);
            let level = match trigger {
                High => after,
                Low => !after,
                _ => false,
            };
            let edge = !matches!(trigger, High | Low) && before != after && if after { up } else { down };
            let reported: &[_] = if edge || level { &[(1, Valid)] } else { &[] };
            assert_eq!(bench.returned(), reported, "{trigger:?} {before} {after}");
        }
    }
}

/// The recorded level is that after the last edge.
#[test]
fn an_edge_that_was_reported_is_not_reported_by_the_next_daemon() {
    let (mut bench, record) = recorded(RELEASE);
    assert!(bench.trigger(0, Some(Trigger::Both)));
    bench.unmask(0, 1);
    bench.drive(0, true);
    assert_eq!(bench.returned(), [(1, Valid)]);
    let mut bench = replace(bench, &record, RELEASE, [true; 4]);
    bench.unmask(0, 2);
    assert_eq!(bench.returned(), []);
}

/// The line stayed requested, and the kernel recorded the edge.
#[test]
fn an_edge_that_the_kernel_recorded_is_reported_once_over_daemons() {
    let (mut bench, record) = recorded(RELEASE);
    assert!(bench.trigger(0, Some(Trigger::Rising)));
    let mut lines = FakeLines::new(4);
    (lines.line(0).level, lines.line(0).edges) = (true, 1);
    let mut bench = replace_with(bench, &record, RELEASE, lines);
    bench.unmask(0, 1);
    assert_eq!(bench.returned(), [(1, Valid)]);
    let mut bench = replace(bench, &record, RELEASE, [true; 4]);
    bench.unmask(0, 2);
    assert_eq!(bench.returned(), []);
}

#[test]
fn after_a_reset_no_state_is_restored() {
    let (mut bench, record) = recorded(RELEASE);
    assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
    bench.controller.reset();
    let mut bench = replace(bench, &record, RELEASE, [false; 4]);
    assert_eq!(bench.setup(0), Setup::Released);
    assert_eq!(bench.ask(GpioRequest::GetDirection(UncheckedLine(0))).ok(), Some(0));
    // The frontend may also clear the record of a daemon that runs.
    assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
    record.set_word(0, 0);
    bench.controller.start(QueueStart::AsRecorded);
    assert_eq!(bench.setup(0), Setup::Released);
    assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
    let mut bench = replace(bench, &record, RELEASE, [false; 4]);
    assert_eq!(bench.setup(0), Setup::Output(true));
}

/// A line with an invalid word starts unconfigured; the others continue.
#[test]
fn a_forged_word_affects_its_own_line_only() {
    let (mut bench, record) = recorded(RELEASE);
    assert!(bench.direction(0, Direction::Output) && bench.direction(1, Direction::Output));
    record.set_word(2, 0x1234_5678);
    let mut bench = replace(bench, &record, RELEASE, [false; 4]);
    assert_eq!((bench.setup(0), bench.setup(1)), (Setup::Released, Setup::Output(false)));
    // Another number of lines: the record of another device.
    record.set_word(1, 5);
    let mut bench = replace(bench, &record, RELEASE, [false; 4]);
    assert_eq!(bench.setup(1), Setup::Released);
}

/// The end of a frontend is not a reset by the driver.
#[test]
fn lines_stay_as_they_are_until_the_next_frontend() {
    let (mut bench, record) = recorded([SafeValue::Level(false); 4]);
    assert!(bench.set(0, true) && bench.direction(0, Direction::Output));
    assert!(bench.trigger(1, Some(Trigger::Rising)));
    bench.unmask(1, 1);
    bench.controller.disconnect(Disconnect::DriverContinues);
    assert_eq!((bench.setup(0), bench.setup(1)), (Setup::Output(true), Setup::Input(Edges::Rising)));
    bench.drive(1, true);
    bench.drive(1, false);
    assert_eq!(bench.returned(), [], "there is no ring");
    bench.controller.restore(record);
    bench.controller.start(QueueStart::AsRecorded);
    bench.unmask(1, 1);
    assert_eq!(bench.returned(), [(1, Valid)]);
    assert_eq!(bench.setup(0), Setup::Output(true));
}

#[test]
fn an_unused_line_has_its_safe_value() {
    let safe = [SafeValue::Release, SafeValue::Level(false), SafeValue::Level(true), SafeValue::Stay];
    let unused = [Setup::Released, Setup::Output(false), Setup::Output(true), Setup::Released];
    let (mut bench, _) = recorded(safe);
    let setups = |bench: &mut Bench| [0, 1, 2, 3].map(|line| bench.setup(line));
    assert_eq!(setups(&mut bench), unused, "from the start");
    let ways: [fn(&mut Bench); 3] = [
        |bench| bench.controller.reset(),
        |bench| bench.controller.suspend(),
        |bench| assert!((0..4).all(|line| bench.direction(line, Direction::None))),
    ];
    for way in ways {
        for level in [false, true] {
            for line in 0..4 {
                assert!(bench.set(line, level) && bench.direction(line, Direction::Output));
            }
            assert_eq!(setups(&mut bench), [Setup::Output(level); 4]);
            way(&mut bench);
            let [released, low, high, _] = unused;
            assert_eq!(setups(&mut bench), [released, low, high, Setup::Output(level)]);
            bench.controller.start(QueueStart::AsRecorded);
        }
        // Only an output stays.
        assert!(bench.direction(3, Direction::Input));
        way(&mut bench);
        assert_eq!(bench.setup(3), Setup::Released);
        bench.controller.reset();
    }
    // An interrupt without a direction, and none again.
    assert!(bench.trigger(2, Some(Trigger::Both)));
    assert_eq!(bench.setup(2), Setup::Input(Edges::Both));
    assert!(bench.trigger(2, None));
    assert_eq!(bench.setup(2), Setup::Output(true));
}

#[test]
fn an_event_of_a_line_that_does_not_exist_is_ignored() {
    let mut bench = Bench::new();
    for token in [4, 0xffff, 0x1_0000, u32::MAX] {
        bench.controller.handle_event(token);
    }
    assert_eq!(bench.returned(), []);
}
