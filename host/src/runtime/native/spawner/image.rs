//! What a process becomes at exec, laid out before the fork.
//!
//! The standard library ends in execvp(3), which hands a file that the kernel refuses to a shell: a
//! program for another machine would be read as a script. This is execve(2) itself.

use std::{
    ffi::{CString, NulError, OsStr, c_char},
    io,
    os::unix::ffi::OsStrExt,
    ptr,
};

use rustix::io::Errno;

/// A program with its arguments and its environment.
pub struct Image {
    arguments: Pointers,
    environment: Pointers,
}

/// Texts, and an array of pointers to them with a null pointer at its end.
struct Pointers {
    /// Owns what `pointers` point to; never changed, so they stay.
    _texts: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers are to heap memory that the same value owns and that nobody writes to.
unsafe impl Send for Pointers {}
// SAFETY: as above.
unsafe impl Sync for Pointers {}

impl Pointers {
    fn new(texts: Vec<CString>) -> Self {
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Self { _texts: texts, pointers }
    }
}

impl Image {
    /// Lays out a program, whose path is its first argument too.
    ///
    /// # Errors
    /// When a text holds a NUL byte.
    pub fn new(program: &OsStr, argument: &str, variables: &[(String, String)]) -> Result<Self, NulError> {
        let arguments = vec![CString::new(program.as_bytes())?, CString::new(argument)?];
        let environment = variables
            .iter()
            .map(|(name, value)| CString::new(format!("{name}={value}")))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { arguments: Pointers::new(arguments), environment: Pointers::new(environment) })
    }

    /// Becomes the program; gives why not. One system call, so it may be made between clone and exec.
    pub fn exec(&self) -> Errno {
        let arguments = self.arguments.pointers.as_ptr();
        // SAFETY: the first element is there and a NUL-terminated string; both arrays end with a null
        // pointer, and what they point to lives as long as `self`.
        unsafe { libc::execve(*arguments, arguments, self.environment.pointers.as_ptr()) };
        Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
    }
}
