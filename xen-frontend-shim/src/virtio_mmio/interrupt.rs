// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! InterruptStatus and InterruptACK (virtio 1.3, 4.2.2) for interrupts that bypass the shim.
//!
//! The backend interrupts the guest through the kernel (irqfd), so the shim does not see the interrupts. It
//! reads the used indices in guest memory instead: bit 0 is set if a used index has changed since the value
//! that the driver has last acknowledged.

/// InterruptStatus bit 0: a used buffer notification.
pub const USED_BUFFER: u32 = 1;
/// InterruptStatus bit 1: a configuration change notification.
pub const CONFIG_CHANGE: u32 = 2;

/// The used index of a queue at two events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The used index that the driver has acknowledged.
    acknowledged: u16,
    /// The used index at the last read of InterruptStatus. InterruptACK acknowledges this one: a buffer used
    /// between the read and the write must set the bit again, or its interrupt would find a status of 0.
    reported: u16,
}

/// The pending notifications.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    config_change: bool,
    /// Whether bit 0 is set regardless of the used indices: the driver may have missed a notification.
    is_owed: bool,
    queues: Vec<Seen>,
}

impl Interrupt {
    /// The device starts, with used indices of 0 (virtio 1.3, 2.7.8 and 3.1.1). The indices in guest memory
    /// are not read here: the backend may have used buffers already, for which the interrupt is pending.
    pub fn start(&mut self, queues: usize) {
        self.queues = vec![Seen::default(); queues];
    }

    /// The device continues after a worker ended. What the driver had acknowledged is not known, so it is
    /// notified again.
    pub fn resume(&mut self, queues: usize) {
        self.start(queues);
        self.is_owed = true;
    }

    /// Whether a configuration change is not acknowledged yet.
    #[must_use]
    pub fn has_config_changed(&self) -> bool {
        self.config_change
    }

    /// A queue stops with the used index `used`. What the driver has not acknowledged stays pending
    /// (4.2.2.1); the queue may start again from 0.
    pub fn stop(&mut self, queue: usize, used: Option<u16>) {
        if let Some(seen) = self.queues.get_mut(queue) {
            self.is_owed |= used.is_some_and(|used| used != seen.acknowledged);
            *seen = Seen::default();
        }
    }

    /// The configuration has changed.
    pub fn config_changed(&mut self) {
        self.config_change = true;
    }

    /// A read of InterruptStatus. `used` is the used index of a queue, or `None` if the queue does not run.
    pub fn status(&mut self, used: impl Fn(usize) -> Option<u16>) -> u32 {
        let mut status = if self.config_change { CONFIG_CHANGE } else { 0 };
        if self.is_owed {
            status |= USED_BUFFER;
        }
        for (index, seen) in self.queues.iter_mut().enumerate() {
            let Some(used) = used(index) else { continue };
            seen.reported = used;
            if used != seen.acknowledged {
                status |= USED_BUFFER;
            }
        }
        status
    }

    /// A write of InterruptACK.
    pub fn acknowledge(&mut self, bits: u32) {
        if bits & CONFIG_CHANGE != 0 {
            self.config_change = false;
        }
        if bits & USED_BUFFER != 0 {
            self.is_owed = false;
            for seen in &mut self.queues {
                seen.acknowledged = seen.reported;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_buffer_shows_until_it_is_acknowledged() {
        let mut interrupt = Interrupt::default();
        interrupt.start(2);
        assert_eq!(interrupt.status(|_| Some(0)), 0);
        let used = |queue| Some(if queue == 1 { 3 } else { 0 });
        assert_eq!(interrupt.status(used), USED_BUFFER);
        assert_eq!(interrupt.status(used), USED_BUFFER);
        interrupt.acknowledge(USED_BUFFER);
        assert_eq!(interrupt.status(used), 0);
    }

    #[test]
    fn a_buffer_used_between_status_and_acknowledgement_is_not_lost() {
        let mut interrupt = Interrupt::default();
        interrupt.start(1);
        assert_eq!(interrupt.status(|_| Some(u16::MAX)), USED_BUFFER);
        // The used index moves to 0 here.
        interrupt.acknowledge(USED_BUFFER);
        assert_eq!(interrupt.status(|_| Some(0)), USED_BUFFER);
        interrupt.acknowledge(USED_BUFFER);
        assert_eq!(interrupt.status(|_| Some(0)), 0);
    }

    #[test]
    fn what_is_used_while_the_device_starts_shows() {
        let mut interrupt = Interrupt::default();
        interrupt.start(1);
        assert_eq!(interrupt.status(|_| Some(2)), USED_BUFFER);
    }

    #[test]
    fn the_bits_are_acknowledged_apart() {
        let mut interrupt = Interrupt::default();
        interrupt.start(1);
        interrupt.config_changed();
        assert_eq!(interrupt.status(|_| Some(1)), USED_BUFFER | CONFIG_CHANGE);
        interrupt.acknowledge(CONFIG_CHANGE);
        assert_eq!(interrupt.status(|_| Some(1)), USED_BUFFER);
        interrupt.acknowledge(!0);
        assert_eq!(interrupt.status(|_| Some(1)), 0);
    }

    #[test]
    fn what_a_stopped_queue_used_shows_until_it_is_acknowledged() {
        let mut interrupt = Interrupt::default();
        interrupt.start(2);
        interrupt.stop(0, Some(0));
        assert_eq!(interrupt.status(|_| None), 0);
        interrupt.stop(1, Some(4));
        assert_eq!(interrupt.status(|_| None), USED_BUFFER);
        interrupt.acknowledge(USED_BUFFER);
        assert_eq!(interrupt.status(|_| None), 0);
        // Once more, from the beginning.
        assert_eq!(interrupt.status(|queue| (queue == 1).then_some(0)), 0);
        assert_eq!(interrupt.status(|queue| (queue == 1).then_some(4)), USED_BUFFER);
        interrupt.stop(7, Some(1));
        interrupt.acknowledge(USED_BUFFER);
        assert_eq!(interrupt.status(|queue| (queue == 1).then_some(4)), 0);
    }

    #[test]
    fn after_a_restart_used_buffers_are_reported_once() {
        for used in [0, 7] {
            let mut interrupt = Interrupt::default();
            interrupt.resume(1);
            assert_eq!(interrupt.status(|_| Some(used)), USED_BUFFER);
            interrupt.acknowledge(USED_BUFFER);
            assert_eq!(interrupt.status(|_| Some(used)), 0);
        }
    }

    #[test]
    fn a_queue_that_does_not_run_shows_nothing() {
        let mut interrupt = Interrupt::default();
        assert_eq!(interrupt.status(|_| None), 0);
        interrupt.start(1);
        assert_eq!(interrupt.status(|_| None), 0);
    }
}
