// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ioctls of `/dev/xen/privcmd` (Linux 6.12, `drivers/xen/privcmd.c`).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::{Errno, Result};
use vmm_sys_util::eventfd::EventFd;

use super::exchange;
use super::mapping::Mapping;
use crate::PAGE_SIZE;
use crate::abi::dm_op::{
    self, CreateIoreqServer, DestroyIoreqServer, GetIoreqServerInfo, NrVcpus, SetIoreqServerState,
    SetIrqLevel,
};
use crate::abi::{domctl, privcmd as abi};
use crate::ioreq::IoreqPage;

/// The domctls whose parameters have no addresses.
const PLAIN_DOMCTLS: [u32; 3] =
    [domctl::XEN_DOMCTL_UNPAUSEDOMAIN, domctl::XEN_DOMCTL_GETDOMAININFO, domctl::XEN_DOMCTL_SET_VIRQ_HANDLER];

/// The parameters of `XEN_DMOP_map_io_range_to_ioreq_server`.
#[repr(transparent)]
pub(crate) struct MapIoRange(pub(crate) dm_op::IoreqServerRange);

/// The parameters of `XEN_DMOP_unmap_io_range_from_ioreq_server`.
#[repr(transparent)]
pub(crate) struct UnmapIoRange(pub(crate) dm_op::IoreqServerRange);

/// A member of the union in `struct xen_dm_op`.
///
/// # Safety
///
/// `OP` must be an operation whose parameters are exactly this type. Every bit pattern of the type must be
/// valid, and it must have no addresses.
pub(crate) unsafe trait DmOpMember {
    /// The operation.
    const OP: u32;
}

macro_rules! dm_op_members {
    ($($type:ident = $op:ident,)+) => {
        $(
            // SAFETY: `dm_op.h` defines it so, and the fields are integers. The ABI test compares the
            // layouts.
            unsafe impl DmOpMember for $type {
                const OP: u32 = dm_op::$op;
            }
        )+
    };
}

dm_op_members! {
    CreateIoreqServer = XEN_DMOP_CREATE_IOREQ_SERVER,
    GetIoreqServerInfo = XEN_DMOP_GET_IOREQ_SERVER_INFO,
    MapIoRange = XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER,
    UnmapIoRange = XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER,
    SetIoreqServerState = XEN_DMOP_SET_IOREQ_SERVER_STATE,
    DestroyIoreqServer = XEN_DMOP_DESTROY_IOREQ_SERVER,
    SetIrqLevel = XEN_DMOP_SET_IRQ_LEVEL,
    NrVcpus = XEN_DMOP_NR_VCPUS,
}

/// `IOCTL_PRIVCMD_DM_OP` with one buffer, as all operations here need.
pub(crate) fn dm_op<T: DmOpMember>(fd: BorrowedFd<'_>, dom: u16, member: T) -> Result<T> {
    let mut op = dm_op::DmOp { op: T::OP, pad: 0, u: member };
    let mut buffer = abi::DmOpBuf { uptr: address_of(&mut op), size: size_of::<dm_op::DmOp<T>>() as u64 };
    let mut call = abi::DmOp { dom, num: 1, ubufs: address_of(&mut buffer) };
    // SAFETY: the kernel reads one buffer descriptor and pins the pages of `op` during the call; Xen reads
    // `op` and writes only the member of the operation `T::OP`. All three exist until the call returns.
    unsafe { exchange(fd, abi::IOCTL_PRIVCMD_DM_OP, &mut call) }?;
    Ok(op.u)
}

/// `IOCTL_PRIVCMD_RESTRICT`.
pub(crate) fn restrict(fd: BorrowedFd<'_>, mut dom: u16) -> Result<()> {
    // SAFETY: the kernel reads a `domid_t`.
    unsafe { exchange(fd, abi::IOCTL_PRIVCMD_RESTRICT, &mut dom) }.map(drop)
}

