// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest with one device, from trapped accesses to a backend: a real one, or one that follows a script.

mod driver;
mod replay;
mod watch;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::hypervisor::fake::{Fake, read, write};
use crate::ioreq::Bus;
use crate::ioreq::bus::Region;
use crate::memory::GuestMemory;
use crate::vhost_user::scripted_backend::{self as scripted, Script, ScriptedBackend, bases};
use crate::vhost_user::test_backend::{self, SharedMemory, properties};
use crate::vhost_user::{Client, Process};
use crate::virtio_mmio::{Identity, RestoreError, State};
use crate::window::Window;

const BASE: u64 = 0x200_0000;
const IRQ: u32 = 33;

const GPIO: u32 = 41;
const I2C: u32 = 34;
const RNG: u32 = 4;
const VSOCK: u32 = 19;
const CONSOLE: u32 = 3;
const INPUT: u32 = 18;

/// Registers (virtio 1.3, 4.2.2).
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACK: u64 = 0x64;
const STATUS: u64 = 0x70;
const QUEUE_RESET: u64 = 0xc0;
const CONFIG_GENERATION: u64 = 0xfc;
const CONFIG: u64 = 0x100;

/// Values of the status register: DRIVER_OK and what comes before it, and the same with DEVICE_NEEDS_RESET.
const RUNNING: u64 = 0xf;
const NEEDS_RESET: u64 = 0x4f;

fn open(device_id: u32, socket: UnixStream, memory: &Arc<SharedMemory>) -> (Session, Vec<u8>) {
    let client = Client::new(socket).unwrap();
    Session::open(client, properties(device_id), 1, Box::new(Arc::clone(memory))).unwrap()
}

fn device(xen: &Rc<Fake>) -> BackedDevice<Fake> {
    let [kick, call, err] = [EFD_NONBLOCK; 3].map(|flags| EventFd::new(flags).unwrap());
    let inflight = Inflight::new(tempfile::tempfile().unwrap(), 64);
    BackedDevice::new("g/d".into(), Rc::clone(xen), IRQ, vec![Notifier { kick, call, err }], inflight)
}

fn identity(device_id: u32) -> Identity {
    Identity {
        name: "g/d".into(),
        device_id,
        demanded_features: 0,
        starts_by_kick: false,
        queues: 1,
        queue_size_max: 64,
        memory: GuestMemory::Granted,
    }
}

fn bus(window: Window<BackedDevice<Fake>>) -> Bus<BackedDevice<Fake>> {
    let mut bus = Bus::default();
    bus.insert(0, Region { base: BASE, doorbells: Vec::new(), window: Some(window) });
    bus
}

/// A guest that has granted page 1, on which its rings are.
struct Guest {
    xen: Rc<Fake>,
    memory: Arc<SharedMemory>,
    bus: Bus<BackedDevice<Fake>>,
}

impl Guest {
    /// A guest with a device of a type, and nothing granted.
    fn without_grants(device_id: u32, socket: UnixStream) -> Self {
        let xen = Rc::new(Fake::new(1));
        let memory = SharedMemory::new();
        let (session, config) = open(device_id, socket, &memory);
        let mut window = Window::new(identity(device_id), session.offered(), config, device(&xen), None);
        window.device_mut().attach(session, None).unwrap();
        Self { xen, memory, bus: bus(window) }
    }

    fn with_socket(device_id: u32, socket: UnixStream) -> Self {
        let guest = Self::without_grants(device_id, socket);
        guest.xen.grant(1);
        guest
    }

    /// A guest with a real I2C backend, of the upstream crate, which does not track requests in flight.
    fn with_real_backend() -> Self {
        Self::with_socket(I2C, test_backend::start().0)
    }

    /// A guest with a backend that follows `script`, of a GPIO device unless the script has another type.
    fn with(script: Script) -> (Self, ScriptedBackend) {
        let device_id = script.device_id;
        let (socket, backend) = scripted::start(script);
        (Self::with_socket(device_id, socket), backend)
    }

    /// As [`Self::with`]. The driver has started the device; five requests have been used and two more are
    /// outstanding.
    fn in_use(script: Script) -> (Self, ScriptedBackend) {
        let (mut guest, backend) = Self::with(script);
        guest.probe();
        assert_eq!(bases(&backend.take()), [0]);
        guest.set_indices(7, 5);
        (guest, backend)
    }

    /// Replaces the worker: the next one finds `state` of the device, and has no backend yet.
    fn replace_worker(&mut self, state: Option<State>) -> Result<(), RestoreError> {
        let device_id = self.window().state().device_id;
        let (window, restored) = Window::restored(identity(device_id), state, device(&self.xen), None);
        self.bus = bus(window);
        restored
    }

    fn disconnect_backend(&mut self) {
        self.device().backend_lost("killed", false);
    }

    /// Connects another backend to the device.
    fn connect(&mut self, socket: UnixStream, process: Option<Process>) {
        let (session, config) = open(self.window().state().device_id, socket, &self.memory);
        replace_backend(self.window(), session, config, process);
    }

