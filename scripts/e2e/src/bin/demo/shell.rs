// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A shell in one of the domains, on the user's terminal.

use std::io::{BufRead, Write, stdin, stdout};

use anyhow::Result;
use e2e::host::channel::Channel;
use e2e::host::machine::Machine;
use e2e::host::view::View;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The interval at which the end of the shell is checked while there is no input.
const CHECK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Ctrl-], which leaves the shell running.
const LEAVE: u8 = 0x1d;
/// The command of the shell. The agent has the console in raw mode, in which the shell would not echo or edit
/// lines.
const SHELL: &[&str] = &["sh", "-c", "stty sane; cd /root 2>/dev/null; sh; stty raw -echo"];

/// Asks the user for a domain and runs a shell in it, until the user ends the demo.
pub(crate) fn offer(machine: &Machine) -> Result<()> {
    loop {
        print!("\nA shell in guest-[a], guest-[b] or the [d]river domain? Enter ends the demo. ");
        stdout().flush()?;
        let mut answer = String::new();
        stdin().lock().read_line(&mut answer)?;
        let channel = match answer.trim() {
            "a" => machine.guest_a.as_ref(),
            "b" => machine.guest_b.as_ref(),
            "d" => &machine.driver_domain,
            "" => return Ok(()),
            _ => continue,
        };
        println!("`exit` leaves the shell, ctrl-] leaves it running.  Try: i2cdetect -y 0, agent help\n");
        shell(channel)?;
    }
}

fn shell(channel: &Channel) -> Result<()> {
    let terminal = RawTerminal::enter()?;
    let input = || {
        let stdin = stdin();
        if poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&CHECK))? == 0 {
            return Ok(Some(Vec::new()));
        }
        let mut buffer = vec![0; 16];
        let count = rustix::io::read(&stdin, &mut buffer)?;
        buffer.truncate(count);
        Ok((count > 0 && !buffer.contains(&LEAVE)).then_some(buffer))
    };
    let ended = channel.interactive(SHELL, input, View::new(stdout()));
    drop(terminal);
    println!();
    ended
}

/// The terminal in raw mode, until this value is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Fails only if there is no terminal any more.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
