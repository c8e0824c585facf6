// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files of an image, each made from the plan.

pub mod accounts;
pub mod driver_dt;
pub(crate) mod fdt;
pub mod guest_dt;
pub mod host_dt;
pub mod policy;
pub mod qemu;
pub mod ramdisk;
pub mod shim;
