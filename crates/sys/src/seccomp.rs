//! Installing filters for system calls.

use crate::error::{Error, Result};

/// One instruction of a filter: operation, jumps if true and if false, operand.
pub type FilterInsn = (u16, u8, u8, u32);

/// Filters the system calls of this process and of all programs started from here on. Needs `CAP_SYS_ADMIN`, or
/// that no privileges can be gained.
pub fn install_filter(insns: &[FilterInsn]) -> Result<()> {
    let mut insns: Vec<libc::sock_filter> =
        insns.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(insns.len())
        .map_err(|_| Error::Invalid { what: "length of a filter", text: insns.len().to_string() })?;
    let program = libc::sock_fprog { len, filter: insns.as_mut_ptr() };
    // SAFETY: the program's pointer and length are those of `insns`, which outlives the call; the kernel checks
    // the instructions and copies them.
    if unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) } == 0
    {
        return Ok(());
    }
    Err(Error::last("install", "a system call filter"))
}
