// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Owned handles to Xen's interfaces in Linux: privcmd, evtchn, gntdev and the ioreq page.
