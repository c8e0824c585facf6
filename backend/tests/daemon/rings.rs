// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of rings and chains, valid and invalid (virtio 1.3, 2.7), with the I2C device.

use std::iter;

use crate::board::Board;
use crate::guest::{Descriptor, Guest, INDIRECT, NEXT, RING, UNTOUCHED, Used, WRITE};
use crate::i2c::{BOARD, FAIL_NEXT, THERMOMETER, check_service, read, start, write};

const QUEUE: usize = 0;
/// `VIRTIO_F_INDIRECT_DESC` and `VIRTIO_F_EVENT_IDX`.
const F_INDIRECT_DESC: u64 = 1 << 28;
const F_EVENT_IDX: u64 = 1 << 29;
/// Number of polls for a used chain before the test fails: some seconds.
const POLLS: usize = 10_000_000;
/// An address without memory.
const NOWHERE: u64 = 0x1000;

/// Describes a request and its answer, each in one descriptor.
fn good(guest: &mut Guest, next: u16) -> [Descriptor; 2] {
    let (request, room) = read(THERMOMETER, 0, 2);
    let request = guest.place(&request);
    let answer = guest.place(&[0; 3]);
    [
        Descriptor { address: request, length: 8, flags: NEXT, next },
        Descriptor { address: answer, length: room, flags: WRITE, next: 0 },
    ]
}

/// Checks that `chain` is returned empty, that the queue continues, and that nothing reaches the bus.
fn expect_empty_answer(chain: impl FnOnce(&mut Guest) -> Vec<Descriptor>) {
    expect_answer(chain, 0);
}

/// Likewise, with an answer that the request failed.
fn expect_error_answer(chain: impl FnOnce(&mut Guest) -> Vec<Descriptor>) {
    let (chain, guest) = expect_answer(chain, 3);
    let answer = chain.last().expect("a descriptor for the answer").address;
    assert_eq!(guest.memory(answer, 3), [0, 0, 1], "{chain:?}");
}

fn expect_answer(chain: impl FnOnce(&mut Guest) -> Vec<Descriptor>, length: u32) -> (Vec<Descriptor>, Guest) {
    let (board, mut guest) = start(0);
    let chain = chain(&mut guest);
    let head = guest.send_raw(QUEUE, &chain);
    assert_eq!(guest.wait(QUEUE), Used { head, length }, "{chain:?}");
    assert_eq!(board.journal().len(), 0);
    check_service(&mut guest);
    (chain, guest)
}

/// 2.7.4.1: "The device MUST NOT make assumptions about the particular arrangement of descriptors." Linux
/// puts header, buffer and status into one each.
#[test]
fn the_arrangement_of_descriptors_makes_no_difference() {
    let (_board, mut guest) = start(0);
    let (request, _) = read(THERMOMETER, 0, 2);
    for (cuts, answer) in [(&[8][..], &[3][..]), (&[8], &[2, 1]), (&[3, 5], &[1, 1, 1]), (&[1; 8], &[1, 2])] {
        let from = guest.place(&request);
        let to = guest.place(&[0xaa; 3]);
        let piece = |start: u64, flags| {
            let mut at = start;
            move |length: &u32| {
                let address = at;
                at += u64::from(*length);
                Descriptor { address, length: *length, flags, next: 0 }
            }
        };
        let mut chain: Vec<_> = cuts.iter().map(piece(from, NEXT)).collect();
        chain.extend(answer.iter().map(piece(to, WRITE | NEXT)));
        let first = guest.next_descriptor(QUEUE);
        for (index, descriptor) in (1..).zip(&mut chain) {
            descriptor.next = (first + index) % RING;
        }
        if let Some(last) = chain.last_mut() {
            last.flags = WRITE;
        }
        let head = guest.send_raw(QUEUE, &chain);
        assert_eq!(guest.wait(QUEUE), Used { head, length: 3 });
        assert_eq!(guest.memory(to, 3), [0x17, 0x80, 0], "{cuts:?} {answer:?}");
    }
}

#[test]
fn a_readable_descriptor_after_a_writable_one_is_malformed() {
    expect_empty_answer(|guest| {
        let [request, answer] = good(guest, 0);
        vec![Descriptor { flags: WRITE | NEXT, next: 1, ..answer }, Descriptor { flags: 0, ..request }]
    });
}

