//! Standard output. A reader who has seen enough (`coffer ps | head -1`) is no error; a full disk is.
//!
//! `print!` and `println!` mean these in the whole program: the standard library's panic instead.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

use crate::error::Class;

macro_rules! print {
    ($($words:tt)*) => { $crate::out::write(format_args!($($words)*)) };
}

macro_rules! println {
    () => { $crate::out::write(format_args!("\n")) };
    ($($words:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($words)*))) };
}

/// Writes, or ends the program if nobody will ever read it for another reason than not wanting to.
pub fn write(text: fmt::Arguments<'_>) {
    match io::stdout().lock().write_fmt(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("coffer: cannot write standard output: {error}");
            std::process::exit(i32::from(Class::Config.code()));
        }
        _ => {}
    }
}
