// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A model of restored states.

use super::transport::{STATUS, Strict, identity};
use crate::virtio_mmio::{State, Width, status};
use crate::window::Window;

/// Restores any state. One that a driver can have reached is restored as it is; any other makes the device
/// need a reset, which the driver is notified of (virtio 1.3, 2.1.2). A reset ends both.
pub fn restore(state: &State) {
    let device = Strict::offering(state.device_features);
    let is_sound = state.check(&identity(false)).is_ok();
    let (mut window, restored) = Window::restored(identity(false), Some(state.clone()), device.clone(), None);
    assert_eq!(restored.is_ok(), is_sound, "{state:?}");
    let taken = window.state();
    if is_sound {
        let queues = if state.has_driver() { &state.queues } else { &taken.queues }.clone();
        assert_eq!(taken, State { queues, ..state.clone() });
    } else {
        assert!(taken.status.has(status::NEEDS_RESET), "{state:?}");
        assert!(taken.status.has(state.status) || !state.status.is_reachable(), "{state:?}");
        assert_eq!(taken.check(&identity(false)), Ok(()), "{state:?}");
        let is_notified = device.0.borrow().interrupts == 1 && taken.config_change;
        assert_eq!(is_notified, taken.status.has(status::DRIVER_OK), "{state:?}");
    }
    assert_eq!(device.0.borrow().is_running, is_sound && state.is_live(), "{state:?}");
    window.write(STATUS, Width::Four, 0);
    assert!(!device.0.borrow().is_running && !window.state().is_started, "{state:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: the device already needed a reset, and the driver was not notified again.
    #[test]
    fn driver_of_a_device_that_needed_a_reset_is_notified_again() {
        let bytes = [55, 0, 0, 0, 0, 6, 0x4f, 1, 0, 0, 0, 0];
        restore(&postcard::from_bytes(&bytes).unwrap());
    }
}
