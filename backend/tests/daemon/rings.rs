// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the core does with rings and chains, good and bad (virtio 1.3, 2.7): shown with the I2C device.

use std::iter;

use crate::board::Board;
use crate::guest::{Descriptor, Guest, INDIRECT, NEXT, RING, UNTOUCHED, Used, WRITE};
use crate::i2c::{BOARD, FAIL_NEXT, THERMOMETER, read, write};

const QUEUE: usize = 0;
/// `VIRTIO_F_INDIRECT_DESC` and `VIRTIO_F_EVENT_IDX`.
const F_INDIRECT_DESC: u64 = 1 << 28;
const F_EVENT_IDX: u64 = 1 << 29;
/// How often a driver looks for a chain that it waits for without sleeping: some seconds.
const LOOKS: usize = 10_000_000;
/// Where the guest has no memory.
const NOWHERE: u64 = 0x1000;

fn bench(without: u64) -> (Board, Guest) {
    let (board, socket) = Board::start("i2c", BOARD, &["--allow", "0x48"]);
    let guest = Guest::connect(socket, 1, without);
    (board, guest)
}

fn works(guest: &mut Guest) {
    let (request, room) = read(THERMOMETER, 0, 2);
    assert_eq!(guest.ask(QUEUE, &request, room), [0x17, 0x80, 0]);
}

/// A request and its answer, each in one descriptor.
fn good(guest: &mut Guest, next: u16) -> [Descriptor; 2] {
    let (request, room) = read(THERMOMETER, 0, 2);
    let request = guest.place(&request);
    let answer = guest.place(&[0; 3]);
    [
        Descriptor { address: request, length: 8, flags: NEXT, next },
        Descriptor { address: answer, length: room, flags: WRITE, next: 0 },
    ]
}

/// Sends `chain` and sees that it comes back empty, that the queue goes on, and that the bus saw nothing of it.
fn costs_one_chain(chain: impl FnOnce(&mut Guest) -> Vec<Descriptor>) {
    comes_back(chain, 0);
}

/// The same, where there is room for an answer: it says that the request failed.
fn costs_one_request(chain: impl FnOnce(&mut Guest) -> Vec<Descriptor>) {
    let (chain, guest) = comes_back(chain, 3);
    let answer = chain.last().expect("a descriptor for the answer").address;
    assert_eq!(guest.memory(answer, 3), [0, 0, 1], "{chain:?}");
}

fn comes_back(chain: impl FnOnce(&mut Guest) -> Vec<Descriptor>, length: u32) -> (Vec<Descriptor>, Guest) {
    let (board, mut guest) = bench(0);
    let chain = chain(&mut guest);
    let head = guest.send_raw(QUEUE, &chain);
    assert_eq!(guest.wait(QUEUE), Used { head, length }, "{chain:?}");
    assert_eq!(board.journal().len(), 0);
    works(&mut guest);
    (chain, guest)
}

