//! The file that a boot leaves behind: how the machine was started, what it printed, how it ended.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use citrine_planner::diag::Result;
use fs_err::File;

use super::console::UARTS;
use super::unusable;

/// A console that prints more than this is not kept further.
const CONSOLE_MAX: u64 = 16 << 20;

/// A transcript that is being written.
#[derive(Debug)]
pub struct Transcript {
    path: PathBuf,
    consoles: Vec<Option<Console>>,
    verdict: Option<String>,
}

#[derive(Debug)]
struct Console {
    file: BufWriter<File>,
    written: u64,
}

impl Transcript {
    /// Begins the file of UART 0 with its head. Those of other UARTs begin with their first byte.
    ///
    /// # Errors
    /// [`super::FILE`].
    pub fn create(path: &Path, head: &[String]) -> Result<Self> {
        let unusable = |error: io::Error| unusable(path, "the transcript", &error);
        if let Some(dir) = path.parent() {
            fs_err::create_dir_all(dir).map_err(unusable)?;
        }
        let mut console = Console::create(path).map_err(unusable)?;
        for line in head {
            writeln!(console.file, "{line}").map_err(unusable)?;
        }
        writeln!(console.file, "---- console of UART 0 ----").map_err(unusable)?;
        let mut consoles = vec![Some(console)];
        for uart in 1..UARTS {
            // A file of an earlier boot would be taken for this one's.
            let _ = fs_err::remove_file(beside(path, uart));
            consoles.push(None);
        }
        Ok(Self { path: path.to_path_buf(), consoles, verdict: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds raw bytes of a UART.
    ///
    /// # Errors
    /// [`super::FILE`].
    pub fn console(&mut self, uart: u8, bytes: &[u8]) -> Result<()> {
        let path = if uart == 0 { self.path.clone() } else { beside(&self.path, uart) };
        let unusable = |error: io::Error| unusable(&path, "the transcript", &error);
        let Some(slot) = self.consoles.get_mut(usize::from(uart)) else {
            return Ok(());
        };
        let console = match slot {
            Some(console) => console,
            None => slot.insert(Console::create(&path).map_err(unusable)?),
        };
        console.write(bytes).map_err(unusable)
    }

    /// Brings everything to the disk's cache, for a reader who watches.
    pub fn flush(&mut self) {
        for console in self.consoles.iter_mut().flatten() {
            // A full disk shows up at the next write.
            let _ = console.file.flush();
        }
    }

    /// What the last line will say; the first call counts.
    pub fn verdict(&mut self, text: String) {
        self.verdict.get_or_insert(text);
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        let verdict = self.verdict.take().unwrap_or_else(|| "ended without a verdict".to_owned());
        if let Some(Some(console)) = self.consoles.first_mut() {
            let _ = writeln!(console.file, "\n---- end ----\n{verdict}");
        }
        self.flush();
    }
}

impl Console {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), written: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.written;
        self.written = before.saturating_add(bytes.len() as u64);
        if self.written <= CONSOLE_MAX {
            return self.file.write_all(bytes);
        }
        if before <= CONSOLE_MAX {
            writeln!(self.file, "\n---- more than {} MiB: the rest is not kept ----", CONSOLE_MAX >> 20)?;
        }
        Ok(())
    }
}

fn beside(path: &Path, uart: u8) -> PathBuf {
    path.with_extension(format!("uart{uart}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_console_and_verdict() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/boot.log");
        let mut transcript = Transcript::create(&path, &["qemu 7".to_owned()]).unwrap();
        transcript.console(0, b"\xffhello\r\n").unwrap();
        transcript.console(1, b"other").unwrap();
        transcript.verdict("passed".to_owned());
        transcript.verdict("second thoughts".to_owned());
        drop(transcript);
        let text = fs_err::read(&path).unwrap();
        assert_eq!(text, b"qemu 7\n---- console of UART 0 ----\n\xffhello\r\n\n---- end ----\npassed\n");
        assert_eq!(fs_err::read(dir.path().join("deep/boot.uart1.log")).unwrap(), b"other");
    }

    #[test]
    fn a_flood_does_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot.log");
        let mut transcript = Transcript::create(&path, &[]).unwrap();
        for _ in 0..(CONSOLE_MAX / (1 << 20) + 4) {
            transcript.console(0, &[b'x'; 1 << 20]).unwrap();
        }
        drop(transcript);
        let len = fs_err::metadata(&path).unwrap().len();
        assert!((CONSOLE_MAX..CONSOLE_MAX + 500).contains(&len), "{len}");
        let text = fs_err::read(&path).unwrap();
        assert!(text.ends_with(b"not kept ----\n\n---- end ----\nended without a verdict\n"));
    }
}
