// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The functions that QEMU calls: the installation of the plugin, and its callbacks.

#![allow(unsafe_code)] // The two symbols that QEMU looks for, and what it passes.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::slice;

use crate::api::{
    Tb, qemu_plugin_insn_data, qemu_plugin_insn_vaddr, qemu_plugin_register_vcpu_init_cb,
    qemu_plugin_register_vcpu_tb_trans_cb, qemu_plugin_tb_get_insn, qemu_plugin_tb_n_insns,
};
use crate::counting;
use crate::qemu::{self, Instruction, Register, Running};

/// The version of the plugin interface.
#[unsafe(no_mangle)]
#[used]
static qemu_plugin_version: c_int = 4;

/// QEMU calls this once when it loads the plugin.
#[unsafe(no_mangle)]
extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: QEMU passes `count` pointers, which are valid during this call.
    let words = unsafe { slice::from_raw_parts(words, count) }.iter().map(|word| {
        // SAFETY: each points to a string, which is valid as long.
        unsafe { CStr::from_ptr(*word) }.to_string_lossy().into_owned()
    });
    let in_turns = match counting::begin(words) {
        Ok(in_turns) => in_turns,
        Err(reason) => {
            eprintln!("plugin: {reason}");
            return 1;
        }
    };
    qemu::begin(in_turns);
    // SAFETY: the function has the type that QEMU calls.
    unsafe { qemu_plugin_register_vcpu_init_cb(id, processor_is_there) };
    // SAFETY: as above.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

extern "C" fn processor_is_there(_id: u64, _processor: c_uint) {
    qemu::find_registers();
}

extern "C" fn translated(_id: u64, tb: *mut Tb) {
    let running =
        Running { domain: qemu::register(Register::Domain), thread: qemu::register(Register::Thread) };
    // SAFETY: QEMU passes the block that it translates.
    let count = unsafe { qemu_plugin_tb_n_insns(tb) };
    for place in 0..count {
        // SAFETY: the block has `count` instructions.
        let insn = unsafe { qemu_plugin_tb_get_insn(tb, place) };
        let mut bytes = [0; 4];
        // SAFETY: QEMU writes at most `bytes.len()` bytes.
        let size = unsafe { qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), bytes.len()) };
        // SAFETY: the instruction is valid during this call.
        let address = unsafe { qemu_plugin_insn_vaddr(insn) };
        if size == bytes.len() {
            counting::translated(
                &running,
                &Instruction::new(insn, address, u32::from_le_bytes(bytes), executed),
            );
        }
    }
}

extern "C" fn executed(_processor: c_uint, what: *mut c_void) {
    // For the number of the processor, see [`Board`]. Registers are those of the executing processor.
    counting::executed(what.addr());
}