/// 2.7.4.1: "The device MUST NOT make assumptions about the particular arrangement of descriptors." Linux puts header,
/// buffer and status into one each.
#[test]
fn how_a_request_is_cut_into_descriptors_makes_no_difference() {
    let (_board, mut guest) = bench(0);
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
fn device_readable_after_device_writable() {
    costs_one_chain(|guest| {
        let [request, answer] = good(guest, 0);
        vec![Descriptor { flags: WRITE | NEXT, next: 1, ..answer }, Descriptor { flags: 0, ..request }]
    });
}

/// A piece of no bytes adds nothing, wherever it is and wherever it points (2.7.4.1): the request is what it is without.
#[test]
fn descriptors_of_no_length() {
    let (_board, mut guest) = bench(0);
    let empty = Descriptor { address: NOWHERE, length: 0, flags: 0, next: 0 };
    // Where it stands in [header, answer], and what it is said to be for.
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

/// A write of no bytes, whose buffer a driver may well describe: it is answered, as a driver takes a status that was not written
/// for success.
#[test]
fn a_write_with_a_buffer_of_no_length() {
    let (board, mut guest) = bench(0);
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

/// There is no byte that a status could be written to: the used length is 0.
#[test]
fn nothing_but_descriptors_of_no_length() {
    for flags in [0, WRITE] {
        costs_one_chain(|_| vec![Descriptor { address: NOWHERE, length: 0, flags, next: 0 }]);
    }
    costs_one_chain(|guest| {
        let [request, answer] = good(guest, 1);
        vec![request, Descriptor { length: 0, ..answer }]
    });
}

#[test]
fn more_bytes_than_any_request_has() {
    costs_one_chain(|guest| {
        let [request, answer] = good(guest, 1);
        vec![request, Descriptor { length: u32::MAX, ..answer }]
    });
    costs_one_request(|guest| {
        let [request, answer] = good(guest, 1);
        vec![Descriptor { length: 8 + 65536, ..request }, answer]
    });
}

/// What a guest's kernel can send, and an adapter cannot: the driver must not take it for done.
#[test]
fn more_bytes_than_linux_takes() {
    let (board, mut guest) = bench(0);
    for length in [8193, 65535] {
        let (request, room) = write(THERMOMETER, 0, &vec![0; length]);
        assert_eq!(guest.ask(QUEUE, &request, room), [1], "{length}");
    }
    let (request, _) = read(THERMOMETER, 0, 2);
    let answer = guest.ask(QUEUE, &request, 8194);
    assert_eq!((answer.len(), answer.last()), (8194, Some(&1)));
    assert_eq!(board.journal().len(), 0);
    works(&mut guest);
}

#[test]
fn a_chain_that_loops() {
    costs_one_chain(|guest| {
        let [request, _] = good(guest, 0);
        vec![Descriptor { length: 1, ..request }]
    });
}

#[test]
fn an_index_outside_of_the_table() {
    costs_one_chain(|guest| good(guest, RING).to_vec());
    costs_one_chain(|guest| good(guest, u16::MAX).to_vec());
}

#[test]
fn memory_that_the_guest_does_not_have() {
    costs_one_request(|guest| {
        let [request, answer] = good(guest, 1);
        vec![Descriptor { address: NOWHERE, ..request }, answer]
    });
    costs_one_request(|guest| {
        let [request, answer] = good(guest, 1);
        vec![Descriptor { address: u64::MAX - 3, ..request }, answer]
    });
}

/// The bus transaction was made; there is nowhere to tell of it.
#[test]
fn an_answer_to_nowhere() {
    let (_board, mut guest) = bench(0);
    let [request, answer] = good(&mut guest, 1);
    let head = guest.send_raw(QUEUE, &[request, Descriptor { address: NOWHERE, ..answer }]);
    assert_eq!(guest.wait(QUEUE), Used { head, length: 0 });
    works(&mut guest);
}

/// The data cannot be delivered, and the status can: it must not say that all is well.
#[test]
fn data_to_nowhere_and_a_status_that_has_a_place() {
    let (_board, mut guest) = bench(0);
    let [request, answer] = good(&mut guest, 0);
    let status = guest.place(&[UNTOUCHED]);
    let mut chain = [
        request,
        Descriptor { address: NOWHERE, length: 2, ..answer },
        Descriptor { address: status, length: 1, ..answer },
    ];
    let used = guest.send_linked(QUEUE, &mut chain);
    assert_eq!((used.length, guest.memory(status, 1)), (0, vec![1]));
    works(&mut guest);
}

/// 2.7.5.3: a table of descriptors of its own, if negotiated.
#[test]
fn indirect_descriptors() {
    let (_board, mut guest) = bench(0);
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
fn an_indirect_descriptor_after_others() {
    let (_board, mut guest) = bench(0);
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
fn indirect_descriptors_that_must_not_be() {
    let indirect = |address, length| Descriptor { address, length, flags: INDIRECT, next: 0 };
    // A size that is not one of whole descriptors, none, too many.
    for length in [0, 31, 16 * 65] {
        costs_one_chain(|guest| {
            let table = good(guest, 1);
            vec![indirect(guest.place_table(&table), length)]
        });
    }
    costs_one_chain(|_| vec![indirect(NOWHERE, 32)]);
    // A table in a table (2.7.5.3.1).
    costs_one_chain(|guest| {
        let table = good(guest, 1);
        let inner = guest.place_table(&table);
        vec![indirect(guest.place_table(&[indirect(inner, 32)]), 16)]
    });
    // Not negotiated.
    let (_board, mut guest) = bench(F_INDIRECT_DESC);
    let table = good(&mut guest, 1);
    let table = guest.place_table(&table);
    let head = guest.send_raw(QUEUE, &[indirect(table, 32)]);
    assert_eq!(guest.wait(QUEUE), Used { head, length: 0 });
    works(&mut guest);
}

/// A chain that cannot be read may have been the middle of a transaction: its neighbours are not joined over it.
#[test]
fn a_gap_in_a_group_fails_the_group() {
    let (board, mut guest) = bench(0);
    let (request, room) = write(THERMOMETER, FAIL_NEXT, &[3]);
    let first = guest.send(QUEUE, &request, room);
    let [request, answer] = good(&mut guest, 3);
    guest.send_raw(QUEUE, &[Descriptor { next: RING, ..request }, answer]);
    let (request, room) = read(THERMOMETER, 0, 2);
    let last = guest.send(QUEUE, &request, room);
    let used: Vec<_> = (0..3).map(|_| guest.wait(QUEUE)).collect();
    assert_eq!(guest.answer(last, used[2]), [0, 0, 1]);
    // The first may have been carried out alone, if the rest took its time; it was never joined with the last.
    let _ = first;
    assert!(
        board.journal().iter().all(|line| line["messages"].as_array().is_some_and(|list| list.len() == 1))
    );
    works(&mut guest);
}

/// There is no chain that could come back: the frontend is told, and a reset helps.
fn costs_the_ring(spoil: impl FnOnce(&mut Guest)) {
    let (board, mut guest) = bench(0);
    spoil(&mut guest);
    guest.wait_failed(QUEUE);
    assert_eq!(board.journal().len(), 0);
    guest.stop();
    guest.start();
    works(&mut guest);
}

/// 2.7.13.3: the available index ran ahead of the ring.
#[test]
fn an_available_index_that_cannot_be() {
    costs_the_ring(|guest| guest.publish_as(QUEUE, RING + 1));
    costs_the_ring(|guest| guest.publish_as(QUEUE, u16::MAX));
}

/// 2.7.13.2: a head outside of the table.
#[test]
fn a_head_that_cannot_be() {
    costs_the_ring(|guest| guest.offer(QUEUE, RING));
    costs_the_ring(|guest| guest.offer(QUEUE, u16::MAX));
}

/// 2.7.7.2: notified when the chain is used that the driver wants to hear of, and once for a batch.
#[test]
fn notifications_are_as_few_as_the_driver_wants() {
    let (_board, mut guest) = bench(0);
    guest.hear_of(QUEUE, 8);
    let batch = vec![read(THERMOMETER, 0, 2); 8];
    guest.send_all(QUEUE, &batch[..7]);
    guest.send_all(QUEUE, &batch[7..]);
    // A look at the ring would ask for a notification of the next.
    assert_eq!(guest.wait_notified(QUEUE), 1);
    let used = (0..8).filter_map(|_| guest.used(QUEUE)).count();
    assert_eq!((used, guest.notifications(QUEUE)), (8, 0));
    works(&mut guest);
}

#[test]
fn without_event_indices_all_is_the_same() {
    let (_board, mut guest) = bench(F_EVENT_IDX);
    for _ in 0..100 {
        works(&mut guest);
    }
}

/// 2.7.8.2: `len` and so many bytes are there before the used index says so. This driver does not wait to be notified, and
/// takes other lengths each time.
#[test]
fn what_comes_back_is_complete_when_the_index_says_so() {
    let (_board, mut guest) = bench(0);
    for round in 0..100 {
        let batch: Vec<_> = (0..16).map(|index| read(THERMOMETER, 0, 100 + (round + index) % 99)).collect();
        for (sent, (_, room)) in guest.send_all(QUEUE, &batch).into_iter().zip(&batch) {
            let mut looks = iter::repeat_with(|| guest.used(QUEUE)).take(LOOKS).flatten();
            let used = looks.next().expect("a chain");
            let answer = guest.answer(sent, used);
            assert_eq!((used.length, answer.contains(&UNTOUCHED)), (*room, false), "{answer:?}");
        }
    }
}

/// Where a ring is, the guest chose. Its frontend hears that it cannot be there, and may try again.
#[test]
fn a_ring_outside_of_memory() {
    let (_board, mut guest) = bench(0);
    guest.stop();
    guest.start_at_end_of_memory().expect_err("a refusal");
    guest.start();
    works(&mut guest);
}

/// Chains by chance, with a seed: the daemon answers what it can and goes on.
#[test]
fn hostile_chains_in_numbers() {
    let (_board, mut guest) = bench(0);
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
            works(&mut guest);
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
