// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What another backend gets of a device that is in use, and which backends may go on.

use vhost::vhost_user::message::FrontendReq;

use super::*;
use crate::vhost_user::scripted_backend::{codes, records, writes};

/// A backend that lacks a feature that the driver uses.
fn less() -> Script {
    Script { features: 1 << 32 | 1 << 33 | 1 << 30, ..Script::default() }
}

/// A backend with another configuration.
fn different() -> Script {
    Script { config: b"changed!".to_vec(), ..Script::default() }
}

#[test]
fn the_next_backend_gets_everything_in_order_and_both_sides_are_notified() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.disconnect_backend();
    assert_eq!((guest.status(), guest.xen.mapped()), (RUNNING, 1));
    // A kick meanwhile waits in its eventfd.
    guest.write(QUEUE_NOTIFY, 0);
    let requests = guest.connect_scripted(Script::default()).take();
    let codes = codes(&requests);
    let start = codes.iter().position(|&code| code == FrontendReq::SET_FEATURES).unwrap();
    assert_eq!(
        codes[start..],
        [
            FrontendReq::SET_FEATURES,
            FrontendReq::SET_INFLIGHT_FD,
            FrontendReq::SET_MEM_TABLE,
            FrontendReq::SET_VRING_NUM,
            FrontendReq::SET_VRING_BASE,
            FrontendReq::SET_VRING_ADDR,
            FrontendReq::SET_VRING_ERR,
            FrontendReq::SET_VRING_CALL,
            FrontendReq::SET_VRING_KICK,
            FrontendReq::SET_VRING_ENABLE,
        ]
    );
    assert_eq!(bases(&requests), [5]);
    let [notifier] = guest.device().notifiers() else { panic!() };
    assert_eq!((notifier.kick.read().unwrap(), notifier.call.read().unwrap()), (2, 1));
    assert_eq!((guest.status(), guest.xen.mapped(), guest.device().lost_at), (RUNNING, 1, None));
    assert!(guest.xen.raised().is_empty());
}

/// It may have served requests before the last message of its start.
#[test]
fn after_a_backend_that_ends_while_it_is_started_the_next_goes_on_at_the_used_index() {
    let ends_at = Some(FrontendReq::SET_VRING_ENABLE);
    let (mut guest, _) = Guest::with(Script { ends_at, ..Script::default() });
    guest.probe();
    assert_eq!((guest.has_backend(), guest.status()), (false, RUNNING));
    mark(&guest.record());
    guest.set_indices(3, 2);
    let requests = guest.connect_scripted(Script::default()).take();
    assert_eq!(bases(&requests), [2]);
    assert!(is_marked(&records(&requests)[0]));
    assert_eq!(guest.status(), RUNNING);
}

#[test]
fn the_record_of_requests_in_flight_outlives_a_backend_and_not_a_reset() {
    let (mut guest, _) = Guest::in_use(Script::default());
    let record = guest.record();
    mark(&record);
    guest.disconnect_backend();
    let backend = guest.connect_scripted(Script::default());
    let [seen] = records(&backend.take()).try_into().unwrap();
    assert!(is_marked(&seen));
    guest.reset();
    // A worker that ends before the reset is persistent leaves a device that is in use.
    let mut content = vec![0; scripted::RECORD];
    record.read_exact_at(&mut content, 0).unwrap();
    assert!(is_marked(&content));
    guest.probe();
    assert_eq!(records(&backend.take()), [vec![0; scripted::RECORD]]);
}

/// A state that could not be restored leaves a device that was never started, and the record of the former
/// worker.
#[test]
fn a_start_clears_the_record_whatever_was_before() {
    let (mut guest, backend) = Guest::with(Script::default());
    let record = guest.record();
    record.set_len(scripted::RECORD as u64).unwrap();
    mark(&record);
    guest.window().device_lost();
    guest.reset();
    guest.probe();
    assert_eq!(records(&backend.take()), [vec![0; scripted::RECORD]]);
}

#[test]
fn a_queue_reset_clears_the_record_of_the_queue_with_and_without_a_backend() {
    for has_backend in [true, false] {
        let (mut guest, _) = Guest::in_use(Script::default());
        mark(&guest.record());
        if !has_backend {
            guest.disconnect_backend();
        }
        guest.write(QUEUE_RESET, 1);
        assert_eq!((guest.read(QUEUE_RESET), guest.read(QUEUE_READY), guest.xen.mapped()), (0, 0, 0));
        guest.set_indices(0, 0);
        guest.enable_queue();
        assert_eq!((guest.read(QUEUE_READY), guest.status(), guest.xen.mapped()), (1, RUNNING, 1));
        guest.disconnect_backend();
        let requests = guest.connect_scripted(Script::default()).take();
        assert_eq!((bases(&requests), records(&requests)), (vec![0], vec![vec![0; scripted::RECORD]]));
    }
}

