// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starts, transfers, resets and failures of a driver with one backend.

use vhost::vhost_user::message::FrontendReq;

use super::*;
use crate::vhost_user::scripted_backend::codes;

#[test]
fn a_backend_is_reset_with_the_device_and_when_it_connects_to_an_unused_one() {
    let resets = |backend: &ScriptedBackend| {
        codes(&backend.take()).into_iter().filter(|&code| code == FrontendReq::RESET_DEVICE).count()
    };
    let (mut guest, backend) = Guest::with(Script::default());
    guest.probe();
    assert_eq!(resets(&backend), 0);
    guest.reset();
    assert_eq!(resets(&backend), 1);
    guest.probe();
    let backend = guest.connect_scripted(Script::default());
    assert_eq!(resets(&backend), 0, "the driver goes on");
    guest.device().disconnect_replaced();
    guest.reset();
    let backend = guest.connect_scripted(Script::default());
    assert_eq!(resets(&backend), 1, "it was reset when there was no backend");
}

#[test]
fn a_guest_uses_the_device_and_no_grant_stays_mapped() {
    let mut guest = Guest::with_real_backend();
    for _ in 0..10 {
        guest.probe();
        assert_eq!((guest.status(), guest.xen.mapped()), (RUNNING, 1));
        assert_eq!(guest.interrupt_status(), 0);
        for next in 0..3 {
            guest.transfer(next);
            assert_eq!(guest.interrupt_status(), 1);
            guest.write(INTERRUPT_ACK, 1);
            assert_eq!(guest.interrupt_status(), 0);
        }
        guest.reset();
        assert_eq!((guest.status(), guest.xen.mapped()), (0, 0));
    }
}

#[test]
fn a_queue_that_is_reset_is_unmapped_and_can_be_used_again() {
    let mut guest = Guest::with_real_backend();
    guest.probe();
    for _ in 0..10 {
        guest.transfer(0);
        guest.transfer(1);
        guest.write(QUEUE_RESET, 1);
        assert_eq!((guest.read(QUEUE_RESET), guest.read(QUEUE_READY), guest.xen.mapped()), (0, 0, 0));
        // Its buffers were used before.
        assert_eq!(guest.interrupt_status(), 1);
        guest.write(INTERRUPT_ACK, 1);
        guest.clear_rings();
        guest.enable_queue();
        assert_eq!((guest.read(QUEUE_READY), guest.interrupt_status(), guest.xen.mapped()), (1, 0, 1));
    }
    guest.transfer(0);
    guest.reset();
    assert_eq!((guest.status(), guest.xen.mapped()), (0, 0));
}

#[test]
fn a_queue_enabled_again_without_grants_needs_a_reset() {
    let mut guest = Guest::with_real_backend();
    guest.probe();
    guest.write(QUEUE_RESET, 1);
    guest.write(0x38, 16);
    for register in [0x80, 0x90, 0xa0] {
        guest.write(register, 0x5000);
        guest.write(register + 4, 1 << 31);
    }
    guest.write(QUEUE_READY, 1);
    assert_eq!((guest.status(), guest.interrupt_status(), guest.xen.mapped()), (NEEDS_RESET, 2, 0));
    guest.probe();
    assert_eq!(guest.status(), NEEDS_RESET);
    guest.reset();
    guest.probe();
    guest.transfer(0);
}

#[test]
fn rings_without_grants_need_a_reset_and_keep_the_backend() {
    let mut guest = Guest::without_grants(GPIO, test_backend::start().0);
    guest.probe();
    assert_eq!((guest.status(), guest.xen.mapped()), (NEEDS_RESET, 0));
    assert_eq!(guest.xen.raised(), [IRQ]);
    guest.reset();
    guest.xen.grant(1);
    guest.probe();
    assert_eq!(guest.status(), RUNNING);
    guest.transfer(0);
}

