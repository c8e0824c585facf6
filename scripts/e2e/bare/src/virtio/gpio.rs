// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests of a GPIO controller (virtio 1.3, 5.18.6).

/// VIRTIO_GPIO_MSG_GET_LINE_NAMES.
pub const GET_LINE_NAMES: u16 = 1;
/// VIRTIO_GPIO_MSG_GET_DIRECTION.
pub const GET_DIRECTION: u16 = 2;
/// VIRTIO_GPIO_MSG_SET_DIRECTION.
pub const SET_DIRECTION: u16 = 3;
/// VIRTIO_GPIO_MSG_GET_VALUE.
pub const GET_VALUE: u16 = 4;
/// VIRTIO_GPIO_MSG_SET_VALUE.
pub const SET_VALUE: u16 = 5;
/// VIRTIO_GPIO_MSG_SET_IRQ_TYPE.
pub const SET_IRQ_TYPE: u16 = 6;

/// VIRTIO_GPIO_DIRECTION_NONE.
pub const DIRECTION_NONE: u32 = 0;
/// VIRTIO_GPIO_DIRECTION_OUT.
pub const DIRECTION_OUT: u32 = 1;
/// VIRTIO_GPIO_DIRECTION_IN.
pub const DIRECTION_IN: u32 = 2;

/// VIRTIO_GPIO_STATUS_OK.
pub const OK: u8 = 0;
/// VIRTIO_GPIO_STATUS_ERR.
pub const ERR: u8 = 1;

/// Returns a `struct virtio_gpio_request`.
#[must_use]
pub fn request(message: u16, line: u16, value: u32) -> [u8; 8] {
    let ([a, b], [c, d], [e, f, g, h]) = (message.to_le_bytes(), line.to_le_bytes(), value.to_le_bytes());
    [a, b, c, d, e, f, g, h]
}
