// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Cuts what the guest writes into lines.

/// Maximum length of a line in bytes, without its end. A longer one is ignored as a whole.
pub const LINE_MAX: usize = 64;

/// The start of a line whose end the guest has not written yet.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    is_too_long: bool,
}

impl Lines {
    /// Calls `take` for each line that `text` completes. A carriage return ends a line like a newline, since
    /// a terminal of Linux sends one or both. Empty lines are ignored.
    pub fn push(&mut self, text: &[u8], mut take: impl FnMut(&[u8])) {
        for byte in text {
            match byte {
                b'\n' | b'\r' => {
                    if !self.is_too_long && !self.line.is_empty() {
                        take(&self.line);
                    }
                    self.clear();
                }
                _ if self.line.len() == LINE_MAX => self.is_too_long = true,
                _ => self.line.push(*byte),
            }
        }
    }

    /// Drops the start of a line.
    pub fn clear(&mut self) {
        self.line.clear();
        self.is_too_long = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&str]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece.as_bytes(), |line| found.push(String::from_utf8_lossy(line).into_owned()));
        }
        found
    }

    #[test]
    fn lines_do_not_depend_on_how_the_text_is_cut() {
        for pieces in [&["json\r\nopenmetrics\n"][..], &["js", "on\r", "\n\nopen", "metrics", "\n", "rest"]] {
            assert_eq!(cut(pieces), ["json", "openmetrics"]);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_ignored_up_to_its_end() {
        let longest = "a".repeat(LINE_MAX);
        assert_eq!(cut(&[&longest, "\n"]), [longest.as_str()]);
        assert_eq!(cut(&[&longest, "a", "\njson\n"]), ["json"]);
        let endless = "json".repeat(1 << 16);
        let mut lines = Lines::default();
        lines.push(endless.as_bytes(), |_| {});
        assert!(lines.line.capacity() <= 2 * LINE_MAX);
    }
}