/// `IOCTL_PRIVCMD_MMAP_RESOURCE`: maps one frame of a resource of `dom`.
pub(crate) fn map_resource(fd: BorrowedFd<'_>, dom: u16, type_: u32, id: u32, frame: u32) -> Result<Mapping> {
    let mapping = Mapping::of_device(fd, 0, PAGE_SIZE, true)?;
    let mut call = abi::MmapResource { dom, type_, id, idx: frame, num: 1, addr: mapping.address() };
    // SAFETY: the kernel populates the new mapping, to which nothing refers yet, with a frame of Xen, and
    // keeps that frame until it is unmapped.
    unsafe { exchange(fd, abi::IOCTL_PRIVCMD_MMAP_RESOURCE, &mut call) }?;
    Ok(mapping)
}

/// `IOCTL_PRIVCMD_MMAPBATCH_V2`: maps pages of `dom`.
pub(crate) fn map_foreign(fd: BorrowedFd<'_>, dom: u16, frames: &[u64]) -> Result<Mapping> {
    let mapping = Mapping::of_device(fd, 0, frames.len().saturating_mul(PAGE_SIZE), true)?;
    let mut errors = vec![0_i32; frames.len()];
    let mut call = abi::MmapBatchV2 {
        num: u32::try_from(frames.len()).map_err(|_| Errno::INVAL)?,
        dom,
        addr: mapping.address(),
        arr: frames.as_ptr().expose_provenance() as u64,
        err: errors.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the kernel reads `num` frame numbers, writes as many errors, and populates the new mapping of
    // as many pages, to which nothing refers yet.
    unsafe { exchange(fd, abi::IOCTL_PRIVCMD_MMAPBATCH_V2, &mut call) }?;
    // The call succeeds if Xen refuses a frame. The frame's error has the refusal.
    match errors.into_iter().find(|error| *error != 0) {
        None => Ok(mapping),
        Some(refused) => Err(Errno::from_raw_os_error(refused.saturating_abs())),
    }
}

/// `IOCTL_PRIVCMD_HYPERCALL` with a domctl whose parameters have no addresses. Returns what Xen wrote.
pub(crate) fn domctl(fd: BorrowedFd<'_>, mut op: domctl::Domctl) -> Result<domctl::Domctl> {
    // With an address in the parameters, Xen would read or write there.
    if !PLAIN_DOMCTLS.contains(&op.cmd) {
        return Err(Errno::INVAL);
    }
    let mut call = abi::Hypercall { op: domctl::HYPERVISOR_DOMCTL, arg: [address_of(&mut op), 0, 0, 0, 0] };
    // SAFETY: Xen reads a `struct xen_domctl` from `op`, which is at least as large and exists until the call
    // returns, and may write it back. No parameter of this command is an address.
    unsafe { exchange(fd, abi::IOCTL_PRIVCMD_HYPERCALL, &mut call) }?;
    Ok(op)
}

/// The structure of a hypercall: zero except a few fields of 16 bits. No field can be a valid address, since
/// Linux maps nothing below 64 KiB unless a process requests it, and no process here does.
#[repr(transparent)]
pub(crate) struct Words([u16; 136]);

impl Words {
    /// Creates a structure with these fields, each at its offset in bytes.
    pub(crate) fn new(fields: &[(usize, u16)]) -> Self {
        let mut words = [0; _];
        for (offset, value) in fields {
            if let Some(word) = words.get_mut(offset / size_of::<u16>()) {
                *word = *value;
            }
        }
        Self(words)
    }

    /// The field at this offset in bytes.
    pub(crate) fn get(&self, offset: usize) -> i16 {
        self.0.get(offset / size_of::<u16>()).map_or(0, |word| word.cast_signed())
    }
}

/// An argument of a hypercall.
#[derive(Clone, Copy)]
pub(crate) enum Argument {
    Number(u16),
    /// The address of the structure.
    Words,
}

/// `IOCTL_PRIVCMD_HYPERCALL` with a structure that holds no addresses.
pub(crate) fn hypercall(
    fd: BorrowedFd<'_>,
    number: u16,
    arguments: [Argument; 3],
    words: &mut Words,
) -> Result<u32> {
    let address = address_of(words);
    let [a, b, c] = arguments.map(|argument| match argument {
        Argument::Number(number) => number.into(),
        Argument::Words => address,
    });
    let mut call = abi::Hypercall { op: number.into(), arg: [a, b, c, 0, 0] };
    // SAFETY: `words` exists until the call returns and is larger than any structure that is passed to Xen by
    // address. Xen may write to it; all bit patterns are valid. All other addresses that Xen can find in the
    // call are below 64 KiB, where nothing of this process is mapped.
    unsafe { exchange(fd, abi::IOCTL_PRIVCMD_HYPERCALL, &mut call) }
}

/// The parameters of `IOCTL_PRIVCMD_IOEVENTFD`, which have to exist while it is assigned.
#[derive(Debug)]
pub(crate) struct IoEventFd {
    /// This process's mapping of the guest's ioreq page.
    pub(crate) page: Arc<IoreqPage>,
    /// The local ports, one for each vCPU.
    pub(crate) ports: Vec<u32>,
    /// The address of the first register of the device.
    pub(crate) base: u64,
    /// The index of the queue.
    pub(crate) queue: u32,
    /// The eventfd to signal.
    pub(crate) eventfd: EventFd,
}

impl IoEventFd {
    /// `IOCTL_PRIVCMD_IOEVENTFD`. The caller keeps `self` from its success until [`Self::deassign`] succeeds.
    pub(crate) fn assign(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.call(fd, 0)
    }

    /// `IOCTL_PRIVCMD_IOEVENTFD` with `PRIVCMD_IOEVENTFD_FLAG_DEASSIGN`.
    pub(crate) fn deassign(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.call(fd, abi::PRIVCMD_IOEVENTFD_FLAG_DEASSIGN)
    }

    fn call(&self, fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
        let mut call = abi::IoEventFd {
            ioreq: self.page.address(),
            ports: self.ports.as_ptr().expose_provenance() as u64,
            addr: self.base,
            addr_len: 4,
            event_fd: raw(&self.eventfd)?,
            vcpus: u32::try_from(self.ports.len()).map_err(|_| Errno::INVAL)?,
            vq: self.queue,
            flags,
            dom: self.page.domain().get(),
            pad: [0; 2],
        };
        // SAFETY: the kernel copies `vcpus` ports and takes its own reference to the eventfd. It keeps the
        // address `ioreq` and accesses the page in its interrupt handler: this is a mapping by
        // `map_resource`, which `page` owns.
        unsafe { exchange(fd, abi::IOCTL_PRIVCMD_IOEVENTFD, &mut call) }.map(drop)
    }
}

/// `IOCTL_PRIVCMD_IRQFD`: `level` is the operation that the kernel makes each time the eventfd is signalled.
pub(crate) fn irqfd(
    fd: BorrowedFd<'_>,
    dom: u16,
    level: SetIrqLevel,
    eventfd: &EventFd,
    assign: bool,
) -> Result<()> {
    let mut op = dm_op::DmOp { op: dm_op::XEN_DMOP_SET_IRQ_LEVEL, pad: 0, u: level };
    let mut call = abi::IrqFd {
        dm_op: address_of(&mut op),
        size: u32::try_from(size_of_val(&op)).map_err(|_| Errno::OVERFLOW)?,
        fd: raw(eventfd)?,
        flags: if assign { 0 } else { abi::PRIVCMD_IRQFD_FLAG_DEASSIGN },
        dom,
        pad: [0; 2],
    };
    // SAFETY: the kernel copies `size` bytes of `op` and takes its own reference to the eventfd.
    unsafe { exchange(fd, abi::IOCTL_PRIVCMD_IRQFD, &mut call) }.map(drop)
}

fn raw(eventfd: &EventFd) -> Result<u32> {
    u32::try_from(eventfd.as_raw_fd()).map_err(|_| Errno::BADF)
}

/// The address of a value, to which another structure points for the kernel.
fn address_of<T>(value: &mut T) -> u64 {
    std::ptr::from_mut(value).expose_provenance() as u64
}
