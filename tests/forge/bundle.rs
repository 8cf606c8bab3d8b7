//! A good bundle, and the same taken apart so that it can be put together wrongly.

use std::sync::LazyLock;

use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::{Input, InputKind, Media, Role, Slot};
use citrine_formats::uimage::{Compression, Kind};
use citrine_planner::pack::image::{Fields, script, wrap};
use citrine_planner::pack::{self, Assembled, Content, PartSource, Subject};
use citrine_planner::verify::keys::TrustedKeys;
use citrine_planner::verify::{Error, Verified, verify};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

pub const EPOCH: u32 = 1_700_000_000;
pub const BLOCK: usize = 512;

/// The key that is trusted.
pub fn trusted() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]))
}

/// As many more keys as may sign beside it, which are trusted, too.
pub fn crew() -> impl Iterator<Item = PrivateKey> {
    (40..56).map(|seed| PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32])))
}

/// A key that nobody trusts.
pub fn stranger() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[2; 32]))
}

/// The key that the firmware believes.
pub fn firmware() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[3; 32]))
}

fn firmware_key() -> citrine_formats::signature::Key {
    pack::configuration_key(firmware().public_key()).unwrap()
}

/// The text of the file of trusted keys.
pub fn allowed_signers() -> String {
    let line = |who: &str, key: &PrivateKey| {
        format!("{who}@example.org namespaces=\"citrine-bundle\" {}\n", key.public_key().to_openssh().unwrap())
    };
    let crew: String = crew().map(|key| line("crew", &key)).collect();
    format!("# The forgers do not have these keys.\n{}{crew}", line("owner", &trusted()))
}

pub fn check(bytes: impl std::io::Read) -> Result<Verified, Error> {
    static KEYS: LazyLock<TrustedKeys> = LazyLock::new(|| TrustedKeys::parse(&allowed_signers()).unwrap());
    verify(bytes, &KEYS, &mut |_, _| Ok(()))
}

/// A small bundle for `board`; `fill` tells its parts from another's.
pub fn assembled(board: &str, profile: &str, fill: u8) -> Assembled<'static> {
    let image = |kind, compression, name, len: usize| {
        let fields = Fields { kind, compression, name, load: 0, entry: 0, time: EPOCH };
        wrap(fields, vec![fill; len]).unwrap()
    };
    let part = |name: &str, role, base: u64, content| PartSource {
        name: name.to_owned(),
        role,
        slots: vec![
            Slot { load: TruePhys(0xe000_0000 + base), media: Media::Nor, window: 0x1_0000 },
            Slot { load: TruePhys(0x7000_0000 + base), media: Media::Ram, window: 0x1_0000 },
        ],
        entry: Some(0),
        uncompressed: Some(4096),
        content,
    };
    let parts = vec![
        part("uImage", Role::Kernel, 0x2_0000, image(Kind::Kernel, Compression::Gzip, "linux", 700)),
        part("rootfs.uboot", Role::Rootfs, 0x3_0000, image(Kind::Ramdisk, Compression::Gzip, "rootfs", 448)),
        part("boot.scr", Role::Script, 0x4_0000, script("boot", EPOCH, "bootm 78700000 - 78800000\n").unwrap()),
        part("hv.dtb", Role::Configuration, 0x6_0000, Content::plain(vec![fill; 90])),
        PartSource {
            entry: None,
            uncompressed: None,
            ..part("hv.dtb.sig", Role::Signature, 0x7_0000, Content::unsigned(firmware_key()))
        },
        part("profile.json", Role::Profile, 0x5_0000, Content::plain(b"{}\n".as_slice())),
    ];
    let input = |name: &str| Input {
        kind: InputKind::Source,
        name: name.to_owned(),
        origin: "https://example.org".to_owned(),
        sha256: None,
        size: None,
        version: "1".to_owned(),
    };
    let subject = Subject {
        board: board.to_owned(),
        core: "e500mc".to_owned(),
        epoch: 0,
        inputs: vec![input("linux")],
        plan_sha256: pack::sha256(board.as_bytes()),
        profile: profile.to_owned(),
        soc: "p4080".to_owned(),
        source_date_epoch: EPOCH,
    };
    let mut bundle = pack::assemble(subject, parts).unwrap();
    pack::sign_configurations(&mut bundle, &mut |_, key, tree| {
        assert_eq!(*key, firmware_key());
        pack::configuration_signature(&firmware(), tree).map(Some)
    })
    .unwrap();
    bundle
}

/// The archive of `bundle`, signed with `keys`.
pub fn archive(bundle: &Assembled<'_>, keys: &[PrivateKey]) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack::write_tar(&mut bytes, bundle, &pack::sign(bundle, keys).unwrap()).unwrap();
    bytes
}

