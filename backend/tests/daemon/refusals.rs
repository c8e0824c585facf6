// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of refused messages: no ring runs with its former settings, also if the frontend does not ask for
//! replies. And messages of unusual frontends.

use std::os::fd::AsRawFd;

use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::guest::RING;
use crate::i2c::{THERMOMETER, check_service, read, start_recorded};

const QUEUE: usize = 0;

type Message = fn(&mut Frontend) -> vhost::Result<()>;

/// Messages about one ring that are refused, for their content or their time.
const ABOUT_THE_RING: [(&str, Message); 3] = [
    ("its size", |frontend| frontend.set_vring_num(QUEUE, 3)),
    ("its base, while it runs", |frontend| frontend.set_vring_base(QUEUE, 5)),
    ("its addresses", |frontend| frontend.set_vring_addr(QUEUE, &nowhere())),
];

/// Messages about all rings that are refused.
const ABOUT_ALL: [(&str, Message); 3] = [
    ("features that were not offered", |frontend| frontend.set_features(1 << 63)),
    ("memory that cannot be mapped", |frontend| {
        let file = EventFd::new(0).expect("a descriptor that cannot be mapped");
        let info = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0x4000_0000,
            memory_size: 0x1000,
            userspace_addr: 0x4000_0000,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        frontend.set_mem_table(&[info]).map(drop)
    }),
    ("an in-flight record", |frontend| {
        let file = tempfile::tempfile().expect("a file");
        frontend.set_inflight_fd(&VhostUserInflight::new(1 << 20, 0, 1, RING), file.as_raw_fd())
    }),
];

/// Messages about a queue that does not exist.
const ABOUT_NONE: [(&str, Message); 4] = [
    ("a size", |frontend| frontend.set_vring_num(7, 64)),
    ("a base", |frontend| frontend.set_vring_base(7, 0)),
    ("enable", |frontend| frontend.set_vring_enable(7, true)),
    ("a kick", |frontend| frontend.set_vring_kick(7, &EventFd::new(0).expect("an event"))),
];

fn nowhere() -> VringConfigData {
    VringConfigData {
        queue_max_size: RING,
        queue_size: RING,
        flags: 0,
        desc_table_addr: 0x1000,
        avail_ring_addr: 0x2000,
        used_ring_addr: 0x3000,
        log_addr: None,
    }
}

/// The frontend is notified, and the ring works again when all settings were sent again.
#[test]
fn a_running_ring_stops_after_a_refused_message() {
    for (what, message) in ABOUT_THE_RING.into_iter().chain(ABOUT_ALL) {
        let (board, mut guest) = start_recorded();
        check_service(&mut guest);
        guest.send_without_reply(message);
        guest.wait_failed(QUEUE);
        let (request, room) = read(THERMOMETER, 0, 2);
        guest.send(QUEUE, &request, room);
        guest.sync();
        assert_eq!((guest.used(QUEUE), board.journal().len()), (None, 1), "{what}");
        guest.stop();
        let features = guest.accepted_features();
        guest.send_without_reply(|frontend| frontend.set_features(features));
        guest.send_record();
        guest.start();
        check_service(&mut guest);
    }
}

/// All other settings are sent again.
#[test]
fn a_stopped_ring_does_not_start_without_the_refused_setting() {
    let [size, _, addresses] = ABOUT_THE_RING;
    for (what, message) in [size, addresses].into_iter().chain(ABOUT_ALL) {
        let (board, mut guest) = start_recorded();
        check_service(&mut guest);
        guest.stop();
        guest.send_without_reply(message);
        let kick = guest.kick(QUEUE);
        guest.send_without_reply(|frontend| {
            frontend.set_vring_base(QUEUE, 1)?;
            frontend.set_vring_kick(QUEUE, &kick)
        });
        let (request, room) = read(THERMOMETER, 0, 2);
        guest.send(QUEUE, &request, room);
        guest.sync();
        assert_eq!((guest.used(QUEUE), board.journal().len()), (None, 1), "{what}");
    }
}

#[test]
fn a_message_about_a_missing_queue_changes_no_ring() {
    let (_board, mut guest) = start_recorded();
    for (_, message) in ABOUT_NONE {
        guest.send_without_reply(message);
        check_service(&mut guest);
    }
}

/// Linux's frontend (arch/um/drivers/virtio_uml.c) always sends space for two regions.
#[test]
fn a_memory_table_may_be_padded() {
    let (_board, mut guest) = start_recorded();
    for _ in 0..3 {
        guest.send_padded_memory_table();
        check_service(&mut guest);
    }
}

/// That frontend only disables the rings when a driver is unbound; the next driver has other rings.
#[test]
fn a_disabled_ring_can_be_set_up_again() {
    let (_board, mut guest) = start_recorded();
    for _ in 0..3 {
        check_service(&mut guest);
        guest.disable();
        guest.start();
    }
    check_service(&mut guest);
}

/// vhost-user, "VHOST_USER_SET_VRING_KICK": without a descriptor, "polling should be used instead of waiting
/// for the kick".
#[test]
fn a_ring_without_a_kick_descriptor_is_polled() {
    let (_board, mut guest) = start_recorded();
    guest.stop();
    guest.start_without_kicks();
    for _ in 0..10 {
        check_service(&mut guest);
    }
    guest.stop();
    guest.start();
    check_service(&mut guest);
}
