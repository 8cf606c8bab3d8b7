//! The start of a system, from trees and images to what each partition gets.

extern crate std;
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::config::Digest;
use crate::memory::GuestMap;
use citrine_formats::hvconfig::DIGESTS;
use citrine_formats::sha256::Sha256;
use citrine_formats::testing::Builder;
use citrine_formats::uimage::{Compression, Header, Kind};

const UART: u64 = 0xf_e000_4500;
const HW: u64 = 0x3ff_8000;
const CONFIG: u64 = 0x7890_0000;

/// A machine with memory here and there, that notes what is done to it.
struct Fake<'t> {
    memory: BTreeMap<u64, &'t [u8]>,
    broken_cpus: CpuSet,
    text: String,
    serial: Option<TruePhys>,
    moved: Option<TruePhys>,
    asked: Vec<u32>,
    hz: u32,
    trust: Option<Key>,
}

impl fmt::Write for Fake<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Without a serial line nothing can be read.
        if self.serial.is_some() {
            self.text.push_str(text);
        }
        Ok(())
    }
}

impl<'t> Platform<'t> for Fake<'t> {
    fn trust(&self) -> Option<Key> {
        self.trust
    }

    fn use_serial(&mut self, registers: TruePhys) {
        self.serial = Some(registers);
    }

    fn map_tree(&mut self, _: WhichTree, at: TruePhys) -> Option<&'t [u8]> {
        self.memory.get(&at.0).copied()
    }

    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool {
        let Some(from) = self.memory.get(&at.0).and_then(|bytes| bytes.get(..into.len())) else { return false };
        into.copy_from_slice(from);
        true
    }

    fn start_cpus(&mut self, cpus: &[(u32, TruePhys)], hz: u32) -> CpuSet {
        self.hz = hz;
        assert!(self.moved.is_none(), "hv-memory is the boot loader's until the CPUs have left");
        self.asked = cpus.iter().map(|(cpu, _)| *cpu).collect();
        self.asked.iter().copied().collect::<CpuSet>().without(self.broken_cpus)
    }

    fn image(&self) -> Span<TruePhys> {
        Span::new(TruePhys(0), IMAGE_LEN).unwrap()
    }

    fn move_to(&mut self, to: TruePhys) {
        self.moved = Some(to);
    }
}

fn hardware_tree(bootargs: &str) -> Vec<u8> {
    let mut t = Builder::default();
    t.begin("").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
    t.begin("aliases").text("serial0", "/soc/serial@4500").text("serial1", "/soc/serial@4600").end();
    t.begin("chosen").text("bootargs", bootargs).end();
    t.begin("memory").text("device_type", "memory").cells("reg", &[0, 0, 0, 0x8000_0000]).end();
    t.begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    for cpu in 0..8 {
        t.begin(&std::format!("cpu@{cpu}")).text("device_type", "cpu").cells("reg", &[cpu]);
        t.cells("timebase-frequency", &[400_000_000]);
        if cpu > 0 {
            t.text("status", "disabled").text("enable-method", "spin-table");
            t.cells("cpu-release-addr", &[0, 0x7f00_0000 + 0x20 * cpu]);
        }
        t.end();
    }
    t.end();
    t.begin("soc").cells("#address-cells", &[1]).cells("#size-cells", &[1]);
    t.cells("ranges", &[0, 0xf, 0xe000_0000, 0x10_0000]);
    t.begin("serial@4500").text("compatible", "ns16550").cells("reg", &[0x4500, 0x100]).end();
    t.begin("serial@4600").text("compatible", "ns16550").cells("reg", &[0x4600, 0x100]).end();
    t.end().end();
    t.finish()
}

