// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio I2C device (virtio 1.3, 5.16).
//!
//! ```text
//!  chain ─▶ request ─▶ policy ─▶ device ─▶ transaction ─▶ Bus ─┬▶ linux  an adapter of the kernel
//!           (parse)   (authorise) (groups)  (blocking)         └▶ sim    a simulated board
//! ```

pub mod arguments;
pub mod bus;
pub mod device;
mod group;
pub mod linux;
pub mod policy;
mod request;
#[cfg(feature = "sim")]
pub mod sim;
mod spec;
pub mod time;
mod transaction;
pub mod turn;

pub use arguments::Arguments;
