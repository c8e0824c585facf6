// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can be written in a device tree: names of nodes and properties, strings, and what refers to other nodes.

use toml_span::Spanned;

use crate::diagnostics::Diagnostic;
use crate::spanned::Property;

/// Properties whose integers are handles of other nodes (Devicetree Specification 0.4, and the bindings that dtc checks).
const REFERENCES: [&str; 35] = [
    "assigned-clock-parents",
    "assigned-clocks",
    "clocks",
    "cooling-device",
    "dmas",
    "gpio",
    "gpio-ranges",
    "gpios",
    "hwlocks",
    "i2c-parent",
    "interconnects",
    "interrupt-map",
    "interrupt-parent",
    "interrupts",
    "interrupts-extended",
    "io-channels",
    "iommu-map",
    "iommus",
    "mboxes",
    "memory-region",
    "msi-map",
    "msi-parent",
    "mux-controls",
    "nvmem",
    "nvmem-cells",
    "operating-points-v2",
    "phy-handle",
    "phys",
    "power-domains",
    "pwms",
    "remote-endpoint",
    "resets",
    "sound-dai",
    "thermal-sensors",
    "vcpu-affinity",
];

/// Endings of such properties.
const REFERENCE_ENDINGS: [&str; 3] = ["-gpio", "-gpios", "-supply"];

/// The ending of properties that count GPIO lines, such as `snps,nr-gpios`.
const COUNT_ENDING: &str = "nr-gpios";

/// Devicetree Specification 0.4, 2.2.4.1.
pub(super) fn is_property_name(name: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || ",._+?#-".contains(char);
    (1..=31).contains(&name.len()) && name.chars().all(plain)
}

/// Devicetree Specification 0.4, 2.2.1.1: a name of 1 to 31 characters that starts with a letter, with or without a
/// unit address.
pub(super) fn is_node_name(name: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || ",._+-".contains(char);
    let (name, address) = name.split_once('@').map_or((name, None), |(name, address)| (name, Some(address)));
    (1..=31).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(plain)
        && address.is_none_or(|address| !address.is_empty() && address.chars().all(plain))
}

/// A path from the root of a device tree, which Xen and Linux can look up.
pub(super) fn is_node_path(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_node_name))
}

/// A string of a device tree that a kernel reads as one word or one line: printable ASCII.
pub(super) fn is_plain_text(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// A word that is part of file names, of node names and of arguments.
pub(super) fn is_word(text: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_".contains(char);
    text.len() <= 31 && text.chars().all(plain) && text.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Checks the properties that an author adds to a node in which the builder writes `own`.
pub(super) fn properties(
    properties: &[(Spanned<String>, Property)],
    own: &[&str],
    instead: &str,
    found: &mut Vec<Diagnostic>,
) {
    for (name, value) in properties {
        let text = name.value.as_str();
        if own.contains(&text) {
            let title = format!("the property `{text}` cannot be given");
            found.push(Diagnostic::new(name.span, title, "the builder writes it").help(instead));
        } else if text.starts_with("xen,") {
            // `xen,reg` of a guest's node would have Xen map a device into the guest.
            let title = format!("the property `{text}` cannot be given");
            found.push(Diagnostic::new(name.span, title, "Xen reads it, and no driver").help("leave it out"));
        } else if !is_property_name(text) {
            let title = format!("`{text}` cannot name a property");
            found.push(
                Diagnostic::new(name.span, title, "not a name that a device tree can have")
                    .help("use letters, digits and `,._+?#-`, from 1 to 31 in all"),
            );
        } else if let Some(expected) =
            standard(text).filter(|(holds, _)| !holds(value)).map(|(_, words)| words)
        {
            let title = format!("the property `{text}` cannot have this value");
            found
                .push(Diagnostic::new(name.span, title, "of another type").help(format!("write {expected}")));
        } else if refers(text) && *value != Property::Flag {
            let title = format!("the property `{text}` refers to another node");
            found.push(
                Diagnostic::new(name.span, title, "there is no node that its handle could be of")
                    .help("leave it out: a device tree made from this has no handles of the author's"),
            );
        }
    }
}

/// Whether a value has the type that a property must have.
type HasType = fn(&Property) -> bool;

/// What a standard property holds (Devicetree Specification 0.4, 2.3), if it is one, and that in words.
fn standard(name: &str) -> Option<(HasType, &'static str)> {
    let string: HasType = |value| matches!(value, Property::Strings(strings) if strings.len() == 1);
    let cell: HasType = |value| matches!(value, Property::Cells(cells) if cells.len() == 1);
    let strings: HasType = |value| matches!(value, Property::Strings(_));
    match name {
        "status" | "model" | "label" | "device_type" => Some((string, "one string")),
        "virtual-reg" => Some((cell, "one integer")),
        _ if name.starts_with('#') && name.ends_with("-cells") => Some((cell, "one integer")),
        _ if name.ends_with("-names") => Some((strings, "a string or a list of strings")),
        "ranges" | "dma-ranges" => Some((|value| *value == Property::Flag, "true, or leave it out")),
        "dma-coherent" => Some((|value| *value == Property::Flag, "true, or leave it out")),
        _ => None,
    }
}

/// Whether integers of a property are handles.
fn refers(name: &str) -> bool {
    let is_reference = REFERENCES.contains(&name)
        || REFERENCE_ENDINGS.iter().any(|ending| name.ends_with(ending))
        || name.strip_prefix("pinctrl-").is_some_and(|rest| rest.parse::<u32>().is_ok());
    is_reference && !name.ends_with(COUNT_ENDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        for name in ["gpio", "gpio@9030000", "i2c-mux,x@0,1", "a"] {
            assert!(is_node_name(name), "{name}");
        }
        for name in ["", "@1", "gpio@", "1gpio", "a b", "a/b", "a@b@c", &"x".repeat(32)] {
            assert!(!is_node_name(name), "{name}");
        }
        assert!(is_node_path("/soc@0/i2c@1"));
        for path in ["", "/", "soc", "/soc//i2c", "/soc/"] {
            assert!(!is_node_path(path), "{path}");
        }
        assert!(is_property_name("#gpio-cells") && !is_property_name("") && !is_property_name("a b"));
    }

    #[test]
    fn what_refers_to_nodes_is_known_by_its_name() {
        for name in ["clocks", "vcc-supply", "reset-gpios", "gpios", "pinctrl-0", "interrupt-parent"] {
            assert!(refers(name), "{name}");
        }
        for name in [
            "nr-gpios",
            "snps,nr-gpios",
            "pagesize",
            "gpio-controller",
            "pinctrl-names",
            "clock-frequency",
            "supply",
        ] {
            assert!(!refers(name), "{name}");
        }
    }
}
