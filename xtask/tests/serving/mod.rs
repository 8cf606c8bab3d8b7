//! `serve` against the clients that people have, and against packets that nobody should send.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::Checkout;

const DIRECTORY: &str = "p4080ds-two-linux";
/// What `serve` says of a client that no longer answers comes after eleven seconds.
const PATIENCE: Duration = Duration::from_secs(40);

/// A server that runs; it ends with its value.
struct Serving {
    child: Child,
    said: BufReader<ChildStdout>,
    port: u16,
    first: Value,
}

impl Serving {
    fn start(checkout: &Checkout) -> Self {
        let tar = checkout.tar();
        let mut command = checkout.command(&["serve", tar.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let first = next(&mut said).expect("it says where it listens");
        assert_eq!(first["type"], "serving", "{first:#}");
        let port = first["address"].as_str().unwrap().strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
        Self { child, said, port, first }
    }

    /// Ends it with a signal; everything that it has said since.
    fn end(mut self, signal: &str) -> Vec<Value> {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let said = std::iter::from_fn(|| next(&mut self.said)).collect();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "a signal is how it ends");
        said
    }

    /// Fetches a file with curl, with a block size of its own if one is given.
    fn curl(&self, name: &str, block: Option<u32>, to: &Path) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "60", "--path-as-is", "-o"]).arg(to);
        command.args(block.map(|block| format!("--tftp-blksize={block}")).iter().flat_map(|b| b.split('=')));
        command.arg(format!("tftp://127.0.0.1:{}/{name}", self.port)).stderr(Stdio::null());
        command
    }

    /// A socket that talks to it.
    fn socket(&self) -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    /// Asks until there is an answer: its length, and where it came from. Packets may be lost when many are sent.
    fn ask(&self, socket: &UdpSocket, packet: &[u8], answer: &mut [u8]) -> (usize, SocketAddr) {
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let answered = (0..PATIENCE.as_secs()).find_map(|_| {
            self.send(socket, packet);
            socket.recv_from(answer).ok()
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        answered.expect("an answer")
    }

    fn send(&self, socket: &UdpSocket, packet: &[u8]) {
        let _ = socket.send_to(packet, ("127.0.0.1", self.port));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next(said: &mut BufReader<ChildStdout>) -> Option<Value> {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
}

/// A request (RFC 1350): 1 reads, 2 writes. Options look like `blksize=512 tsize=0`.
fn request(kind: u8, name: &[u8], options: &str) -> Vec<u8> {
    let options: String = options.split_terminator([' ', '=']).map(|word| format!("{word}\0")).collect();
    [&[0, kind], name, b"\0octet\0", options.as_bytes()].concat()
}

/// The code of an error packet.
fn error(packet: &[u8]) -> Option<u8> {
    (packet.len() > 4 && packet[..3] == [0, 5, 0]).then(|| packet[3])
}

fn bundled() -> Checkout {
    let checkout = Checkout::new();
    checkout.bundle(&[]).result();
    checkout
}

#[test]
fn the_clients_that_people_have_get_the_verified_bytes_and_nothing_else() {
    let checkout = bundled();
    let (scratch, got) = (tempfile::tempdir().unwrap(), "got");
    let got = scratch.path().join(got);
    let image = std::fs::read(checkout.root().join(format!("artifacts/out/{DIRECTORY}.ram.img"))).unwrap();
    let files: Vec<(String, Vec<u8>)> = ["kernel.uImage", "hv.dtb", "boot.scr", "SHA256SUMS"]
        .map(|name| (name.to_owned(), std::fs::read(checkout.part(name)).unwrap()))
        .into_iter()
        .chain([(format!("{DIRECTORY}.ram.img"), image)])
        .collect();
    let serving = Serving::start(&checkout);
    assert_eq!(
        serving.first["commands"]["parts"],
        format!("tftp 0x78a00000 {DIRECTORY}/boot.scr && source 0x78a00000")
    );
    assert_eq!(serving.first["files"].as_array().unwrap().len(), 9);
    // What happens to the file does not matter any more.
    std::fs::write(checkout.tar(), "another").unwrap();

    let mut sent = 0;
    for (name, bytes) in &files {
        let image = bytes.len() > 16 << 20;
        for block in [None, Some(8), Some(1468), Some(65464)] {
            // Eight bytes at a time take long, and 512 leave the block numbers to count anew.
            if block == Some(8) && bytes.len() > 4096 {
                continue;
            }
            let _ = std::fs::remove_file(&got);
            assert!(serving.curl(name, block, &got).status().unwrap().success(), "{name} {block:?}");
            assert!(std::fs::read(&got).unwrap() == *bytes, "{name} {block:?}");
            sent += 1;
        }
        let asked = if image { name.clone() } else { format!("{DIRECTORY}/{name}") };
        let _ = std::fs::remove_file(&got);
        let port = serving.port.to_string();
        let mut client = Command::new("tftp");
        client.args(["-m", "binary", "127.0.0.1", &port, "-c", "get", &asked]).arg(&got);
        assert!(client.output().unwrap().status.success());
        assert!(std::fs::read(&got).unwrap() == *bytes, "{asked}");
        sent += 1;
    }

    let refused = ["../p4080ds.toml", "/etc/passwd", "", "boot.scr/", "./boot.scr", "x/boot.scr", "%2e%2e/boot.scr"];
    for name in refused {
        let _ = std::fs::remove_file(&got);
        assert!(!serving.curl(name, None, &got).status().unwrap().success(), "{name}");
        assert!(std::fs::read(&got).unwrap_or_default().is_empty(), "{name}");
    }
    let upload = checkout.part("hv.dtb");
    let url = format!("tftp://127.0.0.1:{}/hv.dtb", serving.port);
    let status = Command::new("curl").args(["-sS", "-T"]).arg(&upload).arg(url).stderr(Stdio::null()).status();
    assert!(!status.unwrap().success());

    let said = serving.end("INT");
    let of = |kind: &str| said.iter().filter(|object| object["type"] == kind).cloned().collect::<Vec<_>>();
    assert_eq!(of("refused").len(), refused.len() + 1, "{:#?}", of("refused"));
    assert_eq!(of("refused").last().unwrap()["why"], "nothing can be written");
    let transfers = of("transfer").into_iter().filter(|object| object["state"] == "sent");
    assert_eq!(transfers.count(), sent);
    assert_eq!(said.last().unwrap(), &serde_json::json!({ "type": "served", "sent": sent }));
}

#[test]
fn many_clients_are_served_at_once() {
    let checkout = bundled();
    let scratch = tempfile::tempdir().unwrap();
    let serving = Serving::start(&checkout);
    let bytes = std::fs::read(checkout.part("kernel.uImage")).unwrap();
    let to = |client: usize| scratch.path().join(client.to_string());
    let clients: Vec<Child> =
        (0..12).map(|client| serving.curl("kernel.uImage", None, &to(client)).spawn().unwrap()).collect();
    for (client, mut child) in clients.into_iter().enumerate() {
        assert!(child.wait().unwrap().success());
        assert!(std::fs::read(to(client)).unwrap() == bytes, "{client}");
    }
    assert_eq!(serving.end("TERM").last().unwrap()["sent"], 12);
}

/// A generator of numbers that is the same in every run (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

#[test]
fn packets_that_nobody_should_send_do_no_harm() {
    let checkout = bundled();
    let scratch = tempfile::tempdir().unwrap();
    let got = scratch.path().join("got");
    let serving = Serving::start(&checkout);

    // Requests that are refused are answered.
    for (packet, code) in [
        (request(1, b"../../etc/passwd", ""), 1),
        (request(1, &[b'a'; 3000], ""), 1),
        (request(1, &[b'/'; 1000], "blksize=65464 tsize=0"), 1),
        (request(2, b"boot.scr", ""), 2),
        (request(2, b"../boot.scr", "tsize=18446744073709551615"), 2),
    ] {
        let mut answer = [0; 2048];
        let (len, _) = serving.ask(&serving.socket(), &packet, &mut answer);
        assert_eq!(error(&answer[..len]), Some(code), "{:?}", String::from_utf8_lossy(&packet));
    }

    let socket = serving.socket();
    let mut random = Random(0x2026_1123);
    let good = [
        request(1, b"boot.scr", "blksize=1468 tsize=0 timeout=5 windowsize=64"),
        request(1, b"nothing", "blksize=0 windowsize=65535"),
        request(2, b"boot.scr", "tsize=99"),
        [&[0, 3, 0, 1], &[7; 512][..]].concat(),
        vec![0, 4, 0, 0],
        b"\0\x05\0\0gone\0".to_vec(),
        b"\0\x06blksize\x00512\0".to_vec(),
    ];
    for round in 0..20_000 {
        let mut packet = good[random.below(good.len())].clone();
        for _ in 0..random.below(4) {
            let at = random.below(packet.len());
            packet[at] = random.next().to_le_bytes()[0];
        }
        match random.below(8) {
            0 => packet.truncate(random.below(packet.len() + 1)),
            1 => packet.extend(std::iter::repeat_n(packet[0], random.below(5000))),
            2 if round % 100 == 0 => packet.resize(65_000, b'x'),
            _ => {}
        }
        serving.send(&socket, &packet);
    }

    // Answers to the data of a transfer: from a stranger, and nonsense from the client itself.
    let (client, stranger) = (serving.socket(), serving.socket());
    let expected = std::fs::read(checkout.part("hv.dtb")).unwrap();
    let mut bytes = Vec::new();
    let mut block = [0; 2048];
    let (mut len, from) = serving.ask(&client, &request(1, b"hv.dtb", ""), &mut block);
    loop {
        assert_eq!(block[..2], [0, 3]);
        stranger.send_to(&[0, 4, 0xff, 0xff], from).unwrap();
        for nonsense in [&b""[..], b"\0", b"\0\x04", &[0xff; 1500], b"\0\x04\0\x63", b"\0\x04\0\x01x"] {
            client.send_to(nonsense, from).unwrap();
        }
        let number = u16::from_be_bytes([block[2], block[3]]);
        if usize::from(number) == bytes.len() / 512 + 1 {
            bytes.extend_from_slice(&block[4..len]);
        }
        client.send_to(&[&[0, 4], &number.to_be_bytes()[..]].concat(), from).unwrap();
        if !bytes.len().is_multiple_of(512) {
            break;
        }
        len = client.recv(&mut block).unwrap();
    }
    assert!(bytes == expected);

    let kernel = std::fs::read(checkout.part("kernel.uImage")).unwrap();
    assert!(serving.curl("kernel.uImage", None, &got).status().unwrap().success());
    assert!(std::fs::read(&got).unwrap() == kernel);
    let said = serving.end("INT");
    assert!(said.iter().any(|object| object["file"] == "kernel.uImage" && object["state"] == "sent"));
}

#[test]
fn clients_that_go_silent_are_given_up() {
    let checkout = bundled();
    let scratch = tempfile::tempdir().unwrap();
    let got = scratch.path().join("got");
    let serving = Serving::start(&checkout);
    let silent: Vec<UdpSocket> = (0..64).map(|_| serving.socket()).collect();
    let mut answer = [0; 2048];
    for socket in &silent {
        let (len, _) = serving.ask(socket, &request(1, b"boot.scr", "blksize=1468"), &mut answer);
        assert_eq!(answer[..2], [0, 6], "{:?}", &answer[..len]);
    }
    let late = serving.socket();
    let (len, _) = serving.ask(&late, &request(1, b"boot.scr", ""), &mut answer);
    // U-Boot asks again after this one.
    assert_eq!(error(&answer[..len]), Some(0), "{:?}", &answer[..len]);
    let until = Instant::now() + PATIENCE;
    while !serving.curl("boot.scr", None, &got).args(["--max-time", "2"]).status().unwrap().success() {
        assert!(Instant::now() < until, "nobody is served any more");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(std::fs::read(&got).unwrap() == std::fs::read(checkout.part("boot.scr")).unwrap());
    // The last of them may still be waited for when the first has gone.
    std::thread::sleep(Duration::from_secs(2));
    let said = serving.end("INT");
    let count = |state: &str| said.iter().filter(|object| object["state"] == state).count();
    assert_eq!((count("given-up"), count("sent")), (64, 1));
}

#[test]
fn nothing_is_served_before_the_signature_holds() {
    let checkout = bundled();
    let mut bytes = std::fs::read(checkout.tar()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(checkout.tar(), bytes).unwrap();
    let tar = checkout.tar();
    let refused = checkout.run(&["serve", tar.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.error()["code"], "B107");
    assert_eq!(refused.objects.len(), 1, "{:#?}", refused.objects);
}