#[test]
fn a_configuration_changed_by_the_backend_interrupts_the_driver() {
    let (mut guest, backend) = Guest::with(Script::default());
    guest.probe();
    let config =
        |guest: &mut Guest| (guest.read(CONFIG), guest.read(CONFIG_GENERATION), guest.interrupt_status());
    assert_eq!(config(&mut guest), (u64::from(u32::from_le_bytes(*b"cons")), 0, 0));
    guest.change_config(&backend, b"changed!");
    assert_eq!(config(&mut guest), (u64::from(u32::from_le_bytes(*b"chan")), 1, 2));
    assert_eq!(guest.xen.raised(), [IRQ]);
}

#[test]
fn a_queue_that_the_backend_cannot_use_needs_a_reset_and_keeps_the_backend() {
    let (mut guest, backend) = Guest::in_use(Script::default());
    guest.fail_queue();
    queue_failed(guest.window(), 0);
    assert_eq!((guest.status(), guest.interrupt_status(), guest.xen.mapped()), (NEEDS_RESET, 3, 0));
    assert_eq!((guest.xen.raised(), guest.has_backend(), guest.device().deadline()), (vec![IRQ], true, None));
    let stopped = [
        FrontendReq::SET_VRING_ENABLE,
        FrontendReq::GET_VRING_BASE,
        FrontendReq::SET_MEM_TABLE,
        FrontendReq::RESET_DEVICE,
    ];
    assert_eq!(codes(&backend.take()), stopped);
    // If it ends now it is replaced, and the next one has nothing to start.
    guest.disconnect_backend();
    let backend = guest.connect_scripted(Script::default());
    assert_eq!((guest.status(), bases(&backend.take())), (NEEDS_RESET, vec![]));
    guest.reset();
    guest.probe();
    assert_eq!((guest.status(), bases(&backend.take())), (RUNNING, vec![0]));
}

#[test]
fn a_failure_reported_before_a_reset_does_not_concern_the_queue_after_it() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.fail_queue();
    guest.write(QUEUE_RESET, 1);
    guest.enable_queue();
    queue_failed(guest.window(), 0);
    assert_eq!(guest.status(), RUNNING);
    guest.fail_queue();
    guest.reset();
    guest.probe();
    queue_failed(guest.window(), 0);
    assert_eq!(guest.status(), RUNNING);
    // No driver uses it.
    guest.reset();
    guest.fail_queue();
    queue_failed(guest.window(), 0);
    assert_eq!((guest.status(), guest.xen.raised()), (0, vec![]));
}

#[test]
fn a_device_without_a_backend_can_be_reset_and_started() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.disconnect_backend();
    guest.reset();
    assert_eq!((guest.status(), guest.xen.mapped(), guest.device().deadline()), (0, 0, None));
    guest.probe();
    assert_eq!((guest.status(), guest.xen.mapped()), (RUNNING, 1));
    assert!(guest.device().lost_at.is_some());
    guest.write(QUEUE_RESET, 1);
    assert_eq!((guest.status(), guest.xen.mapped()), (RUNNING, 0));
    guest.enable_queue();
    guest.set_indices(1, 0);
    let backend = guest.connect_scripted(Script::default());
    let requests = backend.take();
    assert_eq!((guest.status(), bases(&requests)), (RUNNING, vec![0]));
    assert_eq!(scripted::records(&requests), [vec![0; scripted::RECORD]]);
}

#[test]
fn a_connection_that_is_closed_while_the_driver_runs_costs_it_nothing() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.shut_down_connection();
    guest.poll_backend();
    assert_eq!((guest.has_backend(), guest.status(), guest.xen.mapped()), (false, RUNNING, 1));
    guest.write(QUEUE_NOTIFY, 0);
    guest.write(INTERRUPT_ACK, 3);
    guest.reset();
    assert_eq!((guest.status(), guest.xen.mapped()), (0, 0));
}

#[test]
fn a_call_over_a_closed_connection_causes_no_error_for_the_driver() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.shut_down_connection();
    guest.write(QUEUE_RESET, 1);
    assert_eq!((guest.status(), guest.has_backend(), guest.xen.mapped()), (RUNNING, false, 0));
}