#[test]
fn a_driver_waits_five_seconds_for_a_backend_and_no_longer() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.disconnect_backend();
    let disconnected = (guest.device().take_disconnected(), guest.device().take_disconnected());
    assert_eq!(disconnected, (true, false));
    let lost_at = guest.device().lost_at.unwrap();
    guest.pass_deadline();
    // Five requests were used and not acknowledged.
    assert_eq!((guest.status(), guest.interrupt_status(), guest.xen.mapped()), (NEEDS_RESET, 3, 0));
    assert_eq!(guest.xen.raised(), [IRQ]);
    assert!(lost_at > Instant::now() && guest.device().deadline().is_none());
    // A backend that comes later serves the driver after its reset.
    let backend = guest.connect_scripted(Script::default());
    assert_eq!((guest.status(), bases(&backend.take())), (NEEDS_RESET, vec![]));
    guest.reset();
    guest.probe();
    assert_eq!((guest.status(), bases(&backend.take())), (RUNNING, vec![0]));
}

#[test]
fn a_backend_that_lacks_a_feature_in_use_does_not_go_on() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.disconnect_backend();
    let backend = guest.connect_scripted(less());
    assert_eq!((guest.status(), guest.interrupt_status(), bases(&backend.take())), (NEEDS_RESET, 3, vec![]));
    assert_eq!(guest.xen.mapped(), 0);
}

#[test]
fn a_backend_with_another_configuration_does_not_go_on_and_shows_it() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.disconnect_backend();
    let backend = guest.connect_scripted(different());
    assert_eq!((guest.status(), guest.interrupt_status(), bases(&backend.take())), (NEEDS_RESET, 3, vec![]));
    assert_eq!(guest.read(CONFIG), u64::from(u32::from_le_bytes(*b"chan")));
    guest.reset();
    guest.probe();
    assert_eq!((guest.status(), bases(&backend.take())), (RUNNING, vec![0]));
}

/// All of its backends are replaced as well.
#[test]
fn a_driver_whose_worker_is_replaced_goes_on_or_needs_a_reset() {
    for (script, status, started_at) in [
        (Script::default(), RUNNING, vec![5]),
        (less(), NEEDS_RESET, vec![]),
        (different(), NEEDS_RESET, vec![]),
    ] {
        let (mut guest, _) = Guest::in_use(Script::default());
        let state = guest.window().state();
        assert_eq!(guest.replace_worker(Some(state)), Ok(()));
        // It is there before its backend is.
        assert_eq!((guest.status(), guest.has_backend()), (RUNNING, false));
        guest.write(INTERRUPT_ACK, 3);
        guest.xen.raised();
        let backend = guest.connect_scripted(script);
        assert_eq!((guest.status(), bases(&backend.take())), (status, started_at));
        let is_lost = status == NEEDS_RESET;
        let interrupts = (guest.interrupt_status() & 2 != 0, guest.xen.raised().len());
        assert_eq!(interrupts, (is_lost, usize::from(is_lost)));
        guest.reset();
        guest.probe();
        assert_eq!((guest.status(), bases(&backend.take())), (RUNNING, vec![0]));
    }
}

#[test]
fn a_driver_whose_worker_is_replaced_waits_five_seconds_for_a_backend_and_no_longer() {
    let (mut guest, _) = Guest::in_use(Script::default());
    let state = guest.window().state();
    guest.replace_worker(Some(state)).unwrap();
    guest.pass_deadline();
    assert_eq!((guest.status(), guest.interrupt_status() & 2, guest.xen.mapped()), (NEEDS_RESET, 2, 0));
}

#[test]
fn a_driver_whose_state_is_lost_needs_a_reset() {
    let (mut guest, _) = Guest::in_use(Script::default());
    assert_eq!(guest.replace_worker(None), Err(RestoreError::Unreadable));
    assert_eq!((guest.status(), guest.interrupt_status(), guest.xen.raised()), (NEEDS_RESET, 3, vec![IRQ]));
    let backend = guest.connect_scripted(Script::default());
    assert_eq!((guest.status(), bases(&backend.take())), (NEEDS_RESET, vec![]));
    guest.reset();
    guest.probe();
    assert_eq!((guest.status(), bases(&backend.take())), (RUNNING, vec![0]));
}

