// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Backends that make no progress: those that reply are left alone, those that hang are killed.

use std::process::Command;
use std::rc::Rc;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use vhost::vhost_user::message::FrontendReq;

use super::*;
use crate::vhost_user::scripted_backend::codes;

impl Guest {
    /// Passes the looks at rings that do not move until the backend is pinged.
    fn stall(&mut self) {
        for _ in 0..3 {
            assert!(self.has_backend() && !self.device().awaits_kick());
            self.pass_deadline();
        }
    }

    /// Whether the backend is disconnected at one of the next deadlines.
    fn is_killed(&mut self) -> bool {
        for _ in 0..2 {
            if self.device().deadline().is_some() {
                self.pass_deadline();
            }
        }
        !self.has_backend()
    }

    pub(super) fn shut_down_connection(&mut self) {
        rustix::net::shutdown(self.device().connection().unwrap(), rustix::net::Shutdown::Both).unwrap();
    }
}

#[test]
fn a_backend_that_hangs_is_pinged_and_then_killed() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let other = pidfd.try_clone().unwrap();
    let kill = Rc::new(move || pidfd_send_signal(&other, Signal::KILL).unwrap());
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.disconnect_backend();
    let hangs_after = Some(FrontendReq::SET_VRING_ENABLE);
    let (socket, _) = scripted::start(Script { hangs_after, ..Script::default() });
    guest.connect(socket, Some(Process::new(pidfd, kill)));
    guest.stall();
    guest.pass_deadline();
    assert!(!child.wait().unwrap().success());
    assert_eq!((guest.has_backend(), guest.status()), (false, RUNNING));
    let backend = guest.connect_scripted(Script::default());
    assert_eq!((guest.status(), bases(&backend.take())), (RUNNING, vec![5]));
}

#[test]
fn a_backend_that_replies_is_left_alone_and_pinged_again_only_for_more_buffers() {
    let (mut guest, backend) = Guest::in_use(Script::default());
    guest.stall();
    guest.poll_backend();
    assert_eq!(codes(&backend.take()).last(), Some(&FrontendReq::GET_FEATURES));
    guest.pass_deadline();
    assert!(guest.has_backend());
    assert!(guest.device().awaits_kick());
    guest.set_indices(8, 5);
    guest.device().kicked();
    assert!(guest.device().deadline().is_some() && !guest.device().awaits_kick());
}

/// A call takes the reply to a ping before its own.
#[test]
fn a_reply_to_a_ping_that_another_call_takes_is_not_lost() {
    type Call = (&'static str, fn(&mut Guest, &ScriptedBackend));
    let calls: [Call; 5] = [
        ("QueueReset", |guest, _| guest.write(QUEUE_RESET, 1)),
        ("QueueReady", |guest, _| {
            guest.write(QUEUE_READY, 0);
            guest.set_indices(8, 5);
        }),
        ("a reset", |guest, _| guest.reset()),
        ("a reset and a start", |guest, _| {
            guest.reset();
            guest.probe();
            guest.set_indices(7, 5);
        }),
        ("a change of the configuration", |guest, backend| guest.change_config(backend, b"changed!")),
    ];
    let mut killed = Vec::new();
    for (name, call) in calls {
        let (mut guest, backend) = Guest::in_use(Script::default());
        guest.stall();
        call(&mut guest, &backend);
        killed.extend(guest.is_killed().then_some(name));
    }
    let script = Script { config: vec![0; 136], features: 1 << 32 | 1 << 33 | 1 << 30, ..Script::default() };
    let mut guest = Guest::with_socket(INPUT, scripted::start(script).0);
    guest.probe_with(0);
    guest.set_indices(7, 5);
    guest.stall();
    guest.xen.trap(0, write(BASE + CONFIG, 1, 1));
    guest.bus.serve(&*guest.xen, 0);
    killed.extend(guest.is_killed().then_some("a write of the configuration"));
    assert_eq!(killed, [""; 0]);
}

/// Another device may keep the worker from reading it in time.
#[test]
fn a_reply_that_is_there_at_the_deadline_counts() {
    let (mut guest, _) = Guest::in_use(Script::default());
    guest.stall();
    let connection = guest.device().connection().unwrap().try_clone_to_owned().unwrap();
    poll(&mut [PollFd::new(&connection, PollFlags::IN)], None).unwrap();
    guest.pass_deadline();
    assert!(guest.has_backend());
}