fn config_tree(second_first_cpu: u32, uart: &str, digests: &[Digest]) -> Vec<u8> {
    let mut t = Builder::default();
    let area = |t: &mut Builder, name, phandle, base, len| {
        t.begin(name).text("compatible", "phys-mem-area").cells("phandle", &[phandle]);
        t.cells("addr", &[0, base]).cells("size", &[0, len]).end();
    };
    t.begin("").text("compatible", "fsl,hv-config");
    area(&mut t, "ram1", 1, 0, 0x4000_0000);
    area(&mut t, "ram2", 2, 0x4000_0000, 0x2000_0000);
    area(&mut t, "shared", 3, 0x7c00_0000, 0x100_0000);
    area(&mut t, "hv", 4, 0x7f00_0000, 0x100_0000);
    t.begin("hypervisor").text("compatible", "hv-config").cells("stdout", &[6]);
    t.begin("hv-memory").text("compatible", "hv-memory").cells("phys-mem", &[4]).end();
    t.begin("uart").text("device", uart).cells("phandle", &[5]).end();
    t.begin("con").text("compatible", "byte-channel").cells("endpoint", &[7]).cells("mux-channel", &[0]);
    t.cells("phandle", &[6]).end().end();
    t.begin("mux").text("compatible", "byte-channel-mux").cells("endpoint", &[5]).cells("phandle", &[7]).end();
    for (label, cpus, ram, channel) in [("linux1", [0, 7], 1, 1), ("linux2", [second_first_cpu, 1], 2, 2)] {
        t.begin(label).text("compatible", "partition").cells("cpus", &cpus);
        t.cells("guest-image", &[0, 0x7802_0000, 0, 0, 0, 0x6e_0000]);
        t.cells("linux-rootfs", &[0, 0x7930_0000, 0, 0x130_0000, 0, 0x280_0000]);
        t.cells("dtb-window", &[0, 0x100_0000, 0, 0x2_0000]);
        if !digests.is_empty() {
            t.prop(DIGESTS, &digests.iter().flat_map(|digest| digest.to_row()).collect::<Vec<u8>>());
        }
        t.begin("ram")
            .text("compatible", "guest-phys-mem-area")
            .cells("phys-mem", &[ram])
            .cells("guest-addr", &[0, 0])
            .end();
        t.begin("shared").text("compatible", "guest-phys-mem-area").cells("phys-mem", &[3]);
        t.cells("guest-addr", &[0, 0x8000_0000]).end();
        t.begin("con")
            .text("compatible", "byte-channel")
            .cells("endpoint", &[7])
            .cells("mux-channel", &[channel])
            .end();
        t.end();
    }
    t.end();
    t.finish()
}

fn uimage(kind: Kind, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| (n * 31) as u8).collect();
    let header = Header::for_payload(kind, Compression::None, "test", 0, &payload).unwrap();
    [&header.to_bytes()[..], &payload].concat()
}

/// What lies in memory when the firmware is entered.
struct Scene {
    hw: Vec<u8>,
    config: Vec<u8>,
    broken_cpus: CpuSet,
    entry: Entry,
    trust: Option<Key>,
}

fn scene() -> Scene {
    Scene {
        hw: hardware_tree("config-addr=0x78900000 console=ttyS0,115200"),
        config: config_tree(7, "serial0", &[]),
        broken_cpus: CpuSet::EMPTY,
        entry: Entry { tree: TruePhys(HW), magic: EPAPR_MAGIC, core: Core::new(0x8023_0020), svr: 0, cpu: 0 },
        trust: None,
    }
}

impl Scene {
    fn machine(&self) -> Fake<'_> {
        let memory: [(u64, &[u8]); 2] = [(HW, &self.hw), (CONFIG, &self.config)];
        Fake {
            memory: memory.into_iter().collect(),
            broken_cpus: self.broken_cpus,
            text: String::new(),
            serial: None,
            moved: None,
            asked: Vec::new(),
            hz: 0,
            trust: self.trust,
        }
    }

    fn play(&self) -> Fake<'_> {
        let mut fake = self.machine();
        let ready = run(&mut fake, self.entry);
        assert_eq!(ready.is_some(), fake.text.contains("\ncitrine: ready, "));
        fake
    }
}

const GOOD: &str = "\
citrine 0.1.0 on e500mc 2.0
config at 0x78900000
cpus: 8 of 8 started
hypervisor at 0x7f000000
memory ram1: 0x0..0x40000000, 1 GiB
memory ram2: 0x40000000..0x60000000, 512 MiB
memory shared: 0x7c000000..0x7d000000, 16 MiB, shared
memory hv: 0x7f000000..0x80000000, 16 MiB, hypervisor
partition linux1: 7 CPUs (0-6)
  memory ram1: 0x0..0x40000000 at guest 0x0..0x40000000
  memory shared: 0x7c000000..0x7d000000 at guest 0x80000000..0x81000000
  ready
