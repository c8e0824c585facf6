// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A queue of a device: its ring, chains, kicks, and waiting for used buffers.

use alloc::vec::Vec;
use core::time::Duration;

use anyhow::{Context, Result, ensure};

use super::ring::{Descriptor, NEXT, Ring, Used, WRITE};
use super::window::{
    INTERRUPT_ACK, INTERRUPT_STATUS, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_READY,
    QUEUE_SEL, QUEUE_SIZE, QUEUE_SIZE_MAX, Window,
};
use crate::clock::Moment;
use crate::grants::Granted;
use crate::interrupts;

/// The time within which a device has to use a buffer, however busy the machine is.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Its address.
    pub address: u64,
    /// Its length.
    pub length: u32,
    /// Whether the device writes it.
    pub is_written: bool,
}

impl Buffer {
    /// Returns a buffer in a granted page.
    ///
    /// # Errors
    /// Returns an error if offset or length do not fit their types.
    pub fn within(page: &Granted, offset: usize, length: usize, is_written: bool) -> Result<Self> {
        let address = page.address(u64::try_from(offset)?);
        Ok(Self { address, length: u32::try_from(length)?, is_written })
    }
}

/// A chain whose buffers are in one page.
#[derive(Debug)]
pub struct Chain {
    /// The page.
    pub page: Granted,
    /// The buffers.
    pub buffers: Vec<Buffer>,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    /// The device's registers.
    pub window: Window,
    /// Its number.
    pub number: u32,
    /// Its ring.
    pub ring: Ring,
    /// The first descriptor of the next chain.
    next: u16,
}

impl Queue {
    /// Creates a ring and enables the queue with it.
    ///
    /// # Errors
    /// Returns an error if the device has no such queue or a smaller one, or if an access faulted.
    pub fn attach(window: Window, number: u32, size: u16) -> Result<Self> {
        let ring = Ring::new(size)?;
        let queue = Self { window, number, ring, next: 0 };
        queue.enable()?;
        Ok(queue)
    }

    /// Gives the device size and addresses of the ring, and sets QueueReady.
    ///
    /// # Errors
    /// Returns an error if the device has no such queue or a smaller one, or if an access faulted.
    pub fn enable(&self) -> Result<()> {
        let (window, ring) = (self.window, &self.ring);
        window.write(QUEUE_SEL, self.number)?;
        let most = window.read(QUEUE_SIZE_MAX)?;
        ensure!(u32::from(ring.size) <= most, "queue {} has at most {most} entries", self.number);
        ensure!(window.read(QUEUE_READY)? == 0, "queue {} is enabled already", self.number);
        window.write(QUEUE_SIZE, ring.size.into())?;
        window.write_wide(QUEUE_DESC, ring.descriptors.address(0))?;
        window.write_wide(QUEUE_DRIVER, ring.available.address(0))?;
        window.write_wide(QUEUE_DEVICE, ring.used.address(0))?;
        window.write(QUEUE_READY, 1)?;
        ensure!(window.read(QUEUE_READY)? == 1, "queue {} does not become ready", self.number);
        Ok(())
    }

    /// Writes a chain and makes it available without a kick. Returns its head. Descriptors are used in turn:
    /// the caller limits the number of pending chains, so that this one does not overwrite theirs.
    ///
    /// # Errors
    /// Returns an error if the chain is empty or longer than the ring.
    pub fn offer(&mut self, chain: &[Buffer]) -> Result<u16> {
        let size = self.ring.size;
        ensure!(!chain.is_empty() && chain.len() <= usize::from(size), "a chain of {} buffers", chain.len());
        let head = self.next;
        for (place, buffer) in chain.iter().enumerate() {
            let index = self.next;
            self.next = (self.next + 1) % size;
            let goes_on = if place + 1 < chain.len() { NEXT } else { 0 };
            let flags = goes_on | if buffer.is_written { WRITE } else { 0 };
            let Buffer { address, length, .. } = *buffer;
            self.ring.set(index, Descriptor { address, length, flags, next: self.next });
        }
        self.ring.offer(head);
        Ok(head)
    }

    /// Kicks the device.
    ///
    /// # Errors
    /// Returns an error if the access faulted.
    pub fn kick(&self) -> Result<()> {
        self.window.write(QUEUE_NOTIFY, self.number)
    }

    /// Waits for the interrupt with which the device announces a used buffer, and acknowledges it.
    ///
    /// # Errors
    /// Returns an error if nothing is used within [`LIMIT`].
    pub fn wait(&mut self) -> Result<Used> {
        let end = Moment::after(LIMIT);
        let is_used = interrupts::wait(Some(end), || self.ring.has_used());
        ensure!(is_used, "queue {}: no buffer was used within {LIMIT:?}", self.number);
        let status = self.window.read(INTERRUPT_STATUS)?;
        self.window.write(INTERRUPT_ACK, status)?;
        self.ring.take().context("no buffer was used")
    }

    /// Sends a chain and waits until the device has used it. Returns the number of bytes written.
    ///
    /// # Errors
    /// Returns an error if the device does not use it within [`LIMIT`], or uses another chain.
    pub fn transfer(&mut self, chain: &[Buffer]) -> Result<u32> {
        let head = self.offer(chain)?;
        self.kick()?;
        let used = self.wait()?;
        ensure!(used.head == u32::from(head), "chain {head} was sent, chain {} was used", used.head);
        Ok(used.written)
    }
}