/// The good bundle.
pub fn good() -> Vec<u8> {
    archive(&assembled("p4080ds", "two-linux", 0xa5), &[trusted()])
}

/// A file of an archive, taken out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub header: [u8; BLOCK],
    pub data: Vec<u8>,
    /// What fills up the last block.
    pub padding: Vec<u8>,
}

impl Member {
    /// A file as a bundle has it.
    pub fn new(name: &str, data: Vec<u8>) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::from(EPOCH));
        header.set_entry_type(tar::EntryType::Regular);
        let mut member = Self { header: *header.as_bytes(), data: Vec::new(), padding: Vec::new() };
        member.set_data(data);
        member
    }

    pub fn name(&self) -> String {
        String::from_utf8_lossy(self.header[..100].split(|&byte| byte == 0).next().unwrap()).into_owned()
    }

    /// Writes `bytes` into the header at `at`, and a right checksum.
    pub fn poke(&mut self, at: usize, bytes: &[u8]) {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self.header[148..156].fill(b' ');
        let sum: u32 = self.header.iter().map(|&byte| u32::from(byte)).sum();
        self.header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
    }

    pub fn rename(&mut self, name: &str) {
        let mut field = [0; 100];
        field[..name.len()].copy_from_slice(name.as_bytes());
        self.poke(0, &field);
    }

    /// Other bytes, with a header and padding that are right for them.
    pub fn set_data(&mut self, data: Vec<u8>) {
        self.padding = vec![0; data.len().next_multiple_of(BLOCK) - data.len()];
        self.poke(124, format!("{:011o}\0", data.len()).as_bytes());
        self.data = data;
    }
}

/// A bundle taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forge {
    pub members: Vec<Member>,
    pub end: Vec<u8>,
}

impl Forge {
    pub fn of(archive: &[u8]) -> Self {
        let (mut members, mut at) = (Vec::new(), 0);
        while archive[at] != 0 {
            let header: [u8; BLOCK] = archive[at..at + BLOCK].try_into().unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&header[124..135]).unwrap(), 8).unwrap();
            let (data, full) = (at + BLOCK, size.next_multiple_of(BLOCK));
            let (bytes, padding) = archive[data..data + full].split_at(size);
            members.push(Member { header, data: bytes.to_vec(), padding: padding.to_vec() });
            at = data + full;
        }
        Self { members, end: archive[at..].to_vec() }
    }

    pub fn good() -> Self {
        Self::of(&good())
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for member in &self.members {
            bytes.extend_from_slice(&member.header);
            bytes.extend_from_slice(&member.data);
            bytes.extend_from_slice(&member.padding);
        }
        bytes.extend_from_slice(&self.end);
        bytes
    }

    pub fn index(&self, name: &str) -> usize {
        self.members.iter().position(|member| member.name() == name).unwrap()
    }

    pub fn member(&mut self, name: &str) -> &mut Member {
        let index = self.index(name);
        &mut self.members[index]
    }

    /// The manifest with `from` replaced by `to`, once; the signature is left as it is.
    pub fn edit(&mut self, from: &str, to: &str) {
        let member = self.member("manifest.json");
        let text = String::from_utf8(member.data.clone()).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        member.set_data(text.replacen(from, to, 1).into_bytes());
    }

    /// The manifest without the first piece from `start` by way of `with` to `end`; the signature is left as it is.
    pub fn edit_between(&mut self, start: &str, with: &str, end: &str) {
        let text = String::from_utf8(self.member("manifest.json").data.clone()).unwrap();
        let from = text.find(start).unwrap();
        let len = text[from..].find(end).unwrap() + end.len();
        let piece = text[from..from + len].to_owned();
        assert!(piece.contains(with), "{piece}");
        self.edit(&piece, "");
    }

    /// Signs the manifest as it is now, with `keys` in this order.
    pub fn sign(&mut self, keys: &[PrivateKey]) {
        self.sign_as("citrine-bundle", keys);
    }

    pub fn sign_as(&mut self, namespace: &str, keys: &[PrivateKey]) {
        let text = self.members[0].data.clone();
        self.members.retain(|member| !member.name().starts_with("manifest.json."));
        for (index, key) in keys.iter().enumerate() {
            let signature = key.sign(namespace, HashAlg::Sha512, &text).unwrap();
            let name = citrine_formats::manifest::signature_name(index);
            let text = signature.to_pem(LineEnding::LF).unwrap().into_bytes();
            self.members.insert(1 + index, Member::new(&name, text));
        }
    }
}
