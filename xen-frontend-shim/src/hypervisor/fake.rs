// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A hypervisor for tests. It panics when a vCPU is answered twice or without a request, and counts the
//! mappings of grants.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use xen_bindings::{Direction, Kind, RawRequest};

use super::{Hypervisor, Mapping};
use crate::memory::{GuestRange, Page};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SlotState {
    #[default]
    None,
    Ready(RawRequest),
    InProcess(RawRequest),
}

/// The state of the fake.
#[derive(Debug, Default)]
struct Inner {
    slots: Vec<SlotState>,
    answers: Vec<(u32, u64)>,
    raised: Vec<u32>,
    granted: BTreeMap<u32, Box<[u8]>>,
    mapped: BTreeMap<u32, u32>,
}

/// The hypervisor.
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
        Self(Rc::new(RefCell::new(Inner { slots: vec![SlotState::None; vcpus], ..Inner::default() })))
    }

    /// Makes `vcpu` trap with `request`.
    pub(crate) fn trap(&self, vcpu: u32, request: RawRequest) {
        let slot = &mut self.0.borrow_mut().slots[vcpu as usize];
        assert_eq!(*slot, SlotState::None, "vCPU {vcpu} traps while it waits");
        *slot = SlotState::Ready(request);
    }

    /// The answers since the last call.
    pub(crate) fn answers(&self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.0.borrow_mut().answers)
    }

    pub(crate) fn is_waiting(&self, vcpu: u32) -> bool {
        self.0.borrow().slots[vcpu as usize] != SlotState::None
    }

    /// The interrupts since the last call.
    pub(crate) fn raised(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.borrow_mut().raised)
    }

    /// Grants a page of zeros under `reference`.
    pub(crate) fn grant(&self, reference: u32) {
        self.0.borrow_mut().granted.insert(reference, vec![0; 4096].into());
    }

    /// Writes to a page of the guest, if it is granted.
    pub(crate) fn store_u16(&self, reference: u32, offset: usize, value: u16) {
        let mut inner = self.0.borrow_mut();
        if let Some(page) = inner.granted.get_mut(&reference) {
            page[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// The number of mapped grants.
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
            SlotState::Ready(request) => Some(*request),
            _ => None,
        }
    }

    fn claim(&self, vcpu: u32) -> Option<RawRequest> {
        let request = self.pending(vcpu)?;
        *self.0.borrow_mut().slots.get_mut(vcpu as usize)? = SlotState::InProcess(request);
        Some(request)
    }

    fn left_behind(&self, vcpu: u32) -> Option<RawRequest> {
        match self.0.borrow().slots.get(vcpu as usize)? {
            SlotState::InProcess(request) => Some(*request),
            _ => None,
        }
    }

    fn respond(&self, vcpu: u32, data: u64) {
        let mut inner = self.0.borrow_mut();
        let slot = &mut inner.slots[vcpu as usize];
        assert!(matches!(slot, SlotState::InProcess(_)), "vCPU {vcpu} is answered without a claimed request");
        *slot = SlotState::None;
        inner.answers.push((vcpu, data));
    }

    fn raise(&self, irq: u32) -> io::Result<()> {
        self.0.borrow_mut().raised.push(irq);
        Ok(())
    }

    fn map(&self, range: GuestRange) -> io::Result<FakeMapping> {
        let (Page::Granted(first), pages) = (range.first(), range.page_count()) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
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

/// A mapping of granted pages.
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
