// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration of the shim.

use shim_config::{Config, Guest};

use crate::plan::{DRIVER_DOMID, Plan};

/// Makes the shim's configuration.
pub fn shim(plan: &Plan<'_>) -> Config {
    let guests = plan.guests.iter().map(|guest| Guest {
        name: guest.guest.name.value.clone(),
        domid: guest.domid,
        user: Some(guest.user),
        memory: guest.reached_memory(),
        device: guest.devices.iter().map(|device| device.configuration.clone()).collect(),
    });
    Config { domid: DRIVER_DOMID, guest: guests.collect() }
}
