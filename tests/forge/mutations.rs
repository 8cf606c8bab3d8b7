//! The forged bundles: what a forger changes. Each is called as its directory here, whose `expected.txt` says what the
//! tool says of it.

use citrine_formats::signature;
use ssh_key::PrivateKey;

use crate::bundle::{Forge, Member, archive, assembled, crew, firmware, good, stranger, trusted};

/// A forgery, and how it is made of the good bundle.
pub struct Mutation {
    pub name: &'static str,
    pub forge: fn(&mut Forge),
}

macro_rules! mutations {
    ($($name:literal $forge:expr;)*) => {
        pub const MUTATIONS: &[Mutation] = &[$(Mutation { name: $name, forge: $forge }),*];
    };
}

/// The bundle with this name, with or without class and number in front; `none` is the good one, and
/// `unsigned-configuration` is good, too, for those who do not demand more.
pub fn forged(name: &str) -> Option<Vec<u8>> {
    if name == "none" {
        return Some(good());
    }
    if name == "unsigned-configuration" {
        let mut forge = Forge::good();
        forge.member(TREE_SIG).set_data(vec![0; signature::LEN]);
        return Some(forge.to_bytes());
    }
    let mutation = MUTATIONS.iter().find(|mutation| mutation.name == name || mutation.name.get(5..) == Some(name))?;
    let mut forge = Forge::good();
    (mutation.forge)(&mut forge);
    Some(forge.to_bytes())
}

const SIG: &str = "manifest.json.sig";
const TREE_SIG: &str = "hv.dtb.sig";

