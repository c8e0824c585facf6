// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A filter of the console for a shell in one domain: it passes the output of that domain, without that of
//! Xen, other domains and the channel.

use std::io::{Result, Write};

use crate::frame::Frame;

const XEN: &[u8] = b"(XEN) ";
const OTHER_DOMAIN: &[u8] = b"(XEN) DOM";

/// A writer that passes on what the domain with the focus prints.
#[derive(Debug)]
pub struct View<W> {
    output: W,
    /// Bytes that may turn out to be a prefix of Xen, or a frame.
    held: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    LineStart,
    InLine,
    /// In a line that begins as a frame does.
    Frame,
    /// In a line of another domain. The flag is whether this began at the start of a line.
    OtherDomain(bool),
}

impl<W: Write> View<W> {
    /// Returns a filter that writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output, held: Vec::new(), place: Place::LineStart }
    }

    fn take(&mut self, byte: u8) -> Result<()> {
        match self.place {
            Place::OtherDomain(at_start) if byte == b'\n' => {
                self.place = if at_start { Place::LineStart } else { Place::InLine };
                Ok(())
            }
            Place::OtherDomain(_) => Ok(()),
            Place::Frame => self.take_of_frame(byte),
            Place::LineStart if self.held.is_empty() && byte == b'@' => {
                self.held.push(byte);
                self.place = Place::Frame;
                Ok(())
            }
            Place::LineStart | Place::InLine => self.take_of_line(byte),
        }
    }

    fn take_of_frame(&mut self, byte: u8) -> Result<()> {
        self.held.push(byte);
        if byte != b'\n' {
            return Ok(());
        }
        self.place = Place::LineStart;
        let line = std::mem::take(&mut self.held);
        if Frame::from_line(&String::from_utf8_lossy(&line)).is_some() {
            Ok(())
        } else {
            self.output.write_all(&line)
        }
    }

    fn take_of_line(&mut self, byte: u8) -> Result<()> {
        self.held.push(byte);
        if self.held == OTHER_DOMAIN {
            self.held.clear();
            self.place = Place::OtherDomain(self.place == Place::LineStart);
        } else if !OTHER_DOMAIN.starts_with(&self.held) {
            // The byte that does not continue a prefix may begin another one.
            let begins = byte == b'(' && self.held.len() > 1;
            let rest = self.held.split_off(self.held.len() - usize::from(begins));
            let held = std::mem::replace(&mut self.held, rest);
            let own = held.strip_prefix(XEN).unwrap_or(&held);
            if own == b"@" && self.place == Place::LineStart {
                self.held = own.to_vec();
                self.place = Place::Frame;
                return Ok(());
            }
            self.output.write_all(own)?;
            self.place = if byte == b'\n' { Place::LineStart } else { Place::InLine };
        }
        Ok(())
    }
}

impl<W: Write> Write for View<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        bytes.iter().try_for_each(|&byte| self.take(byte))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    fn seen(console: &str) -> String {
        let mut output = Vec::new();
        View::new(&mut output).write_all(console.as_bytes()).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn prefix_of_xen_is_removed() {
        assert_eq!(seen("(XEN) total 3\r\n(XEN) \n(XEN) / # "), "total 3\r\n\n/ # ");
    }

    #[test]
    fn lines_of_other_domains_are_removed_at_any_place() {
        assert_eq!(seen("(XEN) DOM1: hello\n(XEN) a(XEN) DOM3: x\nb\n"), "ab\n");
    }

    #[test]
    fn frames_are_removed_and_similar_lines_are_not() {
        let frame = Frame::signal(Kind::Hello, 1, 2, 3).to_line();
        assert_eq!(seen(&format!("(XEN) {frame}{frame}(XEN) @home\n@ a\n")), "@home\n@ a\n");
    }

    #[test]
    fn text_that_begins_like_a_prefix_is_kept() {
        assert_eq!(seen("(X) (XE(XEN"), "(X) (XE", "the end may still become a prefix");
        assert_eq!(seen("(XE(XEN) DOM1: x\ny"), "(XEy");
    }
}
