// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A hypervisor for tests that keeps count: it panics when a vCPU is answered twice or without having asked, and
//! tells which grants are mapped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use xen_bindings::{Direction, Kind, Request as RawRequest};

use super::{Hypervisor, Mapping};
use crate::memory::address::GrantReference;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    None,
    Ready(RawRequest),
    InProcess(RawRequest),
}

/// What the fake has seen and holds.
#[derive(Debug, Default)]
struct Inner {
    slots: Vec<State>,
    answers: Vec<(u32, u64)>,
    raised: Vec<u32>,
    granted: BTreeMap<u32, Box<[u8]>>,
    mapped: BTreeMap<u32, u32>,
}

/// The fake.
#[derive(Clone, Debug)]
pub(crate) struct Fake(Rc<RefCell<Inner>>);

/// A read request.
pub(crate) fn read(address: u64, size: u32) -> RawRequest {
    RawRequest {
        kind: Kind::Copy,
        direction: Direction::Read,
        addr: address,
        data: 0,
        size,
        count: 1,
        data_is_ptr: false,
    }
}

/// A write request.
pub(crate) fn write(address: u64, size: u32, data: u64) -> RawRequest {
    RawRequest { data, direction: Direction::Write, ..read(address, size) }
}

impl Fake {
    pub(crate) fn new(vcpus: usize) -> Self {
        Self(Rc::new(RefCell::new(Inner { slots: vec![State::None; vcpus], ..Inner::default() })))
    }

    /// Lets `vcpu` trap.
    pub(crate) fn trap(&self, vcpu: u32, request: RawRequest) {
        let slot = &mut self.0.borrow_mut().slots[vcpu as usize];
        assert_eq!(*slot, State::None, "vCPU {vcpu} traps while it waits");
        *slot = State::Ready(request);
    }

    /// The answers so far, and forgets them.
    pub(crate) fn answers(&self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.0.borrow_mut().answers)
    }

    pub(crate) fn is_waiting(&self, vcpu: u32) -> bool {
        self.0.borrow().slots[vcpu as usize] != State::None
    }

    /// The interrupts raised so far, and forgets them.
    pub(crate) fn raised(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.borrow_mut().raised)
    }

    /// The guest grants a page of zeros under `reference`.
    pub(crate) fn grant(&self, reference: u32) {
        self.0.borrow_mut().granted.insert(reference, vec![0; 4096].into());
    }

    /// The guest writes to a page, which shows if it granted it.
    pub(crate) fn store_u16(&self, reference: u32, offset: usize, value: u16) {
        let mut inner = self.0.borrow_mut();
        if let Some(page) = inner.granted.get_mut(&reference) {
            page[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// How many grants are mapped.
    pub(crate) fn mapped(&self) -> usize {
        self.0.borrow().mapped.len()
    }
}

impl Hypervisor for Fake {
    type Mapping = FakeMapping;

    fn vcpus(&self) -> u32 {
        u32::try_from(self.0.borrow().slots.len()).expect("few vCPUs")
    }

    fn pending(&self, vcpu: u32) -> Option<RawRequest> {
        match self.0.borrow().slots.get(vcpu as usize)? {
            State::Ready(request) => Some(*request),
            _ => None,
        }
    }

    fn claim(&self, vcpu: u32) -> Option<RawRequest> {
        let request = self.pending(vcpu)?;
        *self.0.borrow_mut().slots.get_mut(vcpu as usize)? = State::InProcess(request);
        Some(request)
    }

    fn left_behind(&self, vcpu: u32) -> Option<RawRequest> {
        match self.0.borrow().slots.get(vcpu as usize)? {
            State::InProcess(request) => Some(*request),
            _ => None,
        }
    }

    fn respond(&self, vcpu: u32, data: u64) {
        let mut inner = self.0.borrow_mut();
        let slot = &mut inner.slots[vcpu as usize];
        assert!(matches!(slot, State::InProcess(_)), "vCPU {vcpu} is answered without a claimed request");
        *slot = State::None;
        inner.answers.push((vcpu, data));
    }

    fn raise(&self, irq: u32) -> io::Result<()> {
        self.0.borrow_mut().raised.push(irq);
        Ok(())
    }

    fn map_grants(&self, first: GrantReference, pages: u32) -> io::Result<FakeMapping> {
        let mut inner = self.0.borrow_mut();
        let references = first.0..first.0 + pages;
        if references.clone().any(|reference| !inner.granted.contains_key(&reference)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        for reference in references {
            *inner.mapped.entry(reference).or_default() += 1;
        }
        drop(inner);
        Ok(FakeMapping { fake: self.clone(), first: first.0, pages })
    }
}

/// A mapping of the fake, which sees what the guest writes.
#[derive(Debug)]
pub(crate) struct FakeMapping {
    fake: Fake,
    first: u32,
    pages: u32,
}

impl Mapping for FakeMapping {
    fn load_u16(&self, offset: usize) -> Option<u16> {
        let page = u32::try_from(offset / 4096).ok().filter(|&page| page < self.pages)?;
        let inner = self.fake.0.borrow();
        let page = inner.granted.get(&(self.first + page))?;
        let bytes = page.get(offset % 4096..)?.first_chunk()?;
        Some(u16::from_le_bytes(*bytes))
    }
}

impl Drop for FakeMapping {
    fn drop(&mut self) {
        let mut inner = self.fake.0.borrow_mut();
        for reference in self.first..self.first + self.pages {
            let count = inner.mapped.get_mut(&reference).expect("mapped");
            *count -= 1;
            if *count == 0 {
                inner.mapped.remove(&reference);
            }
        }
    }
}
