//! QEMU's machine protocol: one JSON object per line, over a socket (QEMU's `docs/interop/qmp-spec.txt`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use citrine_planner::diag::{Code, Diagnostic, Result};
use serde_json::{Value, json};

/// QEMU's monitor gives no or no usable answer.
pub const NO_ANSWER: Code = Code::new('Q', 107);

/// Longest line that is read: the register dump of 32 CPUs is far below it.
const LINE_MAX: usize = 4 << 20;
/// QEMU answers at once; this is for a host that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    version: String,
    next_id: u64,
}

impl Qmp {
    /// Takes the greeting and leaves the negotiation mode.
    ///
    /// # Errors
    /// [`NO_ANSWER`].
    pub fn connect(stream: UnixStream) -> Result<Self> {
        let mut qmp = Self { stream, received: Vec::new(), version: String::new(), next_id: 0 };
        let greeting = qmp.read_object(Instant::now() + PATIENCE)?;
        let version = &greeting["QMP"]["version"];
        let number = |part: &str| version["qemu"][part].as_u64();
        let (Some(major), Some(minor), Some(micro)) = (number("major"), number("minor"), number("micro")) else {
            return Err(no_answer("the greeting is not QEMU's"));
        };
        let package = version["package"].as_str().unwrap_or_default();
        qmp.version = super::console::harmless(format!("{major}.{minor}.{micro} {package}").trim().as_bytes());
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Release of QEMU and of its package.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs one command and returns its result; events that come in between are passed over.
    ///
    /// # Errors
    /// [`NO_ANSWER`], with QEMU's own words when it refuses.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.next_id += 1;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": self.next_id }).to_string();
        line.push('\n');
        self.stream
            .set_write_timeout(Some(PATIENCE))
            .and_then(|()| self.stream.write_all(line.as_bytes()))
            .map_err(|error| no_answer(&error.to_string()))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut object = self.read_object(deadline)?;
            if object["id"] != self.next_id {
                continue;
            }
            if let Some(why) = object["error"]["desc"].as_str() {
                let why = super::console::harmless(why.as_bytes());
                return Err(no_answer(&format!("it refuses `{command}`: {why}")));
            }
            return Ok(object["return"].take());
        }
    }

    /// Runs a command of the human monitor, such as `info tlb`, and returns its text.
    ///
    /// # Errors
    /// [`NO_ANSWER`].
    pub fn human(&mut self, line: &str) -> Result<String> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        answer.as_str().map(str::to_owned).ok_or_else(|| no_answer("the human monitor answers no text"))
    }

    fn read_object(&mut self, deadline: Instant) -> Result<Value> {
        let mut searched = 0;
        let end = loop {
            if let Some(at) = self.received[searched..].iter().position(|&byte| byte == b'\n') {
                break searched + at;
            }
            searched = self.received.len();
            if searched > LINE_MAX {
                return Err(no_answer("its line is too long"));
            }
            self.read_more(deadline)?;
        };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        serde_json::from_slice(&line).map_err(|error| no_answer(&format!("its line is no JSON: {error}")))
    }

    fn read_more(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(no_answer("it is silent"));
        }
        let mut buffer = [0; 4096];
        match self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut buffer)) {
            Ok(0) => Err(no_answer("the connection is closed")),
            Ok(len) => {
                self.received.extend_from_slice(&buffer[..len]);
                Ok(())
            }
            Err(error) => match error.kind() {
                // The deadline decides, at the next turn.
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
                _ => Err(no_answer(&error.to_string())),
            },
        }
    }
}

fn no_answer(why: &str) -> Box<Diagnostic> {
    Diagnostic::error(NO_ANSWER, format!("QEMU's monitor gives no usable answer: {why}"))
        .help("see what QEMU said in the transcript; a killed or stopped QEMU does not answer")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}}}"#;

    /// A server that greets, answers the handshake, then writes `answer` to the next command and closes.
    fn talk(answer: &'static [u8]) -> Result<Value> {
        let (client, mut server) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            writeln!(server, "{GREETING}").unwrap();
            let mut lines = BufReader::new(server.try_clone().unwrap()).lines();
            lines.next();
            writeln!(server, r#"{{"return": {{}}, "id": 1}}"#).unwrap();
            lines.next();
            let _ = server.write_all(answer);
        });
        let mut qmp = Qmp::connect(client)?;
        assert_eq!(qmp.version(), "7.2.22 x");
        let result = qmp.execute("query-status", json!({}));
        drop(qmp);
        server.join().unwrap();
        result
    }

    #[test]
    fn an_answer_is_found_behind_events_and_late_answers() {
        let lines = b"{\"event\": \"RESUME\"}\r\n{\"return\": 1, \"id\": 1}\n{\"return\": {\"a\": 2}, \"id\": 2}\n";
        assert_eq!(talk(lines).unwrap()["a"], 2);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for (bytes, why) in [
            (&b"{\"error\": {\"desc\": \"no such\\u001b command\"}, \"id\": 2}\n"[..], "no such\u{fffd} command"),
            (b"", "closed"),
            (b"{\n", "no JSON"),
            (b"\xff\xfe\n", "no JSON"),
        ] {
            let error = talk(bytes).unwrap_err();
            assert_eq!(error.code, NO_ANSWER);
            assert!(error.message.contains(why), "{}", error.message);
        }
    }

    #[test]
    fn a_line_without_end_is_cut_off() {
        let (client, mut server) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || while server.write_all(&[b' '; 65536]).is_ok() {});
        assert!(Qmp::connect(client).unwrap_err().message.contains("too long"));
        server.join().unwrap();
    }
}
