// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! virtio-gpio (virtio 1.3, 5.18): chosen lines of chosen chips, for one guest.
//!
//! ```text
//!   requestq ─▶ request ─▶ policy ─▶ controller ─▶ chip ─┬─▶ linux   /dev/gpiochipN
//!               (parse)   (authorise)  │ ▲               └─▶ sim     a model of a board
//!   eventq   ─▶ unmask ────────────────┘ └── edges
//! ```
//!
//! [`device`] is the way in from the core, and [`arguments`] what the operator says.

pub mod arguments;
pub mod chip;
pub mod controller;
pub mod device;
#[cfg(test)]
mod fake;
mod kept;
pub mod linux;
pub mod policy;
pub mod request;
pub mod safe;
pub mod sim;
pub mod spec;
mod state;
pub mod wiring;

pub use arguments::Arguments;