/// A signature over the configuration tree with nothing that fits but its length.
fn tree_signed(forge: &mut Forge, key: &PrivateKey, namespace: &str, hash: ssh_key::HashAlg) {
    let tree = forge.member("hv.dtb").data.clone();
    let made = key.sign(namespace, hash, &tree).unwrap();
    let public = citrine_planner::pack::configuration_key(key.public_key()).unwrap();
    let blob = signature::blob(&public, made.signature_bytes().try_into().unwrap());
    // Both names have the length of those that belong there.
    let mut blob = blob.to_vec();
    blob[69..83].copy_from_slice(namespace.as_bytes());
    blob[91..97].copy_from_slice(hash.as_str().as_bytes());
    forge.member(TREE_SIG).set_data(blob);
}

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
    "A-01-part-byte" |f| f.member("uImage").data[100] ^= 1;
    "A-02-part-longer" |f| { let m = f.member("uImage"); let mut d = m.data.clone(); d.push(0); m.set_data(d) };
    "A-03-part-shorter" |f| { let m = f.member("uImage"); let mut d = m.data.clone(); d.pop(); m.set_data(d) };
    "A-04-part-empty" |f| f.member("boot.scr").set_data(Vec::new());
    "A-05-checksums-rewritten" |f| f.member("SHA256SUMS").data[0] ^= 1;
    "A-06-manifest-board" |f| f.edit("p4080ds", "t2080rdb");
    "A-07-manifest-hash" |f| f.edit("\"sha256\": \"", "\"sha256\": \"0");
    "A-08-manifest-space" |f| f.edit("\n}\n", "\n }\n");
    "A-09-part-added" |f| f.members.push(Member::new("extra", b"x".to_vec()));
    "A-10-part-added-first" |f| f.members.insert(2, Member::new("extra", b"x".to_vec()));
    "A-11-part-removed" |f| { f.members.pop(); };
    "A-12-parts-removed" |f| f.members.truncate(2);

    "B-01-member-twice" |f| { let m = f.member("uImage").clone(); let i = f.index("uImage"); f.members.insert(i, m) };
    "B-02-member-twice-last" |f| { let m = f.member("uImage").clone(); f.members.push(m) };
    "B-03-manifest-twice" |f| { let m = f.members[0].clone(); f.members.insert(1, m) };
    "B-04-manifest-again-at-the-end" |f| { let m = f.members[0].clone(); f.members.push(m) };
    "B-05-pax-size" |f| { let i = f.index("uImage"); f.members.insert(i, pax("size=1")) };
    "B-06-pax-path" |f| { let i = f.index("uImage"); f.members.insert(i, pax("path=x")) };
    "B-07-pax-global-first" |f| { let mut m = pax("path=x"); m.poke(156, b"g"); f.members.insert(0, m) };
    "B-08-gnu-long-name" |f| { let mut m = Member::new("././@LongLink", b"x\0".to_vec()); m.poke(156, b"L"); f.members.insert(2, m) };
    "B-09-gnu-magic" |f| f.member("uImage").poke(257, b"ustar  \0");
    "B-10-old-tar" |f| f.member("uImage").poke(257, &[0; 8]);
    "B-11-old-regular-type" |f| f.member("uImage").poke(156, b"\0");
    "B-12-contiguous-type" |f| f.member("uImage").poke(156, b"7");
    "B-13-sparse-type" |f| f.member("uImage").poke(156, b"S");
    "B-14-size-in-base-256" |f| f.member("uImage").poke(124, b"\x80\0\0\0\0\0\0\0\0\0\x02\xfc");
    "B-15-size-with-blanks" |f| f.member("boot.scr").poke(124, b"       142 \0");
    "B-16-size-ends-in-blank" |f| f.member("boot.scr").poke(135, b" ");
    "B-17-checksum-wrong" |f| f.member("uImage").header[150] ^= 1;
    "B-18-checksum-spelled-otherwise" |f| { let h = &mut f.member("uImage").header; h.copy_within(149..155, 148); h[154] = 0; h[155] = b' ' };
    "B-19-padding-not-zero" |f| f.member("uImage").padding[0] = 1;
    "B-20-last-padding-not-zero" |f| { *f.members.last_mut().unwrap().padding.last_mut().unwrap() = 1 };
    "B-21-key-twice" |f| signed(f, "\"epoch\": 0", "\"epoch\": 0,\n  \"epoch\": 0");
    "B-22-key-unknown" |f| signed(f, "\"epoch\": 0", "\"dev\": 1,\n  \"epoch\": 0");
    "B-23-key-missing" |f| signed(f, "  \"epoch\": 0,\n", "");
    "B-24-keys-reordered" |f| signed(f, "  \"core\": \"e500mc\",\n  \"epoch\": 0,", "  \"epoch\": 0,\n  \"core\": \"e500mc\",");
    "B-25-number-float" |f| signed(f, "\"epoch\": 0", "\"epoch\": 0.0");
    "B-26-number-exponent" |f| signed(f, "\"epoch\": 0", "\"epoch\": 1e1");
    "B-27-number-negative" |f| signed(f, "\"epoch\": 0", "\"epoch\": -1");
    "B-28-number-nan" |f| signed(f, "\"epoch\": 0", "\"epoch\": NaN");
    "B-29-text-escaped" |f| signed(f, "two-linux", "two\\u002dlinux");
    "B-30-byte-order-mark" |f| { let mut d = b"\xef\xbb\xbf".to_vec(); d.extend(&f.members[0].data); f.members[0].set_data(d); f.sign(&[trusted()]) };
    "B-31-json-behind-json" |f| signed(f, "\n}\n", "\n}\n{}\n");
    "B-32-not-json" |f| { f.members[0].set_data(b"\0\xff".to_vec()); f.sign(&[trusted()]) };
    "B-33-other-format" |f| signed(f, "\"format\": 2", "\"format\": 1");

    "C-01-size-beyond-32-bits" |f| signed(f, "\"size\": ", "\"size\": 9999999999");
    "C-02-size-larger-than-window" |f| signed(f, "\"window\": 65536", "\"window\": 10");
    "C-03-load-wraps-around" |f| signed(f, "\"load\": 3758227456", "\"load\": 18446744073709551615");
    "C-04-slots-twice" |f| signed(f, "\"media\": \"nor\"", "\"media\": \"ram\"");
    "C-05-role-unknown" |f| signed(f, "\"kernel\"", "\"bootloader\"");
    "C-06-archive-size-other" |f| f.member("boot.scr").poke(124, b"00000000143\0");
    "C-07-archive-size-huge" |f| f.member("SHA256SUMS").poke(124, b"77777777777\0");

    "D-01-name-absolute" |f| { signed(f, "\"uImage\"", "\"/etc/passwd\""); f.member("uImage").rename("/etc/passwd") };
    "D-02-name-upwards" |f| { signed(f, "\"uImage\"", "\"../uImage\""); f.member("uImage").rename("../uImage") };
    "D-03-name-in-a-directory" |f| { signed(f, "\"uImage\"", "\"a/uImage\""); f.member("uImage").rename("a/uImage") };
    "D-04-name-hidden" |f| { signed(f, "\"uImage\"", "\".uImage\""); f.member("uImage").rename(".uImage") };
    "D-05-name-of-the-manifest" |f| { signed(f, "\"uImage\"", "\"manifest.json\""); f.member("uImage").rename("manifest.json") };
    "D-06-names-that-differ-in-case" |f| { signed(f, "\"boot.scr\"", "\"UIMAGE\""); f.member("boot.scr").rename("UIMAGE") };
    "D-07-name-empty" |f| { signed(f, "\"uImage\"", "\"\""); f.member("uImage").rename("") };
    "D-08-name-changed" |f| f.member("uImage").rename("uimage");
    "D-09-name-upwards-unsigned" |f| f.member("uImage").rename("../uImage");
    "D-10-prefix" |f| f.member("uImage").poke(345, b"..");
    "D-11-symbolic-link" |f| { let m = f.member("uImage"); m.poke(156, b"2"); m.poke(157, b"/etc/passwd") };
    "D-12-hard-link" |f| { let m = f.member("uImage"); m.poke(156, b"1"); m.poke(157, b"manifest.json") };
    "D-13-link-name-of-a-file" |f| f.member("uImage").poke(157, b"x");
    "D-14-device" |f| f.member("uImage").poke(156, b"3");
    "D-15-directory" |f| { let mut m = Member::new("d", Vec::new()); m.poke(156, b"5"); f.members.insert(2, m) };
    "D-16-fifo" |f| f.member("uImage").poke(156, b"6");
    "D-17-mode-setuid" |f| f.member("uImage").poke(100, b"0004755\0");
    "D-18-owner" |f| f.member("uImage").poke(108, b"0001750\0");
    "D-19-owner-name" |f| f.member("uImage").poke(265, b"root");
    "D-20-time" |f| f.member("uImage").poke(136, b"14524770000\0");
    "D-21-every-time" |f| f.members.iter_mut().for_each(|m| m.poke(136, b"14524770000\0"));

    "E-01-manifest-too-long" |f| f.members[0].set_data(vec![b' '; (1 << 20) + 1]);
    "E-02-manifest-size-huge" |f| f.members[0].poke(124, b"77777777777\0");
    "E-03-signature-too-long" |f| f.member(SIG).set_data(vec![b'A'; 5000]);
    "E-04-deep-nesting" |f| { f.members[0].set_data("[".repeat(100_000).into_bytes()); f.sign(&[trusted()]) };
    "E-05-seventeen-signatures" |f| { let mut keys: Vec<_> = crew().chain([trusted()]).collect(); keys.sort_by_key(|k| k.fingerprint(ssh_key::HashAlg::Sha256).sha256()); f.sign(&keys) };
    "E-06-endless-end" |f| f.end.extend([0; 1 << 16]);

    "F-01-rewritten-while-it-is-read" |f| { let o = other(); f.members.truncate(3); f.members.extend_from_slice(&o.members[3..]) };
    "F-02-cut-while-it-is-read" |f| { f.members.truncate(3); let m = &mut f.members[2]; m.data.truncate(100); m.padding.clear(); f.end.clear() };
    "F-03-grown-while-it-is-read" |f| f.member("uImage").data.extend([0xa5; 512]);
    "F-04-replaced-while-it-is-read" |f| { let whole = f.to_bytes(); let o = other().to_bytes(); f.members.clear(); f.end = [&whole[..4096], &o[4096..]].concat() };

    "G-01-no-signature" |f| { f.members.remove(1); };
    "G-02-only-the-manifest" |f| f.members.truncate(1);
    "G-03-no-manifest" |f| { f.members.remove(0); };
    "G-04-empty-archive" |f| f.members.clear();
    "G-05-signature-empty" |f| f.member(SIG).set_data(Vec::new());
    "G-06-signature-late" |f| { let m = f.members.remove(1); f.members.push(m) };
    "G-07-signature-second-name" |f| f.member(SIG).rename("manifest.json.2.sig");
    "G-08-signature-by-a-stranger" |f| f.sign(&[stranger()]);
    "G-09-signature-of-another-text" |f| { let s = other().members[1].clone(); f.members[1] = s };
    "G-10-signature-for-another-purpose" |f| f.sign_as("git", &[trusted()]);
    "G-11-signature-twice" |f| f.sign(&[trusted(), trusted()]);
    "G-12-signatures-out-of-order" |f| { f.sign(&[trusted(), stranger()]); let (a, b) = (f.members[1].data.clone(), f.members[2].data.clone()); if crate::ordered(&trusted(), &stranger()) { f.members[1].set_data(b); f.members[2].set_data(a) } };
    "G-13-strangers-signature-broken" |f| { let mut keys = [trusted(), stranger()]; if !crate::ordered(&keys[0], &keys[1]) { keys.reverse() } f.sign(&keys); let n = f.members.iter().position(|m| m.name().ends_with(".sig") && m.data == signature_of(f, &stranger())).unwrap(); f.members[n].data[200] ^= 1 };
    "G-14-signature-with-blank-line" |f| edit_signature(f, |t| t + "\n");
    "G-15-signature-with-other-line-ends" |f| edit_signature(f, |t| t.replace('\n', "\r\n"));
    "G-16-signature-wrapped-otherwise" |f| edit_signature(f, |t| t.replacen("\nU", "\nU\n", 1));
    "G-17-signature-version-zero" |f| edit_signature(f, |t| t.replacen("U1NIU0lHAAAAAQ", "U1NIU0lHAAAAAA", 1));
    "G-18-signature-armour-of-a-key" |f| edit_signature(f, |t| t.replace("SSH SIGNATURE", "OPENSSH PRIVATE KEY"));
    "G-26-stranger-beside-the-owner" |f| { let mut keys = [trusted(), stranger()]; if !crate::ordered(&keys[0], &keys[1]) { keys.reverse() } f.sign(&keys) };

    "H-01-part-of-another-bundle" |f| { let m = other().member("uImage").clone(); *f.member("uImage") = m };
    "H-02-parts-swapped" |f| f.members.swap(2, 3);
    "H-03-parts-swapped-under-their-names" |f| { let d = f.members[2].data.clone(); let e = f.members[3].data.clone(); f.members[2].set_data(e); f.members[3].set_data(d) };
    "H-04-manifest-of-another-bundle" |f| { let m = other().members[0].clone(); f.members[0] = m };
    "H-05-manifest-and-signature-of-another" |f| { let o = other(); f.members[0] = o.members[0].clone(); f.members[1] = o.members[1].clone() };
    "H-06-manifest-not-first" |f| f.members.swap(0, 2);
    "H-07-signature-first" |f| f.members.swap(0, 1);
    "H-13-only-for-memory" |f| { while String::from_utf8_lossy(&f.members[0].data).contains("\"nor\"") { f.edit_between("        {\n          \"load\": 37", "\"media\": \"nor\"", "        },\n") } f.sign(&[trusted()]) };
    "H-14-epoch-nine" |f| signed(f, "\"epoch\": 0", "\"epoch\": 9");

    "J-01-name-with-a-command" |f| { signed(f, "\"uImage\"", "\"x;reset\""); f.member("uImage").rename("x;reset") };
    "J-02-name-with-a-variable" |f| { signed(f, "\"uImage\"", "\"$x\""); f.member("uImage").rename("$x") };
    "J-03-name-like-an-option" |f| { signed(f, "\"uImage\"", "\"-rf\""); f.member("uImage").rename("-rf") };
    "J-04-name-with-an-escape" |f| signed(f, "\"p4080ds\"", "\"\\u001b[2J\"");
    "J-05-board-with-a-blank" |f| signed(f, "\"p4080ds\"", "\"p4080 ds\"");
    "J-06-origin-with-an-escape" |f| signed(f, "https://example.org", "\\u001b]0;x\\u0007");

    "A-13-cut-in-the-middle" |f| { f.end.clear(); f.members.last_mut().unwrap().padding.clear() };
    "A-14-no-end" |f| f.end.clear();
    "A-15-one-block-at-the-end" |f| f.end.truncate(512);
    "A-16-end-not-zero" |f| f.end[600] = 1;
    "B-34-archive-behind-archive" |f| { let again = f.to_bytes(); f.end.extend(again) };
    "B-35-record-padding-of-gnu-tar" |f| f.end.resize(10240, 0);
    "B-36-byte-behind-the-end" |f| f.end.push(0);
    "L-01-not-a-bundle-but-a-key" |f| { f.members.clear(); f.end = trusted().to_openssh(ssh_key::LineEnding::LF).unwrap().as_bytes().repeat(3) };
    "B-37-compressed" |f| { f.members.clear(); f.end = b"\x1f\x8b\x08\0\0\0\0\0".repeat(200) };

    "A-17-configuration-signature-bit" |f| f.member(TREE_SIG).data[183] ^= 1;
    "A-18-configuration-signature-head" |f| f.member(TREE_SIG).data[109] ^= 1;
    "A-19-configuration-signature-longer" |f| f.member(TREE_SIG).set_data(vec![0; 185]);
    "B-38-configuration-signature-other-hash" |f| tree_signed(f, &firmware(), "citrine-config", ssh_key::HashAlg::Sha256);
    "B-39-configuration-signature-armoured" |f| { let d = f.member(SIG).data.clone(); f.member(TREE_SIG).set_data(d) };
    "B-40-signature-with-a-hash" |f| signed(f, "\"role\": \"signature\",\n", &format!("\"role\": \"signature\",\n      \"sha256\": \"{}\",\n", "0".repeat(64)));
    "G-19-part-without-a-hash" |f| signed(f, "\"role\": \"kernel\"", "\"role\": \"signature\"");
    "G-20-configuration-signature-missing" |f| { let n = f.index(TREE_SIG); f.members.remove(n); };
    "G-21-configuration-signature-by-a-stranger" |f| tree_signed(f, &stranger(), "citrine-config", ssh_key::HashAlg::Sha512);
    "G-22-configuration-signature-by-the-owner" |f| tree_signed(f, &trusted(), "citrine-config", ssh_key::HashAlg::Sha512);
    "G-23-configuration-signature-for-bundles" |f| tree_signed(f, &firmware(), "citrine-bundle", ssh_key::HashAlg::Sha512);
    "H-08-configuration-signature-of-another" |f| { let m = other().member(TREE_SIG).clone(); *f.member(TREE_SIG) = m };
    "H-09-configuration-signature-of-no-part" |f| { signed(f, "\"hv.dtb.sig\"", "\"hv.sig\""); f.member(TREE_SIG).rename("hv.sig") };
}

fn signature_of(forge: &Forge, key: &PrivateKey) -> Vec<u8> {
    let mut copy = forge.clone();
    copy.sign(std::slice::from_ref(key));
    copy.member(SIG).data.clone()
}
