// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program for management software (vhost-user specification, "Backend program conventions").

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::Value;

#[test]
fn a_link_named_for_a_device_prints_the_capabilities_of_that_device() {
    let directory = tempfile::tempdir().expect("a directory");
    for kind in ["i2c", "gpio", "console"] {
        let link = directory.path().join(format!("backend-{kind}"));
        symlink(env!("CARGO_BIN_EXE_backend"), &link).expect("a link");
        let output = Command::new(link).arg("--print-capabilities").output().expect("the program");
        assert!(output.status.success());
        let capabilities: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(capabilities["type"], kind);
    }
}

#[test]
fn wrong_arguments_are_errors_with_an_explanation() {
    let error = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_backend")).args(arguments).output().expect("the program");
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let no_socket = error(&["i2c", "--fd=77", "--adapter=0", "--allow=any"]);
    assert!(no_socket.contains("--fd=77 must name a connected stream socket"), "{no_socket}");
    let no_board = error(&["i2c", "--socket-path=unused", "--sim=/nowhere", "--allow=any"]);
    assert!(no_board.contains("cannot read the board /nowhere"), "{no_board}");
    let no_user = error(&["i2c", "--socket-path=unused", "--adapter=0", "--allow=any", "--user=guest-a"]);
    assert!(no_user.contains("a user is given as UID:GID, two numbers"), "{no_user}");
    let root = error(&["i2c", "--socket-path=unused", "--adapter=0", "--allow=any", "--user=0:0"]);
    assert!(root.contains("0 cannot be used as UID or GID"), "{root}");
    let directory = tempfile::tempdir().expect("a directory");
    let board = directory.path().join("board");
    let sim = format!("--sim={}", board.display());
    let nowhere = format!("--socket-path={}", directory.path().join("no/socket").display());
    for (text, expected) in [
        (
            "[gpio]",
            "the board's [gpio] is not one for a guest: see its `lines`: a GPIO device has 1 to 512 lines",
        ),
        ("[gpio]\nlines = [\"a\"]\nsafe = { b = 1 }", "`safe` names the line \"b\""),
        ("[gpio]\nlines = [\"a\"]\nsafe = { a = 2 }", "line 3, column"),
        ("[gpio]\nlines = [\"a\"]", "no/socket: No such file or directory"),
    ] {
        fs::write(&board, text).expect("a board");
        let message = error(&["gpio", &nowhere, &sim]);
        assert!(message.contains(expected), "{message}");
    }
    let no_source = error(&["console", "--socket-path=unused", "--source=unix:/nowhere", "--request=json"]);
    assert!(no_source.contains("cannot open --source=unix:/nowhere: No such file"), "{no_source}");
    let board = error(&["console", &nowhere, &sim]);
    assert!(board.contains("write --source in place of --sim"), "{board}");
    let no_address = error(&["i2c", "--socket-path=unused", "--adapter=0", "--allow=48"]);
    assert!(no_address.contains("write it in hexadecimal, as 0x48"), "{no_address}");
}
