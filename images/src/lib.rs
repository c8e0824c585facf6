// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One manifest to everything of an appliance image that must agree.