/// An empty piece adds nothing, wherever it is and whatever its address (2.7.4.1).
#[test]
fn empty_descriptors_are_ignored() {
    let (_board, mut guest) = start(0);
    let empty = Descriptor { address: NOWHERE, length: 0, flags: 0, next: 0 };
    // Its index in [header, answer], and its flags.
    for (place, flags) in [(0, 0), (1, 0), (1, WRITE), (2, WRITE)] {
        let [request, answer] = good(&mut guest, 0);
        let mut chain = vec![request, answer];
        chain.insert(place, Descriptor { flags, ..empty });
        let used = guest.send_linked(QUEUE, &mut chain);
        assert_eq!(
            (used.length, guest.memory(answer.address, 3)),
            (3, vec![0x17, 0x80, 0]),
            "{place} {flags}"
        );
    }
}

/// A driver takes a status that was not written for success.
#[test]
fn an_empty_write_with_an_empty_buffer_is_answered() {
    let (board, mut guest) = start(0);
    for (address, status) in [(THERMOMETER, 0), (THERMOMETER + 1, 1)] {
        let (request, _) = write(address, 0, &[]);
        let (request, place) = (guest.place(&request), guest.place(&[UNTOUCHED]));
        let mut chain = [(request, 8, 0), (NOWHERE, 0, 0), (place, 1, WRITE)]
            .map(|(address, length, flags)| Descriptor { address, length, flags, next: 0 });
        let used = guest.send_linked(QUEUE, &mut chain);
        assert_eq!((used.length, guest.memory(place, 1)), (1, vec![status]), "{address:#x}");
    }
    assert_eq!(board.journal().len(), 1);
}

/// There is no room for a status: the used length is 0.
#[test]
fn a_chain_of_empty_descriptors_has_no_answer() {
    for flags in [0, WRITE] {
        expect_empty_answer(|_| vec![Descriptor { address: NOWHERE, length: 0, flags, next: 0 }]);
    }
    expect_empty_answer(|guest| {
        let [request, answer] = good(guest, 1);
        vec![request, Descriptor { length: 0, ..answer }]
    });
}

#[test]
fn a_chain_beyond_the_limits_is_malformed() {
    expect_empty_answer(|guest| {
        let [request, answer] = good(guest, 1);
        vec![request, Descriptor { length: u32::MAX, ..answer }]
    });
    expect_error_answer(|guest| {
        let [request, answer] = good(guest, 1);
        vec![Descriptor { length: 8 + 65536, ..request }, answer]
    });
}

/// A guest's kernel can send such a message, and an adapter of Linux cannot.
#[test]
fn a_message_beyond_the_limit_of_linux_fails() {
    let (board, mut guest) = start(0);
    for length in [8193, 65535] {
        let (request, room) = write(THERMOMETER, 0, &vec![0; length]);
        assert_eq!(guest.ask(QUEUE, &request, room), [1], "{length}");
    }
    let (request, _) = read(THERMOMETER, 0, 2);
    let answer = guest.ask(QUEUE, &request, 8194);
    assert_eq!((answer.len(), answer.last()), (8194, Some(&1)));
    assert_eq!(board.journal().len(), 0);
    check_service(&mut guest);
}

#[test]
fn a_chain_that_loops_is_malformed() {
    expect_empty_answer(|guest| {
        let [request, _] = good(guest, 0);
        vec![Descriptor { length: 1, ..request }]
    });
}

#[test]
fn an_index_outside_of_the_table_is_malformed() {
    expect_empty_answer(|guest| good(guest, RING).to_vec());
    expect_empty_answer(|guest| good(guest, u16::MAX).to_vec());
}

#[test]
fn a_request_outside_of_memory_fails() {
    expect_error_answer(|guest| {
        let [request, answer] = good(guest, 1);
        vec![Descriptor { address: NOWHERE, ..request }, answer]
    });
    expect_error_answer(|guest| {
        let [request, answer] = good(guest, 1);
        vec![Descriptor { address: u64::MAX - 3, ..request }, answer]
    });
}

/// The transaction is carried out, but the answer cannot be written.
#[test]
fn an_answer_outside_of_memory_has_used_length_0() {
    let (_board, mut guest) = start(0);
    let [request, answer] = good(&mut guest, 1);
    let head = guest.send_raw(QUEUE, &[request, Descriptor { address: NOWHERE, ..answer }]);
    assert_eq!(guest.wait(QUEUE), Used { head, length: 0 });
    check_service(&mut guest);
}

