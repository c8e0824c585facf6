// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Declarations of QEMU's plugin interface, version 4 (QEMU 9.2 and 10.0, include/qemu/qemu-plugin.h).

#![allow(unsafe_code)] // Foreign functions.

use std::ffi::{c_char, c_int, c_uint, c_void};

#[repr(C)]
pub(crate) struct Tb(c_void);

#[repr(C)]
pub(crate) struct Insn(c_void);

#[repr(C)]
pub(crate) struct Scoreboard(c_void);

/// `qemu_plugin_u64`: a counter of each processor.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) board: *mut Scoreboard,
    pub(crate) offset: usize,
}

/// GLib's `GArray`, of which `qemu_plugin_get_registers` returns one, and `GByteArray`.
#[repr(C)]
pub(crate) struct Array {
    pub(crate) data: *mut c_void,
    pub(crate) length: c_uint,
}

impl Array {
    /// Returns the address of the elements, which is valid even if there are none, and their number.
    pub(crate) fn parts(&self) -> (*const c_void, usize) {
        let length = usize::try_from(self.length).unwrap_or_default();
        let data = if length == 0 { std::ptr::NonNull::<u64>::dangling().as_ptr().cast() } else { self.data };
        (data.cast_const(), length)
    }
}

/// `qemu_plugin_reg_descriptor`.
#[repr(C)]
pub(crate) struct Descriptor {
    pub(crate) handle: *mut c_void,
    pub(crate) name: *const c_char,
    pub(crate) feature: *const c_char,
}

pub(crate) const ADD: c_int = 0;
pub(crate) const READS_REGISTERS: c_int = 1;

pub(crate) type Translated = extern "C" fn(u64, *mut Tb);
pub(crate) type Executed = extern "C" fn(c_uint, *mut c_void);
pub(crate) type Initialised = extern "C" fn(u64, c_uint);

unsafe extern "C" {
    pub(crate) fn qemu_plugin_register_vcpu_init_cb(id: u64, call: Initialised);
    pub(crate) fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, call: Translated);
    pub(crate) fn qemu_plugin_tb_n_insns(tb: *const Tb) -> usize;
    pub(crate) fn qemu_plugin_tb_get_insn(tb: *const Tb, place: usize) -> *mut Insn;
    pub(crate) fn qemu_plugin_insn_data(insn: *const Insn, to: *mut c_void, size: usize) -> usize;
    pub(crate) fn qemu_plugin_insn_vaddr(insn: *const Insn) -> u64;
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut Insn,
        call: Executed,
        flags: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        insn: *mut Insn,
        operation: c_int,
        entry: Entry,
        value: u64,
    );
    pub(crate) fn qemu_plugin_scoreboard_new(size: usize) -> *mut Scoreboard;
    pub(crate) fn qemu_plugin_scoreboard_find(board: *mut Scoreboard, processor: c_uint) -> *mut c_void;
    pub(crate) fn qemu_plugin_num_vcpus() -> c_int;
    pub(crate) fn qemu_plugin_get_registers() -> *mut Array;
    pub(crate) fn qemu_plugin_read_register(handle: *mut c_void, to: *mut Array) -> c_int;
    // Not part of the plugin interface, but exported.
    pub(crate) fn qemu_get_cpu(number: c_int) -> *mut c_void;
    pub(crate) fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    pub(crate) fn g_byte_array_new() -> *mut Array;
    pub(crate) fn g_byte_array_unref(array: *mut Array);
    pub(crate) fn g_array_unref(array: *mut Array);
}
