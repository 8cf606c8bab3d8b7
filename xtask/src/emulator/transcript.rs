//! The files that a boot leaves behind: how the machine was started, what it printed when, how it ended.
//!
//! One file has everything: the head, the lines of all consoles in the order in which they ended, the verdict.
//! Beside it every console but UART 0 has a file of its own. Each line begins with the
//! time of its first byte after power-on; carriage returns are left out.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use citrine_planner::diag::Result;
use fs_err::File;

use super::console::Source;
use super::unusable;

/// A file that would become longer than this is not kept further.
const FILE_MAX: u64 = 16 << 20;
/// A longer line stands in the common file in pieces.
const LINE_MAX: usize = 4096;

/// Transcripts that are being written.
#[derive(Debug)]
pub struct Transcript {
    path: PathBuf,
    all: Limited,
    consoles: BTreeMap<Source, Console>,
    verdict: Option<String>,
}

/// One console.
#[derive(Debug)]
struct Console {
    name: String,
    /// Its own file, if it gets one.
    path: Option<PathBuf>,
    file: Option<Limited>,
    inside_line: bool,
    /// What is not yet in the common file, and when its first byte came.
    line: Vec<u8>,
    began: Duration,
}

/// A file that a console cannot let grow for ever.
#[derive(Debug)]
struct Limited {
    file: BufWriter<File>,
    written: u64,
}

impl Transcript {
    /// Begins the common file with its head. `names` has every console; UART 0 gets no file of its own, since
    /// a machine without a multiplexer mostly uses no other. Files of consoles begin with their first byte.
    ///
    /// # Errors
    /// [`super::FILE`].
    pub fn create(path: &Path, head: &[String], names: &[(Source, String)]) -> Result<Self> {
        let unusable = |error: io::Error| unusable(path, "the transcript", &error);
        if let Some(dir) = path.parent() {
            fs_err::create_dir_all(dir).map_err(unusable)?;
        }
        let mut all = Limited::create(path).map_err(unusable)?;
        for line in head {
            writeln!(all.file, "{line}").map_err(unusable)?;
        }
        writeln!(all.file, "---- consoles, seconds after power-on ----").map_err(unusable)?;
        let console = |(source, name): &(Source, String)| {
            let own = path.with_extension(format!("{name}.log"));
            // A file of an earlier boot would be taken for this one's.
            let _ = fs_err::remove_file(&own);
            let console = Console {
                name: name.clone(),
                path: (*source != Source::Uart(0)).then_some(own),
                file: None,
                inside_line: false,
                line: Vec::new(),
                began: Duration::ZERO,
            };
            (*source, console)
        };
        let consoles = names.iter().map(console).collect();
        Ok(Self { path: path.to_path_buf(), all, consoles, verdict: None })
    }

    /// Where the common file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The consoles that have a file of their own: name and path. A silent one's is not there.
    pub fn files(&self) -> BTreeMap<String, PathBuf> {
        let consoles = self.consoles.values();
        consoles.filter_map(|c| Some((c.name.clone(), c.path.clone().filter(|_| c.file.is_some())?))).collect()
    }

    /// Adds raw bytes of a console that came `at` after power-on. Those of a source without a name are not kept.
    ///
    /// # Errors
    /// [`super::FILE`].
    pub fn console(&mut self, source: Source, at: Duration, bytes: &[u8]) -> Result<()> {
        let Some(console) = self.consoles.get_mut(&source) else {
            return Ok(());
        };
        let written = console.write(at, bytes, &mut self.all);
        written.map_err(|error| unusable(console.path.as_ref().unwrap_or(&self.path), "the transcript", &error))
    }

    /// Brings everything to the disk's cache, for a reader who watches.
    pub fn flush(&mut self) {
        let files = self.consoles.values_mut().filter_map(|console| console.file.as_mut());
        for limited in files.chain([&mut self.all]) {
            // A full disk shows up at the next write.
            let _ = limited.file.flush();
        }
    }

    /// What the last lines will say; the first call counts.
    pub fn verdict(&mut self, text: String) {
        self.verdict.get_or_insert(text);
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        for console in self.consoles.values_mut().filter(|console| !console.line.is_empty()) {
            let _ = console.end_line(&mut self.all);
        }
        let verdict = self.verdict.take().unwrap_or_else(|| "ended without a verdict".to_owned());
        let _ = writeln!(self.all.file, "---- end ----\n{verdict}");
        self.flush();
    }
}

