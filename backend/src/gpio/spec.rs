// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Constants and types of virtio 1.3, 5.18 ("GPIO Device").

/// Index of the queue that carries requests (5.18.2).
pub const REQUEST_QUEUE: u16 = 0;
/// Index of the queue of event buffers (5.18.2).
pub const EVENT_QUEUE: u16 = 1;
/// Number of queues (5.18.2).
pub const QUEUES: usize = 2;

/// Bit of `VIRTIO_GPIO_F_IRQ`: the device supports interrupts on its lines (5.18.3).
pub const F_IRQ: u32 = 0;

/// Size of `struct virtio_gpio_config` (5.18.4).
pub const CONFIG_SIZE: usize = 8;
/// Size of `struct virtio_gpio_request` (5.18.6).
pub const REQUEST_SIZE: usize = 8;
/// Size of `struct virtio_gpio_response` (5.18.6).
pub const RESPONSE_SIZE: usize = 2;
/// Size of `struct virtio_gpio_irq_request` (5.18.7).
pub const IRQ_REQUEST_SIZE: usize = 2;
/// Size of `struct virtio_gpio_irq_response` (5.18.7).
pub const IRQ_RESPONSE_SIZE: usize = 1;

/// `VIRTIO_GPIO_MSG_GET_LINE_NAMES` (5.18.6.1).
pub const MSG_GET_LINE_NAMES: u16 = 1;
/// `VIRTIO_GPIO_MSG_GET_DIRECTION` (5.18.6.2).
pub const MSG_GET_DIRECTION: u16 = 2;
/// `VIRTIO_GPIO_MSG_SET_DIRECTION` (5.18.6.3).
pub const MSG_SET_DIRECTION: u16 = 3;
/// `VIRTIO_GPIO_MSG_GET_VALUE` (5.18.6.4).
pub const MSG_GET_VALUE: u16 = 4;
/// `VIRTIO_GPIO_MSG_SET_VALUE` (5.18.6.5).
pub const MSG_SET_VALUE: u16 = 5;
/// `VIRTIO_GPIO_MSG_SET_IRQ_TYPE` (5.18.6.6).
pub const MSG_SET_IRQ_TYPE: u16 = 6;

/// `VIRTIO_GPIO_STATUS_OK` (5.18.6).
pub const STATUS_OK: u8 = 0;
/// `VIRTIO_GPIO_STATUS_ERR` (5.18.6).
pub const STATUS_ERR: u8 = 1;

/// The direction of a line (5.18.6, "GPIO Direction types").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// `VIRTIO_GPIO_DIRECTION_NONE`: the line is not in use.
    #[default]
    None,
    /// `VIRTIO_GPIO_DIRECTION_OUT`.
    Output,
    /// `VIRTIO_GPIO_DIRECTION_IN`.
    Input,
}

impl Direction {
    /// Returns the direction of a `value` field, if it is valid.
    pub fn from_wire(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::Output),
            2 => Some(Self::Input),
            _ => None,
        }
    }

    /// Returns the `value` field of a response to GET_DIRECTION.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Output => 1,
            Self::Input => 2,
        }
    }
}

/// The interrupt type of a line (5.18.6, "GPIO interrupt types"); NONE is `Option::None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// `VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING`.
    Rising,
    /// `VIRTIO_GPIO_IRQ_TYPE_EDGE_FALLING`.
    Falling,
    /// `VIRTIO_GPIO_IRQ_TYPE_EDGE_BOTH`.
    Both,
    /// `VIRTIO_GPIO_IRQ_TYPE_LEVEL_HIGH`.
    High,
    /// `VIRTIO_GPIO_IRQ_TYPE_LEVEL_LOW`.
    Low,
}

impl Trigger {
    /// Returns the trigger of a `value` field: `Some(None)` for NONE, `None` if it is invalid.
    pub fn from_wire(value: u32) -> Option<Option<Self>> {
        match value {
            0x0 => Some(None),
            0x1 => Some(Some(Self::Rising)),
            0x2 => Some(Some(Self::Falling)),
            0x3 => Some(Some(Self::Both)),
            0x4 => Some(Some(Self::High)),
            0x8 => Some(Some(Self::Low)),
            _ => None,
        }
    }

    /// Returns the `value` field of a SET_IRQ_TYPE.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::Rising => 0x1,
            Self::Falling => 0x2,
            Self::Both => 0x3,
            Self::High => 0x4,
            Self::Low => 0x8,
        }
    }
}

/// The status in a returned event buffer (5.18.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqStatus {
    /// `VIRTIO_GPIO_IRQ_STATUS_INVALID`: no interrupt, the buffer is returned unused.
    Invalid,
    /// `VIRTIO_GPIO_IRQ_STATUS_VALID`: the interrupt was raised.
    Valid,
}

impl IrqStatus {
    /// Returns `struct virtio_gpio_irq_response`.
    pub fn to_wire(self) -> [u8; IRQ_RESPONSE_SIZE] {
        match self {
            Self::Invalid => [0],
            Self::Valid => [1],
        }
    }
}

/// Returns `struct virtio_gpio_config` (5.18.4) with every field set (5.18.6.9: "The device MUST set all the
/// fields").
pub fn config(lines: u16, names_size: u32) -> [u8; CONFIG_SIZE] {
    let [l0, l1] = lines.to_le_bytes();
    let [n0, n1, n2, n3] = names_size.to_le_bytes();
    [l0, l1, 0, 0, n0, n1, n2, n3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_is_laid_out_as_in_5_18_4() {
        assert_eq!(config(0x0102, 0x0304_0506), [2, 1, 0, 0, 6, 5, 4, 3]);
    }

    #[test]
    fn only_the_values_of_5_18_6_are_directions_and_triggers() {
        for value in 0..=0x1_0000u32 {
            assert_eq!(Direction::from_wire(value).is_some(), value <= 2);
            let known = matches!(value, 0..=4 | 8);
            assert_eq!(Trigger::from_wire(value).is_some(), known, "{value}");
        }
        for value in [0, 1, 2] {
            let direction = Direction::from_wire(value).map(Direction::to_wire);
            assert_eq!(direction.map(u32::from), Some(value));
        }
    }
}
