//! The forgeries, by name: what a forger changes, and the code that refuses it.
//!
//! The letter is the class of attack: A the signature does not cover what is used, B two parsers, C header
//! fields, D extraction, E bombs, F change between check and use, G absent taken for accepted, H mix and match,
//! J names that a script would run, L secrets. F cannot be written down as a file: a bundle is read once.

use ssh_key::PrivateKey;
use ssh_key::private::Ed25519Keypair;

use crate::bundle::{Forge, Member, archive, assembled, stranger, trusted};

pub struct Mutation {
    pub class: char,
    pub name: &'static str,
    pub code: &'static str,
    pub forge: fn(&mut Forge),
}

macro_rules! mutations {
    ($($class:literal $name:literal $code:literal $forge:expr;)*) => {
        pub const MUTATIONS: &[Mutation] =
            &[$(Mutation { class: $class, name: $name, code: $code, forge: $forge }),*];
    };
}

const SIG: &str = "manifest.json.sig";

/// A manifest that the owner of the key did sign, though no tool of ours writes it: the reader must not rely
/// on the signer's care.
fn signed(forge: &mut Forge, from: &str, to: &str) {
    forge.edit(from, to);
    forge.sign(&[trusted()]);
}

fn edit_signature(forge: &mut Forge, change: fn(String) -> String) {
    let member = forge.member(SIG);
    let text = String::from_utf8(member.data.clone()).unwrap();
    let changed = change(text.clone());
    assert_ne!(changed, text);
    member.set_data(changed.into_bytes());
}

fn other() -> Forge {
    Forge::of(&archive(&assembled("t2080rdb", "two-linux", 0x5a), &[trusted()]))
}

/// The extended header of POSIX tar that gives the next file another name or size.
fn pax(record: &str) -> Member {
    let len = record.len() + 4;
    let mut member = Member::new("pax", format!("{len} {record}\n").into_bytes());
    member.poke(156, b"x");
    member
}

