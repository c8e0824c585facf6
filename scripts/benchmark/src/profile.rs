// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Instructions by function of Xen and of the driver domain's kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The names of functions by start address.
#[derive(Clone, Debug, Default)]
pub struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// Reads the symbols of Xen and Linux in a directory.
    ///
    /// # Errors
    /// Returns an error if they are missing.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut symbols = Self::default();
        for of in ["xen", "linux"] {
            let path = folder.join(of);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            symbols.add(of, &text);
        }
        Ok(symbols)
    }

    /// Adds the output of `nm`.
    fn add(&mut self, of: &str, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            // Code only, without the mapping symbols of the assembler.
            if let ("T" | "t" | "W" | "w", Ok(address)) = (kind, u64::from_str_radix(address, 16))
                && !name.starts_with('$')
            {
                self.0.insert(address, format!("{of}: {name}"));
            }
        }
    }

    /// Sums instructions by function.
    #[must_use]
    pub fn by_function(&self, instructions: &[(u64, u64)]) -> BTreeMap<String, u64> {
        let mut functions = BTreeMap::new();
        for (address, count) in instructions {
            let name = self.0.range(..=address).next_back().map_or("?", |(_, name)| name);
            *functions.entry(name.to_owned()).or_default() += count;
        }
        functions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_belongs_to_the_function_before_it() {
        let mut symbols = Symbols::default();
        symbols.add("xen", "0000000000001000 T first\n0000000000001008 t $x\n0000000000001010 t second\n");
        symbols.add("linux", "0000000000001018 D data\nU nothing\n");
        let functions =
            symbols.by_function(&[(0x1000, 1), (0x100c, 2), (0x1010, 4), (0x2000, 8), (0x10, 16)]);
        let expected = [("xen: first", 3), ("xen: second", 12), ("?", 16)];
        assert_eq!(functions, expected.map(|(name, count)| (name.to_owned(), count)).into());
    }
}