partition linux2: 1 CPU (7)
  memory ram2: 0x40000000..0x60000000 at guest 0x0..0x20000000
  memory shared: 0x7c000000..0x7d000000 at guest 0x80000000..0x81000000
  ready
citrine: ready, 2 partitions, 0 errors
";

#[test]
fn the_whole_start_reads_like_this() {
    let scene = scene();
    let fake = scene.play();
    assert_eq!(fake.text, GOOD);
    assert_eq!(fake.serial, Some(TruePhys(UART)));
    assert_eq!((fake.asked.as_slice(), fake.hz), (&[1, 2, 3, 4, 5, 6, 7][..], 400_000_000));
    assert_eq!(fake.moved, Some(TruePhys(0x7f00_0000)));
}

#[test]
fn the_configuration_chooses_the_serial_line() {
    let scene = Scene { config: config_tree(7, "serial1", &[]), ..scene() };
    assert_eq!(scene.play().serial, Some(TruePhys(0xf_e000_4600)));
    let scene = Scene { config: config_tree(7, "serial7", &[]), ..scene };
    let text = scene.play().text;
    assert!(text.contains("error: serial line serial7: the hardware tree has no such node\n"), "{text}");
    assert!(text.ends_with("citrine: FAILED, 1 errors\n"));
}

#[test]
fn a_missing_cpu_costs_its_own_partition_only() {
    let scene = Scene { broken_cpus: [7].into_iter().collect(), ..scene() };
    let fake = scene.play();
    assert!(fake.text.contains("cpus: 7 of 8 started, missing 7\n"));
    assert!(fake.text.contains("partition linux2: 1 CPU (7)\n"));
    assert!(fake.text.contains("  error: CPUs 7 did not start\n"));
    assert!(fake.text.ends_with("  NOT READY\ncitrine: ready, 1 partitions, 1 errors\n"));
    // Its spin loop lies at 0x7f000000, in the hypervisor's memory, and still runs.
    assert_eq!(fake.moved, Some(TruePhys(0x7f40_0000)));
}

/// What a partition's load says, and what comes of it.
fn load(scene: &Scene, index: usize, kernel: &[u8], rootfs: &[u8]) -> (String, Option<Images>) {
    let mut fake = scene.machine();
    let ready = run(&mut fake, scene.entry).unwrap();
    let partition = &ready.config.partitions[index];
    let map = GuestMap::new(&partition.memory, &ready.config.areas);
    let mut flash = Flash(BTreeMap::from([(0x7802_0000, kernel), (0x7930_0000, rootfs)]));
    let mut text = String::new();
    let mut memory = GuestMemory { map: &map, physical: &mut flash };
    let images = load_images(&mut text, partition, &mut memory, &mut Scratch::new());
    (text, images)
}

/// Images here and there, each in pages of its own, and memory that takes everything.
struct Flash<'t>(BTreeMap<u64, &'t [u8]>);

impl Physical for Flash<'_> {
    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool {
        let Some((base, bytes)) = self.0.range(..=at.0).next_back() else { return false };
        let from = (at.0 - base) as usize;
        let bytes = bytes.iter().copied().chain(core::iter::repeat(0)).skip(from);
        into.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        from + into.len() <= self.0[base].len().next_multiple_of(0x1000)
    }

    fn write(&mut self, at: TruePhys, _: &[u8]) -> bool {
        at.0 < 0x6000_0000
    }
}