mutations! {
    'A' "part-byte" "B107" |f| f.member("uImage").data[100] ^= 1;
    'A' "part-longer" "B107" |f| { let m = f.member("uImage"); let mut d = m.data.clone(); d.push(0); m.set_data(d) };
    'A' "part-shorter" "B107" |f| { let m = f.member("uImage"); let mut d = m.data.clone(); d.pop(); m.set_data(d) };
    'A' "part-empty" "B107" |f| f.member("boot.scr").set_data(Vec::new());
    'A' "checksums-rewritten" "B107" |f| f.member("SHA256SUMS").data[0] ^= 1;
    'A' "manifest-board" "B104" |f| f.edit("p4080ds", "t2080rdb");
    'A' "manifest-hash" "B104" |f| f.edit("\"sha256\": \"", "\"sha256\": \"0");
    'A' "manifest-space" "B104" |f| f.edit("\n}\n", "\n }\n");
    'A' "part-added" "B106" |f| f.members.push(Member::new("extra", b"x".to_vec()));
    'A' "part-added-first" "B106" |f| f.members.insert(2, Member::new("extra", b"x".to_vec()));
    'A' "part-removed" "B106" |f| { f.members.pop(); };
    'A' "parts-removed" "B106" |f| f.members.truncate(2);

    'B' "member-twice" "B106" |f| { let m = f.member("uImage").clone(); let i = f.index("uImage"); f.members.insert(i, m) };
    'B' "member-twice-last" "B106" |f| { let m = f.member("uImage").clone(); f.members.push(m) };
    'B' "manifest-twice" "B102" |f| { let m = f.members[0].clone(); f.members.insert(1, m) };
    'B' "manifest-again-at-the-end" "B106" |f| { let m = f.members[0].clone(); f.members.push(m) };
    'B' "pax-size" "B109" |f| { let i = f.index("uImage"); f.members.insert(i, pax("size=1")) };
    'B' "pax-path" "B109" |f| { let i = f.index("uImage"); f.members.insert(i, pax("path=x")) };
    'B' "pax-global-first" "B109" |f| { let mut m = pax("path=x"); m.poke(156, b"g"); f.members.insert(0, m) };
    'B' "gnu-long-name" "B109" |f| { let mut m = Member::new("././@LongLink", b"x\0".to_vec()); m.poke(156, b"L"); f.members.insert(2, m) };
    'B' "gnu-magic" "B109" |f| f.member("uImage").poke(257, b"ustar  \0");
    'B' "old-tar" "B109" |f| f.member("uImage").poke(257, &[0; 8]);
    'B' "old-regular-type" "B109" |f| f.member("uImage").poke(156, b"\0");
    'B' "contiguous-type" "B109" |f| f.member("uImage").poke(156, b"7");
    'B' "sparse-type" "B109" |f| f.member("uImage").poke(156, b"S");
    'B' "size-in-base-256" "B109" |f| f.member("uImage").poke(124, b"\x80\0\0\0\0\0\0\0\0\0\x02\xfc");
    'B' "size-with-blanks" "B109" |f| f.member("boot.scr").poke(124, b"       142 \0");
    'B' "size-ends-in-blank" "B109" |f| f.member("boot.scr").poke(135, b" ");
    'B' "checksum-wrong" "B109" |f| f.member("uImage").header[150] ^= 1;
    'B' "checksum-spelled-otherwise" "B109" |f| { let h = &mut f.member("uImage").header; h.copy_within(149..155, 148); h[154] = 0; h[155] = b' ' };
    'B' "padding-not-zero" "B109" |f| f.member("uImage").padding[0] = 1;
    'B' "last-padding-not-zero" "B109" |f| { *f.members.last_mut().unwrap().padding.last_mut().unwrap() = 1 };
    'B' "key-twice" "B105" |f| signed(f, "\"epoch\": 0", "\"epoch\": 0,\n  \"epoch\": 0");
    'B' "key-unknown" "B105" |f| signed(f, "\"epoch\": 0", "\"dev\": 1,\n  \"epoch\": 0");
    'B' "key-missing" "B105" |f| signed(f, "  \"epoch\": 0,\n", "");
    'B' "keys-reordered" "B105" |f| signed(f, "  \"core\": \"e500mc\",\n  \"epoch\": 0,", "  \"epoch\": 0,\n  \"core\": \"e500mc\",");
    'B' "number-float" "B105" |f| signed(f, "\"epoch\": 0", "\"epoch\": 0.0");
    'B' "number-exponent" "B105" |f| signed(f, "\"epoch\": 0", "\"epoch\": 1e1");
    'B' "number-negative" "B105" |f| signed(f, "\"epoch\": 0", "\"epoch\": -1");
    'B' "number-nan" "B105" |f| signed(f, "\"epoch\": 0", "\"epoch\": NaN");
    'B' "text-escaped" "B105" |f| signed(f, "two-linux", "two\\u002dlinux");
    'B' "byte-order-mark" "B105" |f| { let mut d = b"\xef\xbb\xbf".to_vec(); d.extend(&f.members[0].data); f.members[0].set_data(d); f.sign(&[trusted()]) };
    'B' "json-behind-json" "B105" |f| signed(f, "\n}\n", "\n}\n{}\n");
    'B' "not-json" "B105" |f| { f.members[0].set_data(b"\0\xff".to_vec()); f.sign(&[trusted()]) };
    'B' "other-format" "B105" |f| signed(f, "\"format\": 1", "\"format\": 2");

    'C' "size-beyond-32-bits" "B105" |f| signed(f, "\"size\": ", "\"size\": 9999999999");
    'C' "size-larger-than-window" "B105" |f| signed(f, "\"window\": 65536", "\"window\": 10");
    'C' "load-wraps-around" "B105" |f| signed(f, "\"load\": 3758227456", "\"load\": 18446744073709551615");
    'C' "slots-twice" "B105" |f| signed(f, "\"media\": \"nor\"", "\"media\": \"ram\"");
    'C' "role-unknown" "B105" |f| signed(f, "\"kernel\"", "\"bootloader\"");
    'C' "archive-size-other" "B107" |f| f.member("boot.scr").poke(124, b"00000000143\0");
    'C' "archive-size-huge" "B107" |f| f.member("SHA256SUMS").poke(124, b"77777777777\0");

    'D' "name-absolute" "B105" |f| { signed(f, "\"uImage\"", "\"/etc/passwd\""); f.member("uImage").rename("/etc/passwd") };
    'D' "name-upwards" "B105" |f| { signed(f, "\"uImage\"", "\"../uImage\""); f.member("uImage").rename("../uImage") };
    'D' "name-in-a-directory" "B105" |f| { signed(f, "\"uImage\"", "\"a/uImage\""); f.member("uImage").rename("a/uImage") };
    'D' "name-hidden" "B105" |f| { signed(f, "\"uImage\"", "\".uImage\""); f.member("uImage").rename(".uImage") };
    'D' "name-of-the-manifest" "B105" |f| { signed(f, "\"uImage\"", "\"manifest.json\""); f.member("uImage").rename("manifest.json") };
    'D' "names-that-differ-in-case" "B105" |f| { signed(f, "\"boot.scr\"", "\"UIMAGE\""); f.member("boot.scr").rename("UIMAGE") };
    'D' "name-empty" "B105" |f| { signed(f, "\"uImage\"", "\"\""); f.member("uImage").rename("") };
    'D' "name-changed" "B106" |f| f.member("uImage").rename("uimage");
    'D' "name-upwards-unsigned" "B106" |f| f.member("uImage").rename("../uImage");
    'D' "prefix" "B109" |f| f.member("uImage").poke(345, b"..");
    'D' "symbolic-link" "B109" |f| { let m = f.member("uImage"); m.poke(156, b"2"); m.poke(157, b"/etc/passwd") };
    'D' "hard-link" "B109" |f| { let m = f.member("uImage"); m.poke(156, b"1"); m.poke(157, b"manifest.json") };
    'D' "link-name-of-a-file" "B109" |f| f.member("uImage").poke(157, b"x");
    'D' "device" "B109" |f| f.member("uImage").poke(156, b"3");
    'D' "directory" "B109" |f| { let mut m = Member::new("d", Vec::new()); m.poke(156, b"5"); f.members.insert(2, m) };
    'D' "fifo" "B109" |f| f.member("uImage").poke(156, b"6");
    'D' "mode-setuid" "B109" |f| f.member("uImage").poke(100, b"0004755\0");
    'D' "owner" "B109" |f| f.member("uImage").poke(108, b"0001750\0");
    'D' "owner-name" "B109" |f| f.member("uImage").poke(265, b"root");
    'D' "time" "B109" |f| f.member("uImage").poke(136, b"14524770000\0");
    'D' "every-time" "B109" |f| f.members.iter_mut().for_each(|m| m.poke(136, b"14524770000\0"));

    'E' "manifest-too-long" "B105" |f| f.members[0].set_data(vec![b' '; (1 << 20) + 1]);
    'E' "manifest-size-huge" "B105" |f| f.members[0].poke(124, b"77777777777\0");
    'E' "signature-too-long" "B104" |f| f.member(SIG).set_data(vec![b'A'; 5000]);
    'E' "deep-nesting" "B105" |f| { f.members[0].set_data("[".repeat(100_000).into_bytes()); f.sign(&[trusted()]) };
    'E' "seventeen-signatures" "B106" |f| { let mut keys: Vec<_> = (1..=17).map(|n| PrivateKey::from(Ed25519Keypair::from_seed(&[n; 32]))).collect(); keys.sort_by_key(|k| k.fingerprint(ssh_key::HashAlg::Sha256).sha256()); f.sign(&keys) };
    'E' "endless-end" "B108" |f| f.end.extend([0; 1 << 16]);

    'G' "no-signature" "B102" |f| { f.members.remove(1); };
    'G' "only-the-manifest" "B102" |f| f.members.truncate(1);
    'G' "no-manifest" "B101" |f| { f.members.remove(0); };
    'G' "empty-archive" "B101" |f| f.members.clear();
    'G' "signature-empty" "B104" |f| f.member(SIG).set_data(Vec::new());
    'G' "signature-late" "B102" |f| { let m = f.members.remove(1); f.members.push(m) };
    'G' "signature-second-name" "B102" |f| f.member(SIG).rename("manifest.json.2.sig");
    'G' "signature-by-a-stranger" "B103" |f| f.sign(&[stranger()]);
    'G' "signature-of-another-text" "B104" |f| { let s = other().members[1].clone(); f.members[1] = s };
    'G' "signature-for-another-purpose" "B104" |f| f.sign_as("git", &[trusted()]);
    'G' "signature-twice" "B104" |f| f.sign(&[trusted(), trusted()]);
    'G' "signatures-out-of-order" "B104" |f| { f.sign(&[trusted(), stranger()]); let (a, b) = (f.members[1].data.clone(), f.members[2].data.clone()); if crate::ordered(&trusted(), &stranger()) { f.members[1].set_data(b); f.members[2].set_data(a) } };
    'G' "strangers-signature-broken" "B104" |f| { let mut keys = [trusted(), stranger()]; if !crate::ordered(&keys[0], &keys[1]) { keys.reverse() } f.sign(&keys); let n = f.members.iter().position(|m| m.name().ends_with(".sig") && m.data == signature_of(f, &stranger())).unwrap(); f.members[n].data[200] ^= 1 };
    'G' "signature-with-blank-line" "B104" |f| edit_signature(f, |t| t + "\n");
    'G' "signature-with-other-line-ends" "B104" |f| edit_signature(f, |t| t.replace('\n', "\r\n"));
    'G' "signature-wrapped-otherwise" "B104" |f| edit_signature(f, |t| t.replacen("\nU", "\nU\n", 1));
    'G' "signature-version-zero" "B104" |f| edit_signature(f, |t| t.replacen("U1NIU0lHAAAAAQ", "U1NIU0lHAAAAAA", 1));
    'G' "signature-armour-of-a-key" "B104" |f| edit_signature(f, |t| t.replace("SSH SIGNATURE", "OPENSSH PRIVATE KEY"));

    'H' "part-of-another-bundle" "B107" |f| { let m = other().member("uImage").clone(); *f.member("uImage") = m };
    'H' "parts-swapped" "B106" |f| f.members.swap(2, 3);
    'H' "parts-swapped-under-their-names" "B107" |f| { let d = f.members[2].data.clone(); let e = f.members[3].data.clone(); f.members[2].set_data(e); f.members[3].set_data(d) };
    'H' "manifest-of-another-bundle" "B104" |f| { let m = other().members[0].clone(); f.members[0] = m };
    'H' "manifest-and-signature-of-another" "B107" |f| { let o = other(); f.members[0] = o.members[0].clone(); f.members[1] = o.members[1].clone() };
    'H' "manifest-not-first" "B101" |f| f.members.swap(0, 2);
    'H' "signature-first" "B101" |f| f.members.swap(0, 1);

    'J' "name-with-a-command" "B105" |f| { signed(f, "\"uImage\"", "\"x;reset\""); f.member("uImage").rename("x;reset") };
    'J' "name-with-a-variable" "B105" |f| { signed(f, "\"uImage\"", "\"$x\""); f.member("uImage").rename("$x") };
    'J' "name-like-an-option" "B105" |f| { signed(f, "\"uImage\"", "\"-rf\""); f.member("uImage").rename("-rf") };
    'J' "name-with-an-escape" "B105" |f| signed(f, "\"p4080ds\"", "\"\\u001b[2J\"");
    'J' "board-with-a-blank" "B105" |f| signed(f, "\"p4080ds\"", "\"p4080 ds\"");
    'J' "origin-with-an-escape" "B105" |f| signed(f, "https://example.org", "\\u001b]0;x\\u0007");

    'A' "cut-in-the-middle" "B108" |f| { f.end.clear(); f.members.last_mut().unwrap().padding.clear() };
    'A' "no-end" "B108" |f| f.end.clear();
    'A' "one-block-at-the-end" "B108" |f| f.end.truncate(512);
    'A' "end-not-zero" "B108" |f| f.end[600] = 1;
    'B' "archive-behind-archive" "B108" |f| { let again = f.to_bytes(); f.end.extend(again) };
    'B' "record-padding-of-gnu-tar" "B108" |f| f.end.resize(10240, 0);
    'B' "byte-behind-the-end" "B108" |f| f.end.push(0);
    'L' "not-a-bundle-but-a-key" "B101" |f| { f.members.clear(); f.end = trusted().to_openssh(ssh_key::LineEnding::LF).unwrap().as_bytes().repeat(3) };
    'B' "compressed" "B101" |f| { f.members.clear(); f.end = b"\x1f\x8b\x08\0\0\0\0\0".repeat(200) };
}

fn signature_of(forge: &Forge, key: &PrivateKey) -> Vec<u8> {
    let mut copy = forge.clone();
    copy.sign(std::slice::from_ref(key));
    copy.member(SIG).data.clone()
}