#[test]
fn a_backend_that_refuses_to_go_on_is_disconnected_and_the_driver_needs_a_reset() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.disconnect_backend();
    guest.connect_scripted(Script { refuses: Some(FrontendReq::SET_VRING_ADDR), ..Script::default() });
    assert_eq!((guest.status(), guest.has_backend(), guest.xen.mapped()), (NEEDS_RESET, false, 0));
    assert!(guest.device().take_disconnected());
}

/// What becomes of a device of a type that `outstanding` buffers are outstanding in when its backend ends.
fn after_the_end(device_id: u32, tracks_inflight: bool, outstanding: u16) -> (u64, Vec<u32>) {
    let script = Script { device_id, tracks_inflight, ..Script::default() };
    let (mut guest, _) = Guest::in_use(script.clone());
    guest.set_indices(outstanding.wrapping_add(5), 5);
    guest.disconnect_backend();
    let backend = guest.connect_scripted(script);
    (guest.status(), bases(&backend.take()))
}

#[test]
fn without_a_record_in_flight_only_an_idle_device_goes_on() {
    assert_eq!(after_the_end(I2C, false, 0), (RUNNING, vec![5]));
    assert_eq!(after_the_end(I2C, false, 1), (NEEDS_RESET, vec![]));
    assert_eq!(after_the_end(I2C, true, 1), (RUNNING, vec![5]));
}

#[test]
fn posted_buffers_are_offered_to_the_next_backend() {
    assert_eq!(after_the_end(RNG, false, 8), (RUNNING, vec![5]));
}

/// A driver that waits for its output with interrupts disabled does not react to a reset that is needed.
#[test]
fn a_console_waits_for_its_next_backend_without_a_limit_and_offers_its_output_again() {
    let config = vec![0; 12];
    let script = Script { device_id: CONSOLE, tracks_inflight: false, config, ..Script::default() };
    let (mut guest, _) = Guest::in_use(script.clone());
    guest.device().absence_limit = None;
    guest.disconnect_backend();
    assert_eq!((guest.status(), guest.device().deadline()), (RUNNING, None));
    let backend = guest.connect_scripted(script);
    assert_eq!((guest.status(), bases(&backend.take())), (RUNNING, vec![5]));
}

#[test]
fn a_device_whose_state_has_ended_needs_a_reset_even_when_idle() {
    assert_eq!(after_the_end(GPIO, false, 0), (NEEDS_RESET, vec![]));
    assert_eq!(after_the_end(VSOCK, false, 0), (NEEDS_RESET, vec![]));
    assert_eq!(after_the_end(VSOCK, true, 0), (NEEDS_RESET, vec![]));
}

#[test]
fn a_device_whose_used_index_is_ahead_needs_a_reset() {
    assert_eq!(after_the_end(RNG, false, u16::MAX), (NEEDS_RESET, vec![]));
    assert_eq!(after_the_end(I2C, true, u16::MAX), (NEEDS_RESET, vec![]));
}

/// The configuration of an input device is what the driver has selected.
#[test]
fn the_next_backend_gets_what_the_driver_has_written_to_the_configuration() {
    let script = Script {
        device_id: INPUT,
        features: 1 << 32 | 1 << 33 | 1 << 30,
        config: vec![0; 136],
        ..Script::default()
    };
    let (mut guest, backend) = Guest::with(script.clone());
    guest.probe_with(0);
    for (at, value) in [(1, 7), (0, 3)] {
        guest.xen.trap(0, write(BASE + CONFIG + at, 1, value));
        guest.bus.serve(&*guest.xen, 0);
        assert_eq!(guest.xen.answers().len(), 1);
    }
    // All that a driver may write, each time.
    assert_eq!(writes(&backend.take()), [[0, 7], [3, 7]]);
    guest.disconnect_backend();
    let backend = guest.connect_scripted(script);
    assert_eq!((guest.status(), writes(&backend.take())), (RUNNING, vec![vec![3, 7]]));
    assert_eq!(guest.read(CONFIG) & 0xffff, 0x703);
}

#[test]
fn a_real_backend_goes_on_where_another_ended() {
    let mut guest = Guest::with_real_backend();
    guest.probe();
    for round in 0..5 {
        guest.transfer(2 * round);
        guest.transfer(2 * round + 1);
        assert_eq!(guest.interrupt_status(), 1);
        guest.write(INTERRUPT_ACK, 1);
        guest.disconnect_backend();
        guest.connect(test_backend::start().0, None);
        guest.await_call();
        assert_eq!((guest.status(), guest.interrupt_status()), (RUNNING, 0));
    }
    guest.reset();
    assert_eq!((guest.status(), guest.xen.mapped()), (0, 0));
}
