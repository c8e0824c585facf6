// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an integrator writes: the board, the driver domain and its hardware, the guests and their devices.
//!
//! Each value remembers where it stands in the file, for the diagnostics of [`crate::validate`]. Reading finds
//! unknown and missing keys and values of a wrong type; whether the whole makes sense is decided there.

mod parse;

use toml_span::{Deserialize, Span, Spanned};

use crate::diagnostics::{self, Diagnostic};
pub use crate::spanned::{Memory, Property};

/// The whole file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// A board that the builder knows, or the path of a board file, relative to the manifest.
    pub board: Spanned<String>,
    /// The domain that owns the hardware.
    pub driver_domain: DriverDomain,
    /// The guests, in the order of their domids.
    pub guests: Vec<Guest>,
}

/// What every domain has.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its RAM.
    pub memory: Spanned<Memory>,
    /// How many virtual CPUs it has.
    pub vcpus: Spanned<u32>,
    /// Its kernel, below the directory of input files.
    pub kernel: Spanned<String>,
    /// What its kernel's command line has besides what the builder puts there.
    pub bootargs: Option<Spanned<String>>,
}

/// The domain that owns the hardware and serves the guests.
#[derive(Clone, Debug)]
pub struct DriverDomain {
    /// Memory, CPUs and kernel.
    pub domain: Domain,
    /// The board's hardware that it owns, by name.
    pub hardware: Vec<Spanned<String>>,
    /// A program to keep running on the console, with its arguments.
    pub console: Vec<Spanned<String>>,
    /// Files to add to its ramdisk.
    pub files: Vec<ExtraFile>,
}

/// A file that the driver domain's ramdisk gets besides what it always has.
#[derive(Clone, Debug)]
pub struct ExtraFile {
    /// Its absolute path in the driver domain.
    pub destination: Spanned<String>,
    /// Where it is taken from, below the directory of input files.
    pub source: Spanned<String>,
}

/// One guest.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its name: in file names, in log lines, and (as `NAME_t`) in the policy.
    pub name: Spanned<String>,
    /// Memory, CPUs and kernel.
    pub domain: Domain,
    /// Its ramdisk, below the directory of input files.
    pub ramdisk: Option<Spanned<String>>,
    /// Its I2C adapters.
    pub i2c: Vec<I2c>,
    /// Its GPIO controllers.
    pub gpio: Vec<Gpio>,
    /// The guest's place in the file.
    pub span: Span,
}

/// A virtio I2C adapter of a guest.
#[derive(Clone, Debug)]
pub struct I2c {
    /// Its name, unique in the guest: the adapter's name if not given.
    pub name: Spanned<String>,
    /// The hardware it stands for.
    pub adapter: Spanned<String>,
    /// What the guest may reach on it.
    pub targets: Vec<Target>,
    /// For so many microseconds after each request its backend looks for the next, before it sleeps.
    pub busy_poll: Option<Spanned<i64>>,
    /// Where it must be in the guest, if the guest cannot be told.
    pub placement: Placement,
    /// The device's place in the file.
    pub span: Span,
}

/// A target on an I2C bus.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address, seven bits.
    pub address: Spanned<i64>,
    /// The drivers that the guest's kernel may bind, by device tree binding, the most specific first. None if not
    /// given: the guest's programs then use the bus themselves.
    pub compatible: Option<Vec<String>>,
    /// More properties of its device tree node.
    pub properties: Vec<(Spanned<String>, Property)>,
    /// That another guest uses it, too, is meant.
    pub shared: bool,
}

/// A virtio GPIO controller of a guest.
#[derive(Clone, Debug)]
pub struct Gpio {
    /// Its name, unique in the guest: `gpio` if not given.
    pub name: Spanned<String>,
    /// Its lines, in the guest's order.
    pub lines: Vec<Line>,
    /// For so many microseconds after each request its backend looks for the next, before it sleeps.
    pub busy_poll: Option<Spanned<i64>>,
    /// Where it must be in the guest, if the guest cannot be told.
    pub placement: Placement,
    /// The device's place in the file.
    pub span: Span,
}

/// One line of a GPIO controller of the driver domain.
#[derive(Clone, Debug)]
pub struct Line {
    /// The hardware that has it.
    pub chip: Spanned<String>,
    /// Its number there.
    pub line: Spanned<i64>,
    /// Its name in the guest, if it has one.
    pub name: Option<Spanned<String>>,
    /// What becomes of it when no driver uses it.
    pub safe: Option<Safe>,
    /// The resistor that its controller connects.
    pub bias: Option<Bias>,
    /// How it is driven, as an output.
    pub drive: Option<Drive>,
    /// For so many microseconds it must keep a level, as an input, before that counts.
    pub debounce: Option<Spanned<i64>>,
    /// That another guest uses it, too, is meant.
    pub shared: Option<Spanned<bool>>,
}

/// What becomes of a GPIO line that no driver uses: before its guest has set it up, and when the guest has let it go, is
/// reset or gone. Without one the line is released, since only the author knows what is safe for what hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safe {
    /// It is driven low.
    Low,
    /// It is driven high.
    High,
    /// If it was driven, it goes on being driven as it was.
    Stay,
}

impl std::fmt::Display for Safe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Low => "0",
            Self::High => "1",
            Self::Stay => "stay",
        })
    }
}

/// The resistor that a controller connects to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// To the supply.
    PullUp,
    /// To ground.
    PullDown,
    /// None.
    Disabled,
}

/// How an output is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// To both levels.
    PushPull,
    /// To low only.
    OpenDrain,
    /// To high only.
    OpenSource,
}

impl Bias {
    /// All of them, as they are written in a manifest and on the backend's command line.
    pub const WORDS: [(&'static str, Self); 3] =
        [("pull-up", Self::PullUp), ("pull-down", Self::PullDown), ("disabled", Self::Disabled)];
}

impl Drive {
    /// All of them, as they are written in a manifest and on the backend's command line.
    pub const WORDS: [(&'static str, Self); 3] =
        [("push-pull", Self::PushPull), ("open-drain", Self::OpenDrain), ("open-source", Self::OpenSource)];
}

/// The word of `value`.
fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}

impl std::fmt::Display for Bias {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(word(&Self::WORDS, *self))
    }
}

impl std::fmt::Display for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(word(&Self::WORDS, *self))
    }
}

/// A fixed place in the guest. Linux is told by its device tree where a device is and needs none of this; a guest
/// whose device tree is compiled in does.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// The address of the register window.
    pub base: Option<Spanned<i64>>,
    /// The interrupt's number at the guest's GIC.
    pub irq: Option<Spanned<i64>>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// All keys and values that are not as they must be, or the first place that is not TOML at all.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut value = toml_span::parse(text).map_err(diagnostics::from_error)?;
        Self::deserialize(&mut value).map_err(diagnostics::from_reader)
    }

    /// The driver domain and the guests, in the order of their domids.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        std::iter::once(&self.driver_domain.domain).chain(self.guests.iter().map(|guest| &guest.domain))
    }
}
