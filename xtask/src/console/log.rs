//! The transcript of one channel: a file that is added to, each line with the time of its first byte in UTC.

use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_err::File;

/// A file that has become longer than this gets `.old` behind its name, instead of the one that has it so far.
const FILE_MAX: u64 = 64 << 20;

/// A transcript that is being written.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: BufWriter<File>,
    len: u64,
    inside_line: bool,
}

impl Log {
    /// Opens it, and says in it that what follows comes from `line`.
    ///
    /// # Errors
    /// When it cannot be written; the path is in the message.
    pub fn open(path: &Path, line: &str, now: SystemTime) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        let len = file.metadata()?.len();
        let mut log = Self { path: path.to_path_buf(), file: BufWriter::new(file), len, inside_line: len > 0 };
        log.note(line, now)?;
        Ok(log)
    }

    /// Adds a line of the tool's own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&mut self, text: &str, now: SystemTime) -> io::Result<()> {
        let before = if std::mem::take(&mut self.inside_line) { "\n" } else { "" };
        self.put(format!("{before}---- {} {text} ----\n", utc(now)).as_bytes())
    }

    /// Adds what came now. Carriage returns are left out.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, bytes: &[u8], now: SystemTime) -> io::Result<()> {
        let plain: Vec<u8> = bytes.iter().copied().filter(|&byte| byte != b'\r').collect();
        for piece in plain.split_inclusive(|&byte| byte == b'\n') {
            if self.len >= FILE_MAX {
                self.start_again()?;
            }
            if !self.inside_line {
                self.put(format!("[{}] ", utc(now)).as_bytes())?;
            }
            self.put(piece)?;
            self.inside_line = !piece.ends_with(b"\n");
        }
        Ok(())
    }

    /// Brings everything to the disk's cache, for a reader who watches.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn start_again(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        fs_err::rename(&self.path, old)?;
        self.file = BufWriter::new(File::options().append(true).create(true).open(&self.path)?);
        (self.len, self.inside_line) = (0, false);
        Ok(())
    }
}

/// A time as `2026-11-23T01:40:00.123Z`.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for len in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}.{millis:03}Z", days + 1, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_are_those_of_date() {
        // From `date -u -d @N`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(at(seconds)), text);
        }
    }

    #[test]
    fn lines_have_the_time_of_their_first_byte_and_files_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("channel-1.log");
        let mut log = Log::open(&path, "a", at(0)).unwrap();
        for (second, bytes) in [(1, &b"one "[..]), (2, b"line\r"), (3, b"\n# ")] {
            log.write(bytes, at(second)).unwrap();
        }
        drop(log);
        Log::open(&path, "b", at(9)).unwrap();
        let time = |second: u64| format!("1970-01-01T00:00:0{second}.000Z");
        let wanted =
            format!("---- {} a ----\n[{}] one line\n[{}] # \n---- {} b ----\n", time(0), time(1), time(3), time(9));
        assert_eq!(fs_err::read_to_string(&path).unwrap(), wanted);
    }

    #[test]
    fn a_flood_does_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut log = Log::open(&path, "a", at(0)).unwrap();
        log.len = FILE_MAX - 1;
        for _ in 0..2 {
            log.write(b"before\n", at(0)).unwrap();
        }
        log.flush().unwrap();
        assert!(fs_err::read_to_string(dir.path().join("c.log.old")).unwrap().ends_with("] before\n"));
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "[1970-01-01T00:00:00.000Z] before\n");
    }
}