/// The data cannot be written, and the status can: it must not be OK.
#[test]
fn a_read_whose_data_is_outside_of_memory_has_status_err() {
    let (_board, mut guest) = start(0);
    let [request, answer] = good(&mut guest, 0);
    let status = guest.place(&[UNTOUCHED]);
    let mut chain = [
        request,
        Descriptor { address: NOWHERE, length: 2, ..answer },
        Descriptor { address: status, length: 1, ..answer },
    ];
    let used = guest.send_linked(QUEUE, &mut chain);
    assert_eq!((used.length, guest.memory(status, 1)), (0, vec![1]));
    check_service(&mut guest);
}

/// 2.7.5.3: a table of descriptors of its own, if negotiated.
#[test]
fn an_indirect_table_is_used() {
    let (_board, mut guest) = start(0);
    // "The device MUST ignore the write-only flag" (2.7.5.3.2).
    for flags in [INDIRECT, INDIRECT | WRITE] {
        let table = good(&mut guest, 1);
        let table = guest.place_table(&table);
        let head = guest.send_raw(QUEUE, &[Descriptor { address: table, length: 32, flags, next: 0 }]);
        assert_eq!(guest.wait(QUEUE), Used { head, length: 3 });
    }
}

/// 2.7.5.3.2: "zero or more normal chained descriptors followed by a single descriptor with" INDIRECT.
#[test]
fn an_indirect_descriptor_may_follow_others() {
    let (_board, mut guest) = start(0);
    for cuts in [&[8][..], &[3, 5], &[1; 8]] {
        let [request, answer] = good(&mut guest, 0);
        let (mut address, mut next) = (request.address, guest.next_descriptor(QUEUE));
        let mut chain = Vec::new();
        for length in cuts {
            next = (next + 1) % RING;
            chain.push(Descriptor { address, length: *length, flags: NEXT, next });
            address += u64::from(*length);
        }
        let table = guest.place_table(&[answer]);
        chain.push(Descriptor { address: table, length: 16, flags: INDIRECT, next: 0 });
        let head = guest.send_raw(QUEUE, &chain);
        assert_eq!(guest.wait(QUEUE), Used { head, length: 3 }, "{cuts:?}");
        assert_eq!(guest.memory(answer.address, 3), [0x17, 0x80, 0], "{cuts:?}");
    }
}

#[test]
fn invalid_indirect_descriptors_are_malformed() {
    let indirect = |address, length| Descriptor { address, length, flags: INDIRECT, next: 0 };
    // A size of 0, of a part of a descriptor, and of too many.
    for length in [0, 31, 16 * 65] {
        expect_empty_answer(|guest| {
            let table = good(guest, 1);
            vec![indirect(guest.place_table(&table), length)]
        });
    }
    expect_empty_answer(|_| vec![indirect(NOWHERE, 32)]);
    // A table in a table (2.7.5.3.1).
    expect_empty_answer(|guest| {
        let table = good(guest, 1);
        let inner = guest.place_table(&table);
        vec![indirect(guest.place_table(&[indirect(inner, 32)]), 16)]
    });
    // Not negotiated.
    let (_board, mut guest) = start(F_INDIRECT_DESC);
    let table = good(&mut guest, 1);
    let table = guest.place_table(&table);
    let head = guest.send_raw(QUEUE, &[indirect(table, 32)]);
    assert_eq!(guest.wait(QUEUE), Used { head, length: 0 });
    check_service(&mut guest);
}

/// A malformed chain may be the middle of a group: its neighbours are not joined.
#[test]
fn a_malformed_chain_in_a_group_fails_the_group() {
    let (board, mut guest) = start(0);
    let (request, room) = write(THERMOMETER, FAIL_NEXT, &[3]);
    let first = guest.send(QUEUE, &request, room);
    let [request, answer] = good(&mut guest, 3);
    guest.send_raw(QUEUE, &[Descriptor { next: RING, ..request }, answer]);
    let (request, room) = read(THERMOMETER, 0, 2);
    let last = guest.send(QUEUE, &request, room);
    let used: Vec<_> = (0..3).map(|_| guest.wait(QUEUE)).collect();
    assert_eq!(guest.answer(last, used[2]), [0, 0, 1]);
    // The first may have been carried out alone, if the rest came late; it was never joined with the last.
    let _ = first;
    assert!(
        board.journal().iter().all(|line| line["messages"].as_array().is_some_and(|list| list.len() == 1))
    );
    check_service(&mut guest);
}

/// Checks that the frontend is notified, and that the ring works again after a reset: there is no chain to
/// answer.
fn expect_unusable_ring(spoil: impl FnOnce(&mut Guest)) {
    let (board, mut guest) = start(0);
    spoil(&mut guest);
    guest.wait_failed(QUEUE);
    assert_eq!(board.journal().len(), 0);
    guest.stop();
    guest.start();
    check_service(&mut guest);
}

