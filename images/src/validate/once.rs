// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names that may be used once.

use std::collections::HashMap;

use toml_span::{Span, Spanned};

use crate::diagnostics::Diagnostic;

/// Refuses the second use of a name for the same thing.
#[derive(Default)]
pub(crate) struct Once<'a> {
    seen: HashMap<(&'static str, &'a str), Span>,
}

impl<'a> Once<'a> {
    /// Notes that `name` is used for `what`.
    pub(crate) fn see(&mut self, what: &'static str, name: &'a Spanned<String>, found: &mut Vec<Diagnostic>) {
        let Some(first) = self.seen.insert((what, &name.value), name.span) else { return };
        let title = format!("a second {what} is called `{}`", name.value);
        found.push(
            Diagnostic::new(name.span, title, "the same name again")
                .related(first, "the first one")
                .help("give each a name of its own"),
        );
    }
}
