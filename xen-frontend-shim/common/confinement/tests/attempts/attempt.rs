// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The attempts, each of which ends with the number of its error.
#![allow(unsafe_code, clippy::expect_used, clippy::panic)]

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, getppid, pidfd_open, pidfd_send_signal,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_thread_uid};
use xen_bindings::abi::{evtchn, gntdev, privcmd};

use crate::outside::OF_SUPERVISOR;
use crate::subject::Subject;

/// What the process opens before its confinement, as the programs do.
struct Prepared {
    null: File,
    file: File,
    listener: UnixListener,
    path: PathBuf,
    abstract_name: SocketAddr,
    _abstract_listener: UnixListener,
    parent: OwnedFd,
}

impl Prepared {
    fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join("socket");
        let file = File::create(directory.join("file"))?;
        for name in ["own", "sockets"] {
            std::fs::create_dir(directory.join(name))?;
            std::fs::set_permissions(directory.join(name), Permissions::from_mode(0o777))?;
        }
        file.set_permissions(Permissions::from_mode(0o666))?;
        let abstract_name = SocketAddr::from_abstract_name(format!("attempts-{}", std::process::id()))?;
        Ok(Self {
            null: File::options().read(true).write(true).open("/dev/null")?,
            file,
            listener: UnixListener::bind(&path)?,
            _abstract_listener: UnixListener::bind_addr(&abstract_name)?,
            abstract_name,
            path,
            parent: pidfd_open(parent(), PidfdFlags::empty())?,
        })
    }

    /// The temporary directory of the attempt.
    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn ioctl(&self, number: rustix::ioctl::Opcode) -> io::Result<()> {
        // SAFETY: /dev/null supports no request, so the kernel does not read the argument.
        let result = unsafe { libc::ioctl(self.null.as_raw_fd(), u64::from(number) as _, 0) };
        checked(result.into())
    }
}

fn parent() -> Pid {
    getppid().expect("a parent")
}

fn checked(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Confines the process and makes the attempt.
pub(crate) fn run(subject: &str, attempt: &str, directory: &Path) -> ExitCode {
    let Some(subject) = Subject::named(subject) else { return ExitCode::from(255) };
    let prepared = Prepared::new(directory).expect("files to open");
    let attempt = attempt.to_owned();
    match subject.confined(directory, move || make(&attempt, &prepared)) {
        Err(error) => {
            eprintln!("not confined: {error}");
            ExitCode::from(255)
        }
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            let code = error.raw_os_error().and_then(|number| u8::try_from(number).ok());
            if code.is_none() {
                eprintln!("not an error of the kernel: {error}");
            }
            ExitCode::from(code.unwrap_or(255))
        }
    }
}

fn make(attempt: &str, prepared: &Prepared) -> io::Result<()> {
    if let Some(request) = attempt.strip_prefix("ioctl-") {
        return prepared.ioctl(request_named(request));
    }
    match attempt {
        "open-a-file" => File::open("/proc/self/status").map(drop),
        "list-a-directory" => std::fs::read_dir("/").map(drop),
        "make-a-file" => File::create(prepared.path.with_file_name("made")).map(drop),
        "read-a-named-file" => File::open(prepared.directory().join("file")).map(drop),
        "write-a-file-that-is-named-to-read" => {
            File::options().write(true).open(prepared.directory().join("file")).map(drop)
        }
        "make-a-file-beside-its-socket" => File::create(prepared.directory().join("sockets/file")).map(drop),
        "make-a-file-in-its-directory" => File::create(prepared.directory().join("own/file")).map(drop),
        "replace-its-socket" => {
            let path = prepared.directory().join("sockets/socket");
            UnixListener::bind(&path)?;
            std::fs::remove_file(&path)?;
            UnixListener::bind(&path).map(drop)
        }
        "execute" => Err(Command::new("/proc/self/exe").arg("--list").exec()),
        "start-a-program" => Command::new("true").status().map(drop),
        "start-a-thread" => std::thread::Builder::new().spawn(|| ()).map(drop),
        // SAFETY: the request has no arguments.
        "trace" => checked(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }),
        "trace-its-parent" => {
            let parent = parent().as_raw_pid();
            // SAFETY: no memory is involved.
            checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, parent, 0, 0) })
        }
        "make-a-namespace" => {
            // SAFETY: no memory is involved.
            checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
        }
        "start-a-process-in-a-namespace" => start_in_a_namespace(),
        "mount" => mount(prepared.directory()),
        "kill-its-parent" => Ok(rustix::process::test_kill_process(parent())?),
        // If this succeeds, the parent ignores SIGURG.
        "kill-its-parent-by-pidfd" => Ok(pidfd_send_signal(&prepared.parent, Signal::URG)?),
        "become-root" => Ok(set_thread_uid(rustix::process::Uid::ROOT)?),
        "regain-capabilities" => capable_of(CapabilitySet::KILL),
        "gain-other-capabilities" => capable_of(CapabilitySet::SYS_ADMIN),
        "raise-a-limit" => {
            let more = Rlimit { current: Some(4096), maximum: Some(1 << 20) };
            Ok(rustix::process::setrlimit(Resource::Nofile, more)?)
        }
        "be-dumpable" => Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?),
        _ => connect_or_use(attempt, prepared),
    }
}