#[test]
fn the_load_of_a_partition_reads_like_this() {
    let (kernel, rootfs) = (uimage(Kind::Kernel, 5000), uimage(Kind::Ramdisk, 3000));
    let sha256 = |bytes: &[u8]| Digest { size: bytes.len() as u64, sha256: Sha256(sha2::Sha256::digest(bytes).into()) };
    let (text, images) = load(&scene(), 1, &kernel, &rootfs);
    let (k, r) = (sha256(&kernel), sha256(&rootfs));
    let expected = std::format!(
        "\
linux2: rootfs at 0x79300000: uImage ramdisk, 3064 bytes, CRC ok, sha256 {}
linux2: kernel at 0x78020000: uImage kernel, 5064 bytes, CRC ok, sha256 {}
linux2: loaded, entry 0x0
",
        r.sha256,
        k.sha256
    );
    assert_eq!(text, expected);
    let rootfs_at = Span::new(GuestPhys(0x130_0000), 3000).unwrap();
    assert_eq!(images, Some(Images { entry: Some(GuestPhys(0)), rootfs: Some(rootfs_at) }));

    // With digests, in the order in which the images are loaded.
    let scene = |rows: &[Digest]| Scene { config: config_tree(7, "serial0", rows), ..scene() };
    let (text, images) = load(&scene(&[r, k]), 0, &kernel, &rootfs);
    assert_eq!((text.matches(", digest ok\n").count(), images.is_some()), (2, true), "{text}");
    let other = Digest { sha256: Sha256([0xab; 32]), ..k };
    let (text, images) = load(&scene(&[r, other]), 0, &kernel, &rootfs);
    let last =
        std::format!("NOT STARTED: kernel: SHA-256 does not match: expected {}, found {}\n", other.sha256, k.sha256);
    assert!(text.ends_with(&std::format!(", digest WRONG\nlinux1: {last}")), "{text}");
    assert_eq!(images, None);
}

#[test]
fn an_image_that_is_not_good_ends_the_load() {
    let (kernel, rootfs) = (uimage(Kind::Kernel, 5000), uimage(Kind::Ramdisk, 3000));
    let last = |kernel: &[u8], rootfs: &[u8]| -> String {
        let (text, images) = load(&scene(), 0, kernel, rootfs);
        assert_eq!(images, None);
        text.lines().last().unwrap().into()
    };
    let mut damaged = rootfs.clone();
    damaged[3000] ^= 1;
    assert_eq!(last(&kernel, &damaged), "linux1: NOT STARTED: rootfs: the payload does not match its CRC");
    assert_eq!(
        last(&kernel[..200], &rootfs),
        "linux1: NOT STARTED: kernel: its bytes from 0x78021000 on cannot be read"
    );
    let header = Header::for_payload(Kind::Kernel, Compression::None, "test", 0, &[1; 64]).unwrap();
    let entered = |entry| [&Header { entry, ..header }.to_bytes()[..], &[1; 64], &[0; 4096]].concat();
    assert!(load(&scene(), 0, &entered(63), &rootfs).1.is_some());
    assert_eq!(last(&entered(64), &rootfs), "linux1: NOT STARTED: kernel: its entry, guest 0x40, is outside of it");
    // The tree is at 16 MiB.
    let big = uimage(Kind::Kernel, 0x100_0000);
    assert!(last(&big, &rootfs).contains("TOO LONG for its window"));
    let bomb = gzip_kernel(0x100_0001);
    assert_eq!(
        last(&bomb, &rootfs),
        "linux1: NOT STARTED: kernel: it does not end within guest 0x0..0x1000000, where something else begins"
    );
    assert!(load(&scene(), 0, &gzip_kernel(0x100_0000), &rootfs).1.is_some());
}

fn gzip_kernel(len: usize) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&std::vec![0; len]).unwrap();
    let payload = gzip.finish().unwrap();
    let header = Header::for_payload(Kind::Kernel, Compression::Gzip, "test", 0, &payload).unwrap();
    [&header.to_bytes()[..], &payload, &[0; 4096]].concat()
}

#[test]
fn a_rule_stops_everything_before_anything_is_done() {
    let scene = Scene { config: config_tree(6, "serial0", &[]), ..scene() };
    let fake = scene.play();
    let expected = "\
citrine 0.1.0 on e500mc 2.0
config at 0x78900000
error H101: CPU 6 belongs to both partition linux1 and partition linux2
warning H103: no partition owns CPU 7
citrine: FAILED, 1 errors
";
    assert_eq!(fake.text, expected);
    assert!(fake.moved.is_none() && fake.asked.is_empty());
}

