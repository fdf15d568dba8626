//! The system's randomness, from the seed: `getrandom` for the threads of a simulation.
//!
//! Hash maps, `rand`'s thread generator (election timeouts) and tokio's (which waiter of a channel is woken first) all take
//! their seed here. tokio stirs in a counter of the process, so that a seed needs a process of its own: see `fleet`.

use std::{
    cell::Cell,
    ffi::{c_uint, c_void},
};

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread's system randomness comes from `seed`.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// Takes the place of libc's function of this name in this binary.
///
/// # Safety
/// `buffer` must be valid for writes of `len` bytes, as for libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    let Some(mut state) = STATE.get() else {
        // SAFETY: the caller's promise is the one that the system call asks for.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as isize };
    };
    for i in 0..len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // SAFETY: `i` is below `len`, for which the caller promises that writes are valid.
        unsafe { buffer.cast::<u8>().add(i).write((state >> 33) as u8) };
    }
    STATE.set(Some(state));
    len as isize
}