impl Console {
    fn write(&mut self, at: Duration, bytes: &[u8], all: &mut Limited) -> io::Result<()> {
        if let (None, Some(path)) = (&self.file, &self.path) {
            self.file = Some(Limited::create(path)?);
        }
        let plain: Vec<u8> = bytes.iter().copied().filter(|&byte| byte != b'\r').collect();
        for piece in plain.split_inclusive(|&byte| byte == b'\n') {
            if let Some(file) = &mut self.file {
                if !self.inside_line {
                    file.write(format!("[{}] ", seconds(at)).as_bytes())?;
                }
                file.write(piece)?;
            }
            self.inside_line = !piece.ends_with(b"\n");
            if self.line.is_empty() {
                self.began = at;
            }
            self.line.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if !self.inside_line || self.line.len() >= LINE_MAX {
                self.end_line(all)?;
            }
        }
        Ok(())
    }

    fn end_line(&mut self, all: &mut Limited) -> io::Result<()> {
        all.write(format!("[{} {}] ", seconds(self.began), self.name).as_bytes())?;
        self.line.push(b'\n');
        all.write(&self.line)?;
        self.line.clear();
        Ok(())
    }
}

impl Limited {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), written: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.written;
        self.written = before.saturating_add(bytes.len() as u64);
        if self.written <= FILE_MAX {
            return self.file.write_all(bytes);
        }
        if before <= FILE_MAX {
            writeln!(self.file, "\n---- more than {} MiB: the rest is not kept ----", FILE_MAX >> 20)?;
        }
        Ok(())
    }
}

/// Seconds, as wide as those of the kernel's own lines.
fn seconds(at: Duration) -> String {
    format!("{:>8.3}", at.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[(u8, &str)]) -> Vec<(Source, String)> {
        names.iter().map(|(channel, name)| (Source::Channel(*channel), (*name).to_owned())).collect()
    }

    #[test]
    fn head_console_and_verdict() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/boot.log");
        let names = [(Source::Uart(0), "uart0".to_owned()), (Source::Uart(1), "uart1".to_owned())];
        let mut transcript = Transcript::create(&path, &["qemu 7".to_owned()], &names).unwrap();
        transcript.console(Source::Uart(0), Duration::from_millis(1500), b"\xffhello\r\n").unwrap();
        transcript.console(Source::Uart(1), Duration::from_millis(2000), b"other").unwrap();
        assert_eq!(transcript.files().into_keys().collect::<Vec<_>>(), ["uart1"]);
        transcript.verdict("passed".to_owned());
        transcript.verdict("second thoughts".to_owned());
        drop(transcript);
        let expected = b"qemu 7\n---- consoles, seconds after power-on ----\n\
            [   1.500 uart0] \xffhello\n[   2.000 uart1] other\n---- end ----\npassed\n";
        assert_eq!(fs_err::read(&path).unwrap(), expected);
        assert_eq!(fs_err::read(dir.path().join("deep/boot.uart1.log")).unwrap(), b"[   2.000] other");
        assert!(!dir.path().join("deep/boot.uart0.log").exists());
    }

    #[test]
    fn lines_of_two_consoles_stay_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot.log");
        fs_err::write(dir.path().join("boot.p2.log"), "an earlier boot's").unwrap();
        let names = named(&[(0, "hv"), (1, "p1"), (2, "p2")]);
        let mut transcript = Transcript::create(&path, &[], &names).unwrap();
        assert!(!dir.path().join("boot.p2.log").exists());
        for (second, channel, bytes) in [(1, 1, &b"one "[..]), (2, 0, b"HV> "), (3, 1, b"line\r"), (4, 1, b"\np1# ")] {
            transcript.console(Source::Channel(channel), Duration::from_secs(second), bytes).unwrap();
        }
        drop(transcript);
        let all = fs_err::read_to_string(&path).unwrap();
        assert!(all.contains("----\n[   1.000 p1] one line\n[   2.000 hv] HV> \n[   4.000 p1] p1# \n----"), "{all}");
        let own = fs_err::read_to_string(dir.path().join("boot.p1.log")).unwrap();
        assert_eq!(own, "[   1.000] one line\n[   4.000] p1# ");
    }

    #[test]
    fn a_flood_does_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot.log");
        let mut transcript = Transcript::create(&path, &[], &named(&[(0, "hv")])).unwrap();
        for _ in 0..(FILE_MAX / (1 << 20) + 4) {
            transcript.console(Source::Channel(0), Duration::ZERO, &[b'x'; 1 << 20]).unwrap();
        }
        drop(transcript);
        for file in ["boot.log", "boot.hv.log"] {
            let len = fs_err::metadata(dir.path().join(file)).unwrap().len();
            assert!((FILE_MAX - (2 << 20)..FILE_MAX + 4096).contains(&len), "{file}: {len}");
            let text = fs_err::read(dir.path().join(file)).unwrap();
            assert!(String::from_utf8_lossy(&text).contains("the rest is not kept"), "{file}");
        }
    }
}
