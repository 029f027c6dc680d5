//! Where the verbs write, and how.

use std::io::{self, IsTerminal as _, Write};

use chrono::{DateTime, Local, Utc};

use super::Failure;

/// Standard output for results, standard error for everything else.
pub struct Terminal {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    /// Whether somebody looks at standard error: colours and progress bars make sense.
    interactive: bool,
    /// Whether they want colours.
    colours: bool,
    /// Whether somebody looks at standard output: what came from elsewhere must not steer the terminal.
    guarded: bool,
}

impl Terminal {
    /// The process's own.
    pub fn of_process() -> Self {
        let interactive = io::stderr().is_terminal();
        Self {
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            interactive,
            // See https://no-color.org.
            colours: interactive && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            guarded: io::stdout().is_terminal(),
        }
    }

    /// For tests.
    #[cfg(test)]
    pub fn new(stdout: Box<dyn Write + Send>, stderr: Box<dyn Write + Send>, interactive: bool) -> Self {
        Self { stdout, stderr, interactive, colours: interactive, guarded: interactive }
    }

    /// Whether somebody looks at standard error.
    pub fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Whether one person sees both standard output and standard error.
    pub fn is_watched(&self) -> bool {
        self.interactive && self.guarded
    }

    /// Prints a result.
    pub fn print(&mut self, text: &str) -> Result<(), Failure> {
        let written = if self.guarded {
            writeln!(self.stdout, "{}", visible(text, true))
        } else {
            writeln!(self.stdout, "{text}")
        };
        match written.and_then(|()| self.stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Unread),
            Err(error) => Err(Failure::local(format!("standard output: {error}"))),
        }
    }

    /// Prints rows as columns; the first row is their heading.
    pub fn table(&mut self, rows: &[Vec<String>]) -> Result<(), Failure> {
        let mut widths: Vec<usize> = Vec::new();
        for row in rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{:width$}", visible(cell, false))).collect();
            self.print(cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Tells the user something beside the result. Standard error that nobody reads is no error.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.stderr, "{}", visible(text, true));
    }

    /// Tells the user what went wrong.
    pub fn error(&mut self, text: &str) {
        let (red, plain) = if self.colours { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(self.stderr, "{red}error:{plain} {}", visible(text, true));
    }

    /// Prints a line of a function's console where the function printed it.
    pub fn tailed_line(&mut self, line: &str, is_stderr: bool) -> Result<(), Failure> {
        if is_stderr {
            self.console_line(line, true);
            return Ok(());
        }
        self.print(line)
    }

    /// Shows a line of a function's console: as it is where a program reads it, set apart where a person does.
    pub fn console_line(&mut self, line: &str, is_stderr: bool) {
        let _ = if self.interactive {
            let line = visible(line, false);
            match (self.colours, is_stderr) {
                (false, _) => writeln!(self.stderr, "{line}"),
                (true, false) => writeln!(self.stderr, "\x1b[2m{line}\x1b[0m"),
                (true, true) => writeln!(self.stderr, "\x1b[2;33m{line}\x1b[0m"),
            }
        } else {
            writeln!(self.stderr, "{line}")
        };
    }
}

/// The text without control characters, which could steer a terminal: tabs stay, line ends if `lines`.
fn visible(text: &str, lines: bool) -> String {
    let safe = |c: char| !c.is_control() || c == '\t' || (lines && c == '\n');
    text.chars().map(|c| if safe(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A time for people, in their own zone.
pub fn time(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn nothing_from_outside_steers_the_terminal() {
        assert_eq!(visible("a\x1b[31mb\rc\td\ne\u{9b}", false), "a\u{fffd}[31mb\u{fffd}c\td\u{fffd}e\u{fffd}");
        assert_eq!(visible("a\nb", true), "a\nb");
    }
}
