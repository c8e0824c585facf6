// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Instructions that are counted by kind or that show what runs (Arm ARM, C4.1 and C5).

use crate::counts::Kind;
use crate::mark::HINT;

/// An instruction with a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// `HVC #0xea1`: a hypercall with its number in X16 (Xen's public header arch-arm.h).
    Hypercall,
    /// Another `HVC`: a firmware call, which Xen handles, with its number in W0 (SMCCC).
    Firmware,
    /// `SVC`: a system call with its number in X8 (Linux).
    SystemCall,
    /// A program's mark.
    Mark,
    /// An instruction that only has a counter.
    Counted(Kind),
}

impl Special {
    /// Returns the meaning of the instruction `word`, if it has one.
    #[must_use]
    pub fn of(word: u32) -> Option<Self> {
        Some(match word {
            _ if word & !0x1f == 0xd518_d020 => Self::Counted(Kind::Switches),
            0xd401_d422 => Self::Hypercall,
            _ if word & 0xffe0_001f == 0xd400_0002 => Self::Firmware,
            _ if word & 0xffe0_001f == 0xd400_0001 => Self::SystemCall,
            _ if word == 0xd503_201f | HINT << 5 => Self::Mark,
            _ if word & 0xfff8_f000 == 0xd508_8000 => Self::Counted(Kind::Invalidations),
            _ if word & !0x1f == 0xd538_6000 => Self::Counted(Kind::Faults),
            0xd69f_03e0 => Self::Counted(Kind::Returns),
            0xd503_207f => Self::Counted(Kind::Waits),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The opcodes are those of `aarch64-linux-gnu-as`.
    #[test]
    fn instructions_are_recognised() {
        for (word, special) in [
            (0xd51c_2103, None),                                        // msr vttbr_el2, x3
            (0xd518_d035, Some(Special::Counted(Kind::Switches))),      // msr contextidr_el1, x21
            (0xd401_d422, Some(Special::Hypercall)),                    // hvc #0xea1
            (0xd400_0002, Some(Special::Firmware)),                     // hvc #0
            (0xd400_0001, Some(Special::SystemCall)),                   // svc #0
            (0xd503_2eff, Some(Special::Mark)),                         // hint #119
            (0xd503_201f, None),                                        // nop
            (0xd50c_83df, Some(Special::Counted(Kind::Invalidations))), // tlbi vmalls12e1is
            (0xd508_8323, Some(Special::Counted(Kind::Invalidations))), // tlbi vae1is, x3
            (0xd538_6001, Some(Special::Counted(Kind::Faults))),        // mrs x1, far_el1
            (0xd69f_03e0, Some(Special::Counted(Kind::Returns))),       // eret
            (0xd503_207f, Some(Special::Counted(Kind::Waits))),         // wfi
            (0xd65f_03c0, None),                                        // ret
        ] {
            assert_eq!(Special::of(word), special, "{word:#x}");
        }
    }
}
