// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! vhost-user device daemons for I2C and GPIO, one multi-call binary.