fn connect_or_use(attempt: &str, prepared: &Prepared) -> io::Result<()> {
    match attempt {
        "make-a-socket" => UnixDatagram::unbound().map(drop),
        "connect-to-the-network" => match TcpStream::connect("127.0.0.1:1") {
            // A kernel without a network gives no access either.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Err(Errno::ACCESS.into()),
            result => result.map(drop),
        },
        "connect-to-an-abstract-socket" => UnixStream::connect_addr(&prepared.abstract_name).map(drop),
        "make-a-socket-of-the-kernel" => {
            use rustix::net::{AddressFamily, SocketType, socket};
            Ok(socket(AddressFamily::NETLINK, SocketType::RAW, None).map(drop)?)
        }
        "make-a-pair-of-sockets" => UnixStream::pair().map(drop),
        "make-code-of-data" => {
            memory(libc::PROT_READ | libc::PROT_WRITE, Some(libc::PROT_READ | libc::PROT_EXEC))
        }
        "map-code" => memory(libc::PROT_READ | libc::PROT_EXEC, None),
        "take-many-descriptors" => {
            let copies: io::Result<Vec<File>> = (0..2048).map(|_| prepared.null.try_clone()).collect();
            copies.map(drop)
        }
        "take-much-memory" => {
            let mut much = Vec::<u8>::new();
            much.try_reserve_exact(64 << 20).map_err(|_| Errno::NOMEM.into())
        }
        "grow-a-file" => (0..32).try_for_each(|_| (&prepared.file).write_all(&[0; 65536])),
        "serve" => serve(prepared),
        "wait" => wait(),
        "accept" => {
            prepared.listener.set_nonblocking(true)?;
            match prepared.listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                other => other.map(drop),
            }
        }
        "abort" => std::process::abort(),
        _ => supervise(attempt, prepared),
    }
}

/// The calls that every process makes.
fn serve(prepared: &Prepared) -> io::Result<()> {
    use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd, poll};
    let event = eventfd(1, EventfdFlags::CLOEXEC)?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, &event, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    let mut events = Vec::with_capacity(1);
    epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None)?;
    poll(&mut [PollFd::new(&event, PollFlags::IN)], None)?;
    rustix::io::read(&event, &mut [0; 8])?;
    (&prepared.null).write_all(b"a line of a log\n")?;
    let _ = (&prepared.null).read(&mut [0; 8])?;
    std::thread::sleep(std::time::Duration::from_millis(1));
    // A reallocation that moves, and an allocation by mmap.
    let mut bytes = vec![1_u8; 1000];
    bytes.resize(1 << 20, 2);
    eprintln!("{} bytes at {:?}", bytes.len(), std::time::Instant::now());
    Ok(())
}

/// Waits while the test inspects the process.
fn wait() -> io::Result<()> {
    io::stdout().write_all(b"confined\n")?;
    io::stdin().read(&mut [0; 1]).map(drop)
}

fn capable_of(capability: CapabilitySet) -> io::Result<()> {
    let inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: capability, permitted: capability, inheritable })?)
}

