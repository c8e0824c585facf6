// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Syntax: names of nodes and properties, strings, and properties of device trees.

use toml_span::Spanned;

use crate::diagnostics::Diagnostic;
use crate::spanned::Property;

/// Properties with phandles of other nodes (Devicetree Specification 0.4, and bindings that dtc or Linux
/// know).
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

/// Whether `name` is valid for a property (Devicetree Specification 0.4, 2.2.4.1).
pub(crate) fn is_property_name(name: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || ",._+?#-".contains(char);
    (1..=31).contains(&name.len()) && name.chars().all(plain)
}

/// Whether `name` is valid for a node: 1 to 31 characters from a letter on, with or without a unit address
/// (Devicetree Specification 0.4, 2.2.1.1).
pub(crate) fn is_node_name(name: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || ",._+-".contains(char);
    let (name, address) = name.split_once('@').map_or((name, None), |(name, address)| (name, Some(address)));
    (1..=31).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(plain)
        && address.is_none_or(|address| !address.is_empty() && address.chars().all(plain))
}

/// Whether `path` is an absolute path of valid node names.
pub(crate) fn is_node_path(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_node_name))
}

/// Whether `text` is printable ASCII, which Xen and kernels read as one line.
pub(crate) fn is_plain_text(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Whether `text` can be part of file names, properties and arguments.
pub(crate) fn is_word(text: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_".contains(char);
    text.len() <= 31 && text.chars().all(plain) && text.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Checks the properties that an author adds to a node with the builder's properties `own`; `instead` is the
/// help for those.
pub(crate) fn properties(
    properties: &[(Spanned<String>, Property)],
    own: &[&str],
    instead: &str,
    found: &mut Vec<Diagnostic>,
) {
    for (name, value) in properties {
        let refused = match name.value.as_str() {
            text if own.contains(&text) => {
                Some(("cannot be given", "the builder writes it", instead.to_owned()))
            }
            // For `xen,reg` in a guest's node Xen would map a device into the guest.
            text if text.starts_with("xen,") => {
                Some(("cannot be given", "for Xen, not for a driver", "leave it out".into()))
            }
            text if !is_property_name(text) => {
                let help = "use letters, digits and `,._+?#-`, from 1 to 31 in all";
                Some(("has an invalid name", "not a name in a device tree", help.into()))
            }
            text => wrong_type(text, value).or_else(|| reference(text, value)),
        };
        if let Some((what, label, help)) = refused {
            let title = format!("the property `{}` {what}", name.value);
            found.push(Diagnostic::new(name.span, title, label).help(help));
        }
    }
}

/// A predicate about a property, a label and a help.
type Refused = (&'static str, &'static str, String);

fn wrong_type(name: &str, value: &Property) -> Option<Refused> {
    let (_, expected) = standard(name).filter(|(has_type, _)| !has_type(value))?;
    Some(("cannot have this value", "of another type", format!("write {expected}")))
}

fn reference(name: &str, value: &Property) -> Option<Refused> {
    let help = "leave it out: the device tree has no node with a phandle for it";
    (refers(name) && *value != Property::Flag)
        .then(|| ("refers to another node", "there is no node that it can refer to", help.to_owned()))
}

/// A test of a value's type.
type HasType = fn(&Property) -> bool;

/// The type of a standard property's value (Devicetree Specification 0.4, 2.3), and its description.
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

/// Whether integers of a property are phandles.
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
    fn names_follow_the_devicetree_specification() {
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
    fn references_are_recognised_by_name() {
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
