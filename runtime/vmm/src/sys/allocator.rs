//! The C library's allocator, which makes system calls of its own.
//!
//! Source: glibc sysdeps/unix/sysv/linux/malloc-sysdep.h, `check_may_shrink_heap`; malloc/arena.c, `arena_get2`; mallopt(3).

/// Lets all threads allocate from one place, the program's break.
///
/// Left alone, each thread has an arena, and the first that gives memory back opens `/proc/sys/vm/overcommit_memory` to know how;
/// one more thread than eight asks how many processors there are. No filter has either call, and a thread that makes it takes
/// the guest with it.
pub fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers and changes how later allocations are made, none of those there are.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
