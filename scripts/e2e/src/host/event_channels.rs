// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The number of event channels of each domain, as Xen prints it for its debug key `e`
//! (xen/common/event_channel.c, dump_evtchn_info).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::console::{Console, Party};
use super::grants;

const LIMIT: Duration = Duration::from_secs(30);
const DOMAIN: &str = "Event channel information for domain ";
/// The text between a port's flags and its state, in each line of a port.
const PORT: &str = "]: s=";

/// Returns the present number of event channels of each domain.
///
/// # Errors
/// Returns an error if Xen does not print them.
pub fn open(console: &Console) -> Result<BTreeMap<u16, usize>> {
    let mark = console.mark();
    // Xen handles one key after the other. It marks the end of its output for `g` only.
    console.type_to_xen(b"eg")?;
    let end = console.wait(mark, LIMIT, |line| line.text.ends_with(grants::END).then_some(()))?;
    end.context("Xen does not print its event channels")?;
    let lines = console.since(mark);
    Ok(count(lines.iter().filter(|line| line.from == Party::Xen).map(|line| line.text.as_str())))
}

/// Counts the ports below each domain's heading.
fn count<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<u16, usize> {
    let mut domains = BTreeMap::new();
    let mut present = None;
    for line in lines {
        if let Some(rest) = line.strip_prefix(DOMAIN) {
            present = rest.trim_end_matches(':').parse().ok();
            present.map(|number| domains.insert(number, 0));
        } else if line.contains(PORT)
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
    fn ports_are_counted_by_domain() {
        let printed = "\
'e' pressed -> dumping event-channel info
Event channel information for domain 1:
Polling vCPUs: {}
    port [p/m/s]
       1 [0/0/  -   ]: s=3 n=0 x=0 d=2 p=1
       2 [0/0/  -   ]: s=5 n=0 x=0 v=0
Event channel information for domain 2:
Polling vCPUs: {}
    port [p/m/s]
       1 [0/1/  -   ]: s=3 n=0 x=1 d=1 p=1
gnttab_usage_print_all [ key 'g' pressed
[0x008]      1 0x060123 0x00000002          1 0x00000000060123 0x19
gnttab_usage_print_all ] done";
        assert_eq!(count(printed.lines()), BTreeMap::from([(1, 2), (2, 1)]));
    }
}