/// 2.7.13.3.
#[test]
fn an_available_index_beyond_the_ring_makes_it_unusable() {
    expect_unusable_ring(|guest| guest.publish_as(QUEUE, RING + 1));
    expect_unusable_ring(|guest| guest.publish_as(QUEUE, u16::MAX));
}

/// 2.7.13.2.
#[test]
fn a_head_outside_of_the_table_makes_the_ring_unusable() {
    expect_unusable_ring(|guest| guest.offer(QUEUE, RING));
    expect_unusable_ring(|guest| guest.offer(QUEUE, u16::MAX));
}

/// 2.7.7.2.
#[test]
fn a_batch_causes_one_interrupt_at_the_event_index() {
    let (_board, mut guest) = start(0);
    guest.set_event(QUEUE, 8);
    let batch = vec![read(THERMOMETER, 0, 2); 8];
    guest.send_all(QUEUE, &batch[..7]);
    guest.send_all(QUEUE, &batch[7..]);
    // `used` would set the event index to the next entry.
    assert_eq!(guest.wait_notified(QUEUE), 1);
    let used = (0..8).filter_map(|_| guest.used(QUEUE)).count();
    assert_eq!((used, guest.notifications(QUEUE)), (8, 0));
    check_service(&mut guest);
}

#[test]
fn requests_are_answered_without_event_indices() {
    let (_board, mut guest) = start(F_EVENT_IDX);
    for _ in 0..100 {
        check_service(&mut guest);
    }
}

/// 2.7.8.2: `len` and the bytes are written before the used index. This driver polls, and uses another length
/// each time.
#[test]
fn an_answer_is_complete_when_the_used_index_is_written() {
    let (_board, mut guest) = start(0);
    for round in 0..100 {
        let batch: Vec<_> = (0..16).map(|index| read(THERMOMETER, 0, 100 + (round + index) % 99)).collect();
        for (sent, (_, room)) in guest.send_all(QUEUE, &batch).into_iter().zip(&batch) {
            let mut polls = iter::repeat_with(|| guest.used(QUEUE)).take(POLLS).flatten();
            let used = polls.next().expect("a chain");
            let answer = guest.answer(sent, used);
            assert_eq!((used.length, answer.contains(&UNTOUCHED)), (*room, false), "{answer:?}");
        }
    }
}

/// The guest chooses the addresses. The frontend gets an error, and may send others.
#[test]
fn a_ring_outside_of_memory_is_refused() {
    let (_board, mut guest) = start(0);
    guest.stop();
    guest.move_beyond_memory().expect_err("an error");
    guest.start();
    check_service(&mut guest);
}

/// Pseudo-random chains with a fixed seed.
#[test]
fn ten_thousand_random_chains_do_no_harm() {
    let (_board, mut guest) = start(0);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut chance = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..500 {
        guest.stop();
        guest.start();
        for _ in 0..20 {
            let chain: Vec<_> = (0..=chance(3)).map(|_| random(&mut guest, &mut chance)).collect();
            guest.send_raw(QUEUE, &chain);
        }
        if round % 100 == 0 {
            guest.stop();
            guest.start();
            check_service(&mut guest);
        }
    }
}

fn random(guest: &mut Guest, chance: &mut impl FnMut(u64) -> u64) -> Descriptor {
    let bytes: Vec<u8> = (0..12).map(|_| u8::try_from(chance(256)).expect("a byte")).collect();
    let inside = guest.place(&bytes);
    let small = |value: u64| u16::try_from(value).expect("small");
    Descriptor {
        address: [inside, NOWHERE, chance(u64::MAX), inside & !0xfff][usize::from(small(chance(4)))],
        length: [1, 8, 12, 9000, u32::MAX][usize::from(small(chance(5)))],
        flags: small(chance(8)),
        next: small(chance(u64::from(RING) + 2)),
    }
}

/// The smallest ring that holds a request, that of Zephyr's drivers, and the largest one.
#[test]
fn rings_of_any_size_wrap_around() {
    for size in [2_u16, 4, 16, 64, 256, 1024] {
        let (_board, socket) = Board::start("i2c", BOARD, &["--allow", "any"]);
        let mut guest = Guest::connect_sized(socket, 1, size);
        for _ in 0..2 * size {
            check_service(&mut guest);
            guest.forget_buffers();
        }
    }
}
