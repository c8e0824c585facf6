// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket of a simulated board: a JSON line in, a JSON line out.
//!
//! The simulation owns a [`Control`] and passes the events of its descriptors on. An answer is `{"ok":…}` or
//! `{"error":"…"}`.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::daemon::listener::{BindError, bind};
use crate::watch::Watcher;

/// Maximum number of connections. A test needs one or two.
const CONNECTIONS: usize = 8;

/// Maximum size of a command.
const LINE_BYTES: usize = 4096;

/// A listening socket and its connections.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    connections: [Option<Connection>; CONNECTIONS],
    watching: Option<(Watcher, u32)>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Control {
    /// Listens at `path`.
    ///
    /// # Errors
    /// When the socket cannot be created.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Ok(Self { listener: bind(path)?, connections: Default::default(), watching: None })
    }

    /// Watches the socket as token `first`, and connections as the tokens after it.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn watch(&mut self, watcher: &Watcher, first: u32) -> io::Result<()> {
        watcher.add(&self.listener, first)?;
        self.watching = Some((watcher.clone(), first));
        Ok(())
    }

    /// Returns 0 for the listener, and from 1 on for connections.
    fn slot_of(&self, token: u32) -> Option<usize> {
        let (_, first) = self.watching.as_ref()?;
        let slot = usize::try_from(token.checked_sub(*first)?).ok()?;
        (slot <= CONNECTIONS).then_some(slot)
    }

    /// Handles an event of `token`: passes each complete command to `execute`, and sends the answer. Ignores
    /// other tokens.
    pub fn handle_event<C: DeserializeOwned>(
        &mut self,
        token: u32,
        mut execute: impl FnMut(C) -> Result<Value, String>,
    ) {
        match self.slot_of(token) {
            Some(0) => self.accept(),
            Some(slot) => self.serve(slot - 1, |line| {
                let answer =
                    serde_json::from_slice(line).map_err(|error| error.to_string()).and_then(&mut execute);
                match answer {
                    Ok(value) => json!({ "ok": value }),
                    Err(message) => json!({ "error": message }),
                }
            }),
            None => {}
        }
    }

    fn accept(&mut self) {
        let Some((watcher, first)) = &self.watching else { return };
        let Ok((stream, _)) = self.listener.accept() else { return };
        let tokens = (*first..).skip(1);
        let free = self.connections.iter_mut().zip(tokens).find(|(slot, _)| slot.is_none());
        match free {
            Some((slot, token)) if watcher.add(&stream, token).is_ok() => {
                *slot = Some(Connection { stream, received: Vec::new() });
            }
            _ => log::warn!("the control socket has its maximum number of connections"),
        }
    }

    fn serve(&mut self, index: usize, answer: impl FnMut(&[u8]) -> Value) {
        let Some(slot) = self.connections.get_mut(index) else { return };
        let Some(connection) = slot else { return };
        if connection.serve(answer).is_err() {
            if let Some((watcher, _)) = &self.watching {
                let _ = watcher.remove(&connection.stream);
            }
            *slot = None;
        }
    }
}

impl Connection {
    /// Reads the available bytes and answers every complete line. An error ends the connection.
    fn serve(&mut self, mut answer: impl FnMut(&[u8]) -> Value) -> io::Result<()> {
        let mut piece = [0; 512];
        let count = self.stream.read(&mut piece)?;
        if count == 0 || self.received.len() + count > LINE_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend(piece.iter().take(count));
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let mut reply = answer(&line).to_string();
            reply.push('\n');
            self.stream.write_all(reply.as_bytes())?;
        }
        Ok(())
    }
}
