// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a message leaves behind that is refused, also if the frontend does not ask whether it was: no ring runs as it was set up
//! before. And messages of frontends that are not like most.

use std::os::fd::AsRawFd;

use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::board::Board;
use crate::guest::{Guest, RING};
use crate::i2c::{BOARD, THERMOMETER, read};

const QUEUE: usize = 0;

fn bench() -> (Board, Guest) {
    let (board, socket) = Board::start("i2c", BOARD, &["--allow", "0x48"]);
    (board, Guest::connect_recorded(socket, 1))
}

fn works(guest: &mut Guest) {
    let (request, room) = read(THERMOMETER, 0, 2);
    assert_eq!(guest.ask(QUEUE, &request, room), [0x17, 0x80, 0]);
}

type Message = fn(&mut Frontend) -> vhost::Result<()>;

/// Each of them is refused: for what it says, or for when it comes.
const ABOUT_THE_RING: [(&str, Message); 3] = [
    ("its size", |frontend| frontend.set_vring_num(QUEUE, 3)),
    ("its base, while it runs", |frontend| frontend.set_vring_base(QUEUE, 5)),
    ("its addresses", |frontend| frontend.set_vring_addr(QUEUE, &nowhere())),
];

const ABOUT_ALL: [(&str, Message); 3] = [
    ("features that were not offered", |frontend| frontend.set_features(1 << 63)),
    ("memory that is none", |frontend| {
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
    ("memory for chains in flight", |frontend| {
        let file = tempfile::tempfile().expect("a file");
        frontend.set_inflight_fd(&VhostUserInflight::new(1 << 20, 0, 1, RING), file.as_raw_fd())
    }),
];

const ABOUT_NONE: [(&str, Message); 4] = [
    ("the size of no queue", |frontend| frontend.set_vring_num(7, 64)),
    ("the base of no queue", |frontend| frontend.set_vring_base(7, 0)),
    ("to enable no queue", |frontend| frontend.set_vring_enable(7, true)),
    ("a kick for no queue", |frontend| frontend.set_vring_kick(7, &EventFd::new(0).expect("an event"))),
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

/// The frontend hears of a ring that ran, and the device is back when all is set up anew.
#[test]
fn a_ring_that_runs_stops() {
    for (what, message) in ABOUT_THE_RING.into_iter().chain(ABOUT_ALL) {
        let (board, mut guest) = bench();
        works(&mut guest);
        guest.tell(message);
        guest.wait_failed(QUEUE);
        let (request, room) = read(THERMOMETER, 0, 2);
        guest.send(QUEUE, &request, room);
        guest.settle();
        assert_eq!((guest.used(QUEUE), board.journal().len()), (None, 1), "{what}");
        guest.stop();
        let features = guest.accepted_features();
        guest.tell(|frontend| frontend.set_features(features));
        guest.give_inflight();
        guest.start();
        works(&mut guest);
    }
}

/// The one that was refused is the only one that is not sent again.
#[test]
fn a_ring_that_is_stopped_does_not_start_as_it_was() {
    let [size, _, addresses] = ABOUT_THE_RING;
    for (what, message) in [size, addresses].into_iter().chain(ABOUT_ALL) {
        let (board, mut guest) = bench();
        works(&mut guest);
        guest.stop();
        guest.tell(message);
        let kick = guest.kick(QUEUE);
        guest.tell(|frontend| {
            frontend.set_vring_base(QUEUE, 1)?;
            frontend.set_vring_kick(QUEUE, &kick)
        });
        let (request, room) = read(THERMOMETER, 0, 2);
        guest.send(QUEUE, &request, room);
        guest.settle();
        assert_eq!((guest.used(QUEUE), board.journal().len()), (None, 1), "{what}");
    }
}

#[test]
fn what_is_about_no_ring_changes_none() {
    let (_board, mut guest) = bench();
    for (_, message) in ABOUT_NONE {
        guest.tell(message);
        works(&mut guest);
    }
}

/// Linux's frontend (arch/um/drivers/virtio_uml.c) always sends room for two regions.
#[test]
fn a_memory_table_may_have_room_for_more() {
    let (_board, mut guest) = bench();
    for _ in 0..3 {
        guest.show_memory_with_room();
        works(&mut guest);
    }
}

/// It disables the rings when a driver is unbound, and says nothing else; the next one has rings elsewhere.
#[test]
fn a_ring_that_was_disabled_may_be_set_up_anew() {
    let (_board, mut guest) = bench();
    for _ in 0..3 {
        works(&mut guest);
        guest.disable();
        guest.start();
    }
    works(&mut guest);
}

/// vhost-user, "VHOST_USER_SET_VRING_KICK": without a descriptor, "polling should be used instead of waiting for the kick".
#[test]
fn a_ring_without_a_kick_descriptor_is_looked_at() {
    let (_board, mut guest) = bench();
    guest.stop();
    guest.start_unkicked();
    for _ in 0..10 {
        works(&mut guest);
    }
    guest.stop();
    guest.start();
    works(&mut guest);
}
