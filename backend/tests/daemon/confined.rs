// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The privileges of a daemon that answers. Crate `confinement` tests what it cannot do.

use std::collections::HashMap;

use rustix::process::geteuid;

use crate::board::Board;
use crate::guest::Guest;
use crate::i2c::BOARD;

/// Returns the lines of a file in /proc about the daemon, by their first words.
fn proc(board: &Board, file: &str, separator: &str) -> HashMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", board.id())).expect("a process");
    let lines = text.lines().filter_map(|line| line.split_once(separator));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn a_daemon_that_answers_is_confined() {
    // Only root can change the user.
    let user: &[&str] = if geteuid().is_root() { &["--user", "10002:10003"] } else { &[] };
    let arguments = [&["--allow", "any"], user].concat();
    let (board, socket) = Board::start("i2c", BOARD, &arguments);
    let _guest = Guest::connect(socket, 1, 0);
    let status = proc(&board, "status", ":");
    if !user.is_empty() {
        assert_eq!(status["Uid"], "10002\t10002\t10002\t10002");
        assert_eq!(status["Gid"], "10003\t10003\t10003\t10003");
        assert_eq!(status["Groups"], "");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!([&status["NoNewPrivs"], &status["Seccomp"], &status["Threads"]], ["1", "2", "2"]);
    let limits = proc(&board, "limits", "  ");
    let both = |name: &str| limits[name].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(both("Max core file size"), ["0", "0"]);
    assert_eq!(both("Max processes"), ["0", "0"]);
    assert_eq!(both("Max open files"), ["256", "256"]);
    assert_eq!(both("Max data size"), ["33554432", "33554432"]);
}

/// The mode for deriving the list of system calls.
#[test]
fn without_seccomp_the_daemon_has_no_filter() {
    let (board, socket) = Board::start("i2c", BOARD, &["--allow", "any", "--seccomp", "off"]);
    let _guest = Guest::connect(socket, 1, 0);
    let status = proc(&board, "status", ":");
    assert_eq!([&status["NoNewPrivs"], &status["Seccomp"]], ["1", "0"]);
}