    /// Connects another backend that follows `script`.
    fn connect_scripted(&mut self, script: Script) -> ScriptedBackend {
        let (socket, backend) = scripted::start(script);
        self.connect(socket, None);
        backend
    }

    fn window(&mut self) -> &mut Window<BackedDevice<Fake>> {
        self.bus.window_mut(0).unwrap()
    }

    fn device(&mut self) -> &mut BackedDevice<Fake> {
        self.window().device_mut()
    }

    fn has_backend(&mut self) -> bool {
        self.device().connection().is_some()
    }

    /// The file of the record of requests in flight.
    fn record(&mut self) -> File {
        self.device().inflight.try_clone()
    }

    /// Waits for a message of the backend and reads it, as the worker does.
    fn poll_backend(&mut self) {
        let connection = self.device().connection().unwrap().try_clone_to_owned().unwrap();
        poll(&mut [PollFd::new(&connection, PollFlags::IN)], None).unwrap();
        self.device().poll_backend();
    }

    /// Has the backend change its configuration, and reads that as the worker does.
    fn change_config(&mut self, backend: &ScriptedBackend, config: &[u8]) {
        backend.change_config(config);
        let channel = self.device().channel().unwrap().try_clone_to_owned().unwrap();
        poll(&mut [PollFd::new(&channel, PollFlags::IN)], None).unwrap();
        config_changed(self.window());
    }

    /// Does what the worker does at the next deadline.
    fn pass_deadline(&mut self) {
        let deadline = self.device().deadline().unwrap();
        if self.device().run_timers(deadline).is_err() {
            self.window().device_lost();
        }
    }

    /// Has the backend report that it cannot use the queue any more.
    fn fail_queue(&mut self) {
        self.device().notifiers()[0].err.write(1).unwrap();
    }

    /// Sets the indices of the ring as the shim sees them: on page 1 of the fake, which the backend does not
    /// see.
    fn set_indices(&mut self, available: u16, used: u16) {
        self.xen.store_u16(1, 0x402, available);
        self.xen.store_u16(1, 0x802, used);
    }

    fn read(&mut self, offset: u64) -> u64 {
        self.xen.trap(0, read(BASE + offset, 4));
        self.bus.serve(&*self.xen, 0);
        self.xen.answers()[0].1
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.xen.trap(0, write(BASE + offset, 4, value));
        self.bus.serve(&*self.xen, 0);
        assert_eq!(self.xen.answers().len(), 1);
    }

    fn status(&mut self) -> u64 {
        self.read(STATUS)
    }

    fn interrupt_status(&mut self) -> u64 {
        self.read(INTERRUPT_STATUS)
    }

    fn reset(&mut self) {
        self.write(STATUS, 0);
    }

    /// Starts the device with a ring of 16 entries on page 1.
    fn probe(&mut self) {
        self.probe_with(0x100);
    }

    /// As [`Self::probe`], with VERSION_1, ACCESS_PLATFORM and `more` features of the upper half.
    fn probe_with(&mut self, more: u64) {
        self.clear_rings();
        self.write(STATUS, 3);
        self.write(0x24, 1);
        self.write(0x20, 3 | more);
        // Feature bit 0 of the type, if it is offered.
        self.write(0x24, 0);
        self.write(0x14, 0);
        let low = self.read(0x10);
        self.write(0x20, low & 1);
        self.write(STATUS, 0xb);
        self.enable_queue();
        self.write(STATUS, 0xf);
    }

    fn enable_queue(&mut self) {
        self.write(0x38, 16);
        for (register, at) in [(0x80, 0x1000), (0x90, 0x1400), (0xa0, 0x1800)] {
            self.write(register, at);
            self.write(register + 4, 1 << 31);
        }
        self.write(QUEUE_READY, 1);
    }

    fn clear_rings(&mut self) {
        for at in [0x400, 0x402, 0x800, 0x802] {
            self.memory.write_u16(4096 + at, 0);
        }
        self.set_indices(0, 0);
    }

    fn await_call(&mut self) {
        while self.device().notifiers()[0].call.read().is_err() {
            std::thread::yield_now();
        }
    }

    /// Makes buffer `next` available to a real backend and waits until it has been used.
    fn transfer(&mut self, next: u16) {
        self.memory.write_u16(4096 + 0x404 + 2 * u64::from(next), 0);
        self.memory.write_u16(4096 + 0x402, next + 1);
        self.write(QUEUE_NOTIFY, 0);
        self.await_call();
        // The fake's grants are not the memory that the backend sees: copy the indices.
        self.set_indices(next + 1, self.memory.read_u16(4096 + 0x802));
    }
}

/// Bytes that a backend may have left in the record of requests in flight.
const MARK: &[u8; 4] = b"mark";
const MARK_AT: usize = 100;

fn mark(record: &File) {
    record.write_all_at(MARK, MARK_AT as u64).unwrap();
}

fn is_marked(record: &[u8]) -> bool {
    &record[MARK_AT..MARK_AT + MARK.len()] == MARK
}