/// The attempts of a supervisor only.
fn supervise(attempt: &str, prepared: &Prepared) -> io::Result<()> {
    match attempt {
        "start-a-program-that-mounts" => {
            // A program that it starts must not gain the right either.
            let status = Command::new("mount")
                .args(["-t", "tmpfs", "tmpfs"])
                .arg(prepared.directory())
                .stderr(Stdio::null())
                .status()?;
            if status.success() { Ok(()) } else { Err(Errno::PERM.into()) }
        }
        "make-a-node" => {
            let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR);
            let null = rustix::fs::makedev(1, 3);
            Ok(rustix::fs::mknodat(rustix::fs::CWD, prepared.path.with_file_name("null"), kind, mode, null)?)
        }
        "start-a-program-as-another-user" => {
            let output = Command::new("id").arg("-u").uid(10002).gid(10002).output()?;
            if output.stdout == b"10002\n" { Ok(()) } else { Err(io::Error::other(format!("{output:?}"))) }
        }
        "start-a-program-that-is-bounded" => {
            let output = Command::new("grep").args(["CapBnd", "/proc/self/status"]).uid(10002).output()?;
            let expected = format!("CapBnd:\t{OF_SUPERVISOR:016x}\n");
            if output.stdout == expected.as_bytes() {
                Ok(())
            } else {
                Err(io::Error::other(format!("{output:?}")))
            }
        }
        "kill-a-process-of-another-user" => {
            let mut child = Command::new("sleep").arg("1000").uid(10002).gid(10002).spawn()?;
            child.kill()?;
            child.wait().map(drop)
        }
        _ => Err(io::Error::other(format!("no attempt {attempt}"))),
    }
}

/// Mounts in the temporary directory of the attempt, where a success affects nothing else.
fn mount(directory: &Path) -> io::Result<()> {
    let flags = rustix::mount::MountFlags::empty();
    Ok(rustix::mount::mount("tmpfs", directory, "tmpfs", flags, None)?)
}

/// Forks a child with a user namespace of its own.
fn start_in_a_namespace() -> io::Result<()> {
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: without an address for its stack the child has a copy of this one, as after a fork.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: the child does nothing else.
        unsafe { libc::_exit(0) };
    }
    checked(child)
}

/// Maps a page and changes its protection.
fn memory(first: i32, then: Option<i32>) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the kernel chooses an unused address.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, first, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let Some(then) = then else { return Ok(()) };
    // SAFETY: nothing refers to the new page.
    checked(unsafe { libc::mprotect(page, 4096, then) }.into())
}

fn request_named(name: &str) -> rustix::ioctl::Opcode {
    match name {
        "of-a-terminal" => 0x5412, // TIOCSTI
        "hypercall" => privcmd::IOCTL_PRIVCMD_HYPERCALL,
        "map-foreign-pages" => privcmd::IOCTL_PRIVCMD_MMAPBATCH_V2,
        "restrict" => privcmd::IOCTL_PRIVCMD_RESTRICT,
        "map-a-resource" => privcmd::IOCTL_PRIVCMD_MMAP_RESOURCE,
        "assign-an-ioeventfd" => privcmd::IOCTL_PRIVCMD_IOEVENTFD,
        "dm-op" => privcmd::IOCTL_PRIVCMD_DM_OP,
        "bind-a-channel" => evtchn::IOCTL_EVTCHN_BIND_INTERDOMAIN,
        "bind-a-static-channel" => evtchn::IOCTL_EVTCHN_BIND_STATIC,
        "notify" => evtchn::IOCTL_EVTCHN_NOTIFY,
        "grant-copy" => gntdev::IOCTL_GNTDEV_GRANT_COPY,
        // IOCTL_GNTDEV_SET_UNMAP_NOTIFY
        "notify-when-unmapped" => 0x0010_4707,
        "i2c-retries" => 0x0701,
        "i2c-timeout" => 0x0702,
        "i2c-transfer" => 0x0707,
        "i2c-slave-force" => 0x0706,
        "gpio-line" => 0xc250_b407,
        // GPIO_V2_GET_LINEINFO_WATCH_IOCTL
        "gpio-watch" => 0xc100_b406,
        other => panic!("no request {other}"),
    }
}
