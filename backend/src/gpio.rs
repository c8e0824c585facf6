// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio GPIO device (virtio 1.3, 5.18): chosen lines of chosen chips, for one guest.
//!
//! ```text
//!   requestq ─▶ request ─▶ policy ─▶ controller ─▶ Lines ─┬─▶ linux   /dev/gpiochipN
//!               (parse)   (authorise)  │ ▲                └─▶ sim     a simulated board
//!   eventq   ─▶ unmask ────────────────┘ └── edges
//! ```

pub mod arguments;
pub mod controller;
pub mod device;
#[cfg(test)]
pub(crate) mod fake;
pub mod line_option;
pub mod lines;
pub mod linux;
pub mod policy;
pub mod request;
pub mod safe;
#[cfg(feature = "sim")]
pub mod sim;
pub mod spec;
mod state;
pub mod wiring;

pub use arguments::Arguments;
