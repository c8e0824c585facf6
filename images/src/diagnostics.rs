// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors and warnings about a manifest or a board file, with their place, the reason and what to write
//! instead.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use toml_span::{DeserError, Error, ErrorKind, Span};

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path as the user gave it.
    pub path: String,
    /// The content.
    pub text: String,
}

/// An error, or a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    is_warning: bool,
    title: String,
    label: String,
    span: Span,
    related: Vec<(Span, String)>,
    help: Option<String>,
}

impl Diagnostic {
    /// An error at `span`: `title` says what is wrong, `label` stands below the words at `span`.
    pub fn new(span: Span, title: impl Into<String>, label: impl Into<String>) -> Self {
        let (title, label) = (title.into(), label.into());
        Self { is_warning: false, title, label, span, related: Vec::new(), help: None }
    }

    /// Makes it a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.is_warning = true;
        self
    }

    /// Adds another place that the error is about.
    #[must_use]
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The text for the user.
    pub fn render(&self, source: &Source, renderer: &Renderer) -> String {
        let text = source.text.as_str();
        let mut snippet = Snippet::source(text)
            .path(source.path.as_str())
            .annotation(AnnotationKind::Primary.span(first_line(text, self.span)).label(self.label.as_str()));
        for (span, label) in &self.related {
            snippet = snippet
                .annotation(AnnotationKind::Context.span(first_line(text, *span)).label(label.as_str()));
        }
        let level = if self.is_warning { Level::WARNING } else { Level::ERROR };
        let mut group = level.primary_title(self.title.as_str()).element(snippet);
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// Renders all of `diagnostics`, in the order of the file.
pub fn render(diagnostics: &[Diagnostic], source: &Source, renderer: &Renderer) -> String {
    let mut sorted: Vec<_> = diagnostics.iter().collect();
    sorted.sort_by_key(|diagnostic| diagnostic.span.start);
    let rendered: Vec<_> = sorted.iter().map(|diagnostic| diagnostic.render(source, renderer)).collect();
    rendered.join("\n\n") + "\n"
}

/// The first line of `span`: the span of a table covers all its lines.
fn first_line(text: &str, span: Span) -> std::ops::Range<usize> {
    let end = span.end.min(text.len());
    let start = span.start.min(end);
    let line = text.get(start..end).and_then(|part| part.lines().next()).unwrap_or_default();
    start..start + line.trim_end().len()
}

/// ``a, b and c``, each as code.
pub(crate) fn listed<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match words.split_last() {
        None => "nothing".into(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// `1 line`, `2 lines`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The one of `candidates` that is most like `word`, if any is.
pub(crate) fn nearest<'a, S: AsRef<str> + 'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a S>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate.as_ref()), candidate.as_ref()))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The errors of the TOML reader, as diagnostics.
pub(crate) fn from_reader(errors: DeserError) -> Vec<Diagnostic> {
    errors.errors.into_iter().flat_map(from_error).collect()
}

/// An error of the TOML reader, as diagnostics: several if it names several unknown keys.
pub(crate) fn from_error(error: Error) -> Vec<Diagnostic> {
    if let ErrorKind::UnexpectedKeys { keys, expected } = error.kind {
        return keys.into_iter().map(|(key, span)| unknown_key(&key, span, &expected)).collect();
    }
    vec![from_kind(error.kind, error.span)]
}

fn from_kind(kind: ErrorKind, span: Span) -> Diagnostic {
    let new = |title: String, label: String| Diagnostic::new(span, title, label);
    match kind {
        ErrorKind::Wanted { expected: "u16" | "u32" | "u64", found } => new(
            format!("expected a whole number, found {found}"),
            "a number belongs here, without quotation marks".into(),
        ),
        ErrorKind::Wanted { expected, found } => {
            new(format!("expected {expected}, found {found}"), format!("{expected} belongs here"))
        }
        ErrorKind::OutOfRange(kind) => {
            new("a number that is too large or too small".into(), "this number".into()).help(match kind {
                "u16" => "write 0 to 65535",
                "u32" => "write 0 to 4294967295",
                _ => "write 0 or more",
            })
        }
        ErrorKind::MissingField(key) => new(format!("the key `{key}` is missing"), "in this table".into())
            .help(format!("add `{key} = …` to it")),
        ErrorKind::DuplicateKey { key, first } => {
            twice(span, first, format!("the key `{key}` is given twice")).help("keep one of them")
        }
        ErrorKind::DuplicateTable { name, first } => {
            twice(span, first, format!("the table `{name}` is given twice"))
                .help("put the keys of both into one table")
        }
        ErrorKind::Custom(message) => {
            let (title, help) = message.split_once('\n').unwrap_or((&message, ""));
            let diagnostic = new(title.into(), "this value".into());
            if help.is_empty() { diagnostic } else { diagnostic.help(help) }
        }
        other => new(other.to_string(), "not valid in this file".into()),
    }
}

fn twice(span: Span, first: Span, title: String) -> Diagnostic {
    Diagnostic::new(span, title, "for the second time here").related(first, "for the first time here")
}

fn unknown_key(key: &str, span: Span, expected: &[String]) -> Diagnostic {
    let help = match nearest(key, expected) {
        Some(near) => format!("write `{near}`, or one of {}", listed(expected)),
        None => format!("the keys of this table are {}", listed(expected)),
    };
    Diagnostic::new(span, format!("there is no key `{key}` here"), "unknown key").help(help)
}