#[test]
fn what_cannot_be_read_is_said() {
    let good = scene();
    let last = |scene: &Scene| -> String {
        let text = scene.play().text;
        let mut lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.pop(), Some("citrine: FAILED, 1 errors"), "{text}");
        lines.pop().unwrap_or("").into()
    };
    let mut scene = Scene { hw: b"\x27\x05\x19\x56".to_vec(), ..self::scene() };
    assert!(last(&scene).starts_with("error: no hardware tree at 0x3ff8000 (r3): "));
    scene.hw = hardware_tree("console=ttyS0");
    assert_eq!(last(&scene), "error: /chosen/bootargs has no config-addr=ADDRESS");
    scene.hw = hardware_tree("config-addr=0x12345000");
    assert_eq!(last(&scene), "error: the configuration tree is at an address that cannot be mapped");
    scene.hw = good.hw.clone();
    scene.config.truncate(300);
    assert!(last(&scene).starts_with("error: configuration tree: truncated"));
    scene.config = good.hw.clone();
    assert!(last(&scene).starts_with("error H100: "));
    scene.entry.magic = 0;
    assert_eq!(last(&scene), "error: r6 is 0x00000000 instead of 0x45504150: this is no ePAPR boot");
    scene.entry = Entry { core: Core::new(0x8040_0020), ..good.entry };
    assert_eq!(last(&scene), "error: this firmware is for e500mc and e5500 cores");
}

#[test]
fn no_damage_to_a_tree_panics() {
    let good = scene();
    for at in 0..good.config.len() {
        let mut scene = scene();
        scene.config[at] = scene.config[at].wrapping_add(1);
        assert!(scene.play().text.contains("citrine: "));
    }
    for at in 0..good.hw.len() {
        let mut scene = scene();
        scene.hw[at] = scene.hw[at].wrapping_add(1);
        scene.entry.svr = 0;
        assert!(scene.play().text.contains("citrine: "));
    }
}

/// Where the signature is.
const SIGNATURE: u64 = 0x789e_0000;

/// What the start says last but for the summary, of a firmware with a key, a configuration, and this in the signature's place.
fn signed(scene: &Scene, blob: &[u8]) -> String {
    let mut fake = scene.machine();
    fake.memory.insert(SIGNATURE, blob);
    let is_ready = run(&mut fake, scene.entry).is_some();
    assert_eq!(is_ready, fake.moved.is_some(), "nothing happens before the signature holds");
    if is_ready {
        return fake.text;
    }
    assert!(fake.text.ends_with("citrine: FAILED, 1 errors\n") && fake.asked.is_empty(), "{}", fake.text);
    fake.text.lines().rev().nth(1).unwrap_or_default().into()
}

#[test]
fn a_firmware_with_a_key_runs_signed_configurations_only() {
    use ed25519_dalek::{Signer as _, SigningKey};
    let signing = SigningKey::from_bytes(&[9; 32]);
    let key = Key(signing.verifying_key().to_bytes());
    let mut scene = scene();
    scene.hw = hardware_tree("config-addr=0x78900000");
    scene.trust = Some(key);
    let message = signature::message(&sha2::Sha512::digest(&scene.config).into());
    let blob = signature::blob(&key, &signing.sign(&message).to_bytes());
    let expected = GOOD.replacen("cpus: 8", &std::format!("config is signed by {key}\ncpus: 8"), 1);
    assert_eq!(signed(&scene, &blob), expected);

    let begins = "error: the configuration tree is not believed: ";
    assert!(signed(&scene, &[0; 184]).starts_with(&std::format!("{begins}nobody has signed it; sign the bundle")));
    let mut other = blob;
    other[40] ^= 1;
    assert!(signed(&scene, &other).starts_with(&std::format!("{begins}its signature is not by the key")));
    assert!(signed(&scene, &blob[..100]).contains("signature at 0x789e0000 cannot be read"));
    scene.config[60] ^= 1;
    assert!(signed(&scene, &blob).starts_with(&std::format!("{begins}its signature does not match")));
    scene.hw = hardware_tree("config-addr=0xffffffffffffffff");
    assert!(signed(&scene, &blob).contains("cannot be"));
}
