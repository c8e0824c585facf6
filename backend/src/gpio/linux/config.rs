// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Configurations and errors of the uAPI.

use std::io;
use std::num::NonZero;

use gpiocdev_uapi::v2::{Error, LineAttributeValue, LineConfig, LineFlags, LineInfo, LineValues};

use crate::gpio::lines::{Edges, Setup};
use crate::gpio::wiring::Wiring;

/// The mask of the only line of a request.
const ONE_LINE: u64 = 1;

/// Returns the edges that a line records, from the flags of its request.
pub(super) fn edges(flags: LineFlags) -> Edges {
    match (flags.contains(LineFlags::EDGE_RISING), flags.contains(LineFlags::EDGE_FALLING)) {
        (false, false) => Edges::None,
        (true, false) => Edges::Rising,
        (false, true) => Edges::Falling,
        (true, true) => Edges::Both,
    }
}

/// Returns the configuration of a request of one line. Without any flag, the line stays as it is.
pub(super) fn config(setup: Setup, wiring: Wiring) -> LineConfig {
    let direction = match setup {
        Setup::Released | Setup::Kept => LineFlags::empty(),
        Setup::Output(_) => LineFlags::OUTPUT,
        Setup::Input(Edges::None) => LineFlags::INPUT,
        Setup::Input(Edges::Rising) => LineFlags::INPUT | LineFlags::EDGE_RISING,
        Setup::Input(Edges::Falling) => LineFlags::INPUT | LineFlags::EDGE_FALLING,
        Setup::Input(Edges::Both) => LineFlags::INPUT | LineFlags::EDGE_RISING | LineFlags::EDGE_FALLING,
    };
    let mut config = LineConfig { flags: direction | wiring.flags(direction), ..LineConfig::default() };
    match setup {
        // The value comes with the direction, so that an output never starts with another one.
        Setup::Output(value) => config.add_values(&LineValues::from_slice(&[value])),
        Setup::Input(_) => {
            if let Some(period) = wiring.debounce_us {
                config.add_debounce(period.get(), ONE_LINE);
            }
        }
        Setup::Released | Setup::Kept => {}
    }
    config
}

/// Returns the debounce period of a line in microseconds.
pub(super) fn debounce_us(info: &LineInfo) -> Option<NonZero<u32>> {
    let attributes = info.attrs.0.iter().take(usize::try_from(info.num_attrs).unwrap_or(0));
    attributes
        .filter_map(|attribute| match attribute.to_value() {
            Some(LineAttributeValue::DebouncePeriod(period)) => NonZero::new(period),
            _ => None,
        })
        .next()
}

/// An error of the uAPI crate, to be converted to [`io::Error`].
pub(super) struct Failure(pub(super) Error);

impl From<Failure> for io::Error {
    fn from(Failure(error): Failure) -> Self {
        match error {
            Error::Os(errno) => Self::from_raw_os_error(errno.0),
            Error::UnderRead(error) => Self::new(io::ErrorKind::UnexpectedEof, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpio::wiring::{Bias, Drive};

    #[test]
    fn each_setup_is_one_configuration_of_the_uapi() {
        let cases = [
            (Setup::Released, LineFlags::empty()),
            (Setup::Input(Edges::None), LineFlags::INPUT),
            (Setup::Input(Edges::Rising), LineFlags::INPUT | LineFlags::EDGE_RISING),
            (Setup::Input(Edges::Falling), LineFlags::INPUT | LineFlags::EDGE_FALLING),
            (Setup::Input(Edges::Both), LineFlags::INPUT | LineFlags::EDGE_RISING | LineFlags::EDGE_FALLING),
        ];
        for (setup, expected) in cases {
            let config = config(setup, Wiring::default());
            assert_eq!((config.flags, config.num_attrs), (expected, 0));
        }
        for level in [false, true] {
            let config = config(Setup::Output(level), Wiring::default());
            assert_eq!(config.flags, LineFlags::OUTPUT);
            assert_eq!(attributes(&config), [LineAttributeValue::Values(u64::from(level))]);
        }
    }

    fn attributes(config: &LineConfig) -> Vec<LineAttributeValue> {
        let used = config.attrs.0.iter().take(config.num_attrs as usize);
        used.map(|attribute| {
            assert_eq!(attribute.mask, ONE_LINE);
            attribute.attr.to_value().expect("an attribute")
        })
        .collect()
    }

    #[test]
    fn the_wiring_of_a_line_is_part_of_each_configuration() {
        let debounce_us = NonZero::new(5000);
        let wiring = Wiring { bias: Some(Bias::PullUp), drive: Drive::OpenSource, debounce_us };
        for edges in [Edges::None, Edges::Rising, Edges::Falling, Edges::Both] {
            let (plain, wired) =
                (config(Setup::Input(edges), Wiring::default()), config(Setup::Input(edges), wiring));
            assert_eq!(wired.flags, plain.flags | LineFlags::BIAS_PULL_UP);
            assert_eq!(attributes(&wired), [LineAttributeValue::DebouncePeriod(5000)]);
        }
        let output = config(Setup::Output(true), wiring);
        assert_eq!(output.flags, LineFlags::OUTPUT | LineFlags::OPEN_SOURCE | LineFlags::BIAS_PULL_UP);
        assert_eq!(attributes(&output), [LineAttributeValue::Values(1)]);
        let released = config(Setup::Released, wiring);
        assert_eq!((released.flags, released.num_attrs), (LineFlags::empty(), 0));
    }

    #[test]
    fn edges_and_debouncing_are_read_back_from_the_kernel() {
        for edges in [Edges::None, Edges::Rising, Edges::Falling, Edges::Both] {
            assert_eq!(super::edges(config(Setup::Input(edges), Wiring::default()).flags), edges);
        }
        let mut info = LineInfo::default();
        assert_eq!(debounce_us(&info), None);
        info.attr_mut(0).set_debounce_period_us(7);
        info.num_attrs = 1;
        assert_eq!(debounce_us(&info), NonZero::new(7));
    }

    #[test]
    fn an_error_of_the_kernel_keeps_its_kind() {
        let busy = Error::Os(gpiocdev_uapi::v2::Errno(rustix::io::Errno::BUSY.raw_os_error()));
        assert_eq!(io::Error::from(Failure(busy)).kind(), io::ErrorKind::ResourceBusy);
    }
}
