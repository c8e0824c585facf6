// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether another backend can continue where the former one ended, without a request carried out twice and
//! without state that the driver relies on.
//!
//! ```text
//!   type of the device ── state ends with the backend's process ──▶ needs a reset
//!                      ── state is kept with the in-flight record ─▶ needs a reset without one
//!   each queue         ── used index ahead of the available one ──▶ needs a reset
//!                      ── posted buffers of a device-to-driver queue ▶ are offered again
//!                      ── requests without an in-flight record ────▶ needs a reset
//! ```

use shim_config::{Lifetime, Properties};
use thiserror::Error;

use super::stall::Progress;
use crate::memory::Ring;

/// Reasons why no other backend can continue.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Obstacle {
    /// The type has state that no backend keeps.
    #[error("the state of a device of type {0} ends with its backend")]
    StateEnded(String),
    /// The type has state, and the backend keeps none.
    #[error(
        "the state of a device of type {0} ends with its backend, which lacks the protocol feature \
         INFLIGHT_SHMFD"
    )]
    StateNotRecorded(String),
    /// Requests may have been carried out or not.
    #[error(
        "{count} requests of queue {queue} may have been carried out or not: the backend lacks the protocol \
         feature INFLIGHT_SHMFD"
    )]
    Outstanding {
        /// The queue.
        queue: u16,
        /// How many requests have no used entry.
        count: u16,
    },
    /// The backend has returned more buffers than the driver has made available, or the driver has changed an
    /// index.
    #[error(
        "the used index of queue {queue} is {used}, ahead of the available index {available}: a fault of the \
         former backend or of the driver"
    )]
    Ahead {
        /// The queue.
        queue: u16,
        /// The used index.
        used: u16,
        /// The available index.
        available: u16,
    },
}

/// Checks whether a backend of a device with these `properties` can continue with `rings`, whose indices are
/// given. `tracks_inflight`: there is a record of the requests that the former backend has taken.
pub(super) fn check(
    properties: &Properties,
    tracks_inflight: bool,
    rings: impl IntoIterator<Item = (Ring, Progress)>,
) -> Result<(), Obstacle> {
    match properties.lifetime {
        Lifetime::Process => return Err(Obstacle::StateEnded(properties.type_name.clone())),
        Lifetime::Recorded if !tracks_inflight => {
            return Err(Obstacle::StateNotRecorded(properties.type_name.clone()));
        }
        Lifetime::Recorded | Lifetime::Stateless => {}
    }
    for (ring, Progress { available, used }) in rings {
        let (queue, count) = (ring.index, available.wrapping_sub(used));
        if count > ring.size {
            return Err(Obstacle::Ahead { queue, used, available });
        }
        if count > 0 && !tracks_inflight && !properties.inbound.contains(&queue) {
            return Err(Obstacle::Outstanding { queue, count });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhost_user::test_backend::{properties, ring};

    const RNG: u32 = 4;
    const I2C: u32 = 34;
    const GPIO: u32 = 41;

    /// The outcome for one ring of 16 entries.
    fn outcome(device_id: u32, tracks_inflight: bool, available: u16, used: u16) -> Result<(), Obstacle> {
        check(&properties(device_id), tracks_inflight, [(ring(1), Progress { available, used })])
    }

    #[test]
    fn requests_without_a_record_are_an_obstacle_and_posted_buffers_are_not() {
        assert_eq!(outcome(I2C, false, 5, 5), Ok(()));
        assert_eq!(outcome(I2C, false, 1, u16::MAX), Err(Obstacle::Outstanding { queue: 0, count: 2 }));
        assert_eq!(outcome(I2C, true, 7, 5), Ok(()));
        assert_eq!(outcome(RNG, false, 21, 5), Ok(()));
    }

    #[test]
    fn used_index_ahead_of_the_available_one_is_reported_as_that() {
        for (device_id, tracks_inflight) in [(RNG, false), (I2C, false), (I2C, true), (GPIO, true)] {
            let error = outcome(device_id, tracks_inflight, 2, 768).unwrap_err();
            assert_eq!(error, Obstacle::Ahead { queue: 0, used: 768, available: 2 });
            assert!(error.to_string().starts_with("the used index of queue 0 is 768, ahead of"), "{error}");
        }
        assert!(
            matches!(outcome(RNG, false, 22, 5), Err(Obstacle::Ahead { .. })),
            "more than the ring holds"
        );
    }

    #[test]
    fn state_is_kept_by_a_record_for_some_types_and_never_for_others() {
        assert_eq!(outcome(GPIO, true, 5, 5), Ok(()));
        assert_eq!(outcome(GPIO, false, 5, 5), Err(Obstacle::StateNotRecorded("gpio".into())));
        for (device_id, name) in [(19, "vsock"), (26, "fs"), (25, "sound"), (16, "gpu"), (36, "can")] {
            for tracks_inflight in [false, true] {
                let error = outcome(device_id, tracks_inflight, 5, 5);
                assert_eq!(error, Err(Obstacle::StateEnded(name.into())));
            }
        }
    }
}
