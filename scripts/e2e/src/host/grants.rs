// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The number of mapped grants of each domain, as Xen prints them for its debug key `g`
//! (xen/common/grant_table.c, gnttab_usage_print_all).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::console::{Console, Party};

const LIMIT: Duration = Duration::from_secs(30);
const DOMAIN: &str = "grant-table for remote d";
pub(super) const END: &str = "gnttab_usage_print_all ] done";

/// Returns the present number of mapped grants of each domain.
///
/// # Errors
/// Returns an error if Xen does not print its grant tables.
pub fn mapped(console: &Console) -> Result<BTreeMap<u16, usize>> {
    let mark = console.mark();
    console.type_to_xen(b"g")?;
    let end = console.wait(mark, LIMIT, |line| line.text.ends_with(END).then_some(()))?;
    end.context("Xen does not print its grant tables")?;
    let lines = console.since(mark);
    Ok(count(lines.iter().filter(|line| line.from == Party::Xen).map(|line| line.text.as_str())))
}

/// Counts the entries below each domain's heading. Xen prints an entry only while it is in use.
fn count<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<u16, usize> {
    let mut domains = BTreeMap::new();
    let mut present = None;
    for line in lines {
        if let Some(rest) = line.strip_prefix(DOMAIN) {
            present =
                rest.split(|digit: char| !digit.is_ascii_digit()).next().and_then(|text| text.parse().ok());
            present.map(|number| domains.insert(number, 0));
        } else if line.starts_with("[0x")
            && let Some(count) = present.and_then(|number| domains.get_mut(&number))
        {
            *count += 1;
        }
    }
    domains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_by_domain() {
        let printed = "\
gnttab_usage_print_all [ key 'g' pressed
      -------- active --------       -------- shared --------
[ref] localdom mfn      pin          localdom gmfn     flags
grant-table for remote d1 (v1)
  1 frames (64 max), 0 maptrack frames (1024 max)
no active grant table entries
      -------- active --------       -------- shared --------
[ref] localdom mfn      pin          localdom gmfn     flags
grant-table for remote d2 (v1)
  1 frames (64 max), 0 maptrack frames (1024 max)
[0x008]      1 0x060123 0x00000002          1 0x00000000060123 0x19
[0x009]      1 0x060124 0x00000001          1 0x00000000060124 0x1d
gnttab_usage_print_all ] done";
        assert_eq!(count(printed.lines()), BTreeMap::from([(1, 0), (2, 2)]));
    }
}
