// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end-to-end run: Xen in QEMU, a driver domain, two guests and the scenarios they pass.
