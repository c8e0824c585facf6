// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio-mmio ioreq server for Xen on Arm that drives vhost-user device daemons.

pub mod config;
