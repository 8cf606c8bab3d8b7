//! What is served, under which names, and what U-Boot is told to fetch it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::{Manifest, Media, Part, Role};
use citrine_planner::board::Board;
use citrine_planner::pack::ram::{RamImage, Segment};
use citrine_planner::render::typed;

use crate::nor::FLASH_SCRIPT;
use crate::output::RAM_IMAGE;
use crate::smoke::load::LOADED;

/// The bytes of one file, which every transfer of it shares.
pub type Bytes = Arc<Vec<u8>>;

/// A verified bundle's parts and its RAM image, by name.
#[derive(Debug)]
pub struct Files {
    /// The directory that the boot script asks for: board and profile.
    directory: String,
    files: BTreeMap<String, Bytes>,
}

impl Files {
    /// The files of a bundle with these parts. Without the board's own file there is no RAM image.
    pub fn new(manifest: &Manifest, parts: BTreeMap<String, Vec<u8>>, board: Option<&Board>) -> Self {
        let directory = directory(manifest);
        let placed = manifest
            .parts
            .iter()
            .filter_map(|part| Some((part.name.as_str(), in_ram(part)?, vec![parts.get(&part.name)?.as_slice()])));
        let image = board.and_then(|board| RamImage::of(board, placed.collect()).ok());
        let image = image.map(|image| (ram_image(&directory), Arc::new(flat(&image))));
        let files = parts.into_iter().map(|(name, bytes)| (name, Arc::new(bytes))).chain(image).collect();
        Self { directory, files }
    }

    /// The file that a client asks for, with or without the directory in front: its own name and its bytes. No other
    /// way of writing a name is known, so there is nothing to climb out of.
    pub fn find(&self, asked: &str) -> Option<(&str, &Bytes)> {
        let within = asked.strip_prefix(self.directory.as_str()).and_then(|rest| rest.strip_prefix('/'));
        let (name, bytes) = self.files.get_key_value(within.unwrap_or(asked))?;
        Some((name, bytes))
    }

    /// Every file: its own name and its length.
    pub fn list(&self) -> impl Iterator<Item = (&str, usize)> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.len()))
    }

    /// What to type at U-Boot's prompt.
    pub fn commands(&self, manifest: &Manifest, board: Option<&Board>, listen: SocketAddr) -> Commands {
        let server = match listen.ip() {
            ip if ip.is_unspecified() => "ADDRESS-OF-THIS-MACHINE".to_owned(),
            ip => ip.to_string(),
        };
        let mut before = typed::before("ADDRESS-OF-THE-BOARD", &server, board);
        if listen.port() != STANDARD_PORT {
            // Only a U-Boot with CONFIG_TFTP_PORT reads it.
            before.push(format!("setenv tftpdstp {}", listen.port()));
        }
        // A bundle for flash, too, has a script for each.
        let script = manifest.parts.iter().filter(|part| part.role == Role::Script);
        let script = script.filter_map(|part| Some((part.name.as_str(), in_ram(part)?))).next();
        let image = ram_image(&self.directory);
        let base = board.map(|board| board.image_area.base().0).filter(|_| self.files.contains_key(&image));
        Commands {
            before,
            parts: script.map(|(name, at)| typed::run_script(&self.directory, name, at)),
            flash: board.filter(|_| self.files.contains_key(FLASH_SCRIPT)).map_or_else(Vec::new, |board| {
                let write = typed::run_script(&self.directory, FLASH_SCRIPT, board.slots.script);
                std::iter::once(write).chain(typed::start_from_flash(board)).collect()
            }),
            image: script
                .zip(base)
                .map(|((_, at), base)| format!("tftp {base:#x} {image} && setenv {LOADED} yes && source {:#x}", at.0)),
        }
    }
}

/// Commands for U-Boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commands {
    /// What it must know before it fetches anything.
    pub before: Vec<String>,
    /// Boots part by part, as the boot script does.
    pub parts: Option<String>,
    /// Boots from the RAM image.
    pub image: Option<String>,
    /// Writes the flash, and makes the board start from it; nothing without a script for that.
    pub flash: Vec<String>,
}

/// The port that U-Boot asks unless it is told otherwise (RFC 1350).
pub const STANDARD_PORT: u16 = 69;

/// What the boot script asks for unless `citrine_dir` says otherwise.
fn directory(manifest: &Manifest) -> String {
    format!("{}-{}", manifest.board, manifest.profile)
}

/// Where a part goes in RAM, if it goes there.
fn in_ram(part: &Part) -> Option<TruePhys> {
    Some(part.slots.iter().find(|slot| slot.media == Media::Ram)?.load)
}

fn ram_image(directory: &str) -> String {
    format!("{directory}.{RAM_IMAGE}")
}

fn flat(image: &RamImage<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usize::try_from(image.len()).unwrap_or_default());
    for segment in image.segments() {
        match segment {
            Segment::Gap(len) => bytes.resize(bytes.len() + usize::try_from(len).unwrap_or_default(), 0),
            Segment::Bytes(piece) => bytes.extend_from_slice(piece),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use citrine_formats::manifest::{Sha256, Slot};

    use super::*;

    fn files() -> Files {
        let file = |name: &str| (name.to_owned(), Arc::new(name.as_bytes().to_vec()));
        Files { directory: "board-profile".to_owned(), files: [file("boot.scr"), file("hv.dtb")].into() }
    }

    /// What people read is what is printed, and what the tests boot by.
    #[test]
    fn the_bench_manual_has_the_commands_as_they_are_printed() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = std::fs::read_to_string(root.join("boards/p4080ds.toml")).unwrap();
        let board = citrine_planner::input::board::parse("board.toml", &text).0.unwrap();
        let slot = |load: u64| vec![Slot { load: TruePhys(load), media: Media::Ram, window: 4096 }];
        let part = |name: &str, role: Role, slots: Vec<Slot>| Part {
            name: name.to_owned(),
            role,
            slots,
            entry: None,
            sha256: Some(Sha256([0; 32])),
            key: None,
            size: 1,
            uncompressed: None,
        };
        let manifest = Manifest {
            board: "p4080ds".to_owned(),
            profile: "two-linux".to_owned(),
            parts: vec![
                part("kernel.uImage", Role::Kernel, slot(board.slots.kernel.0)),
                part("boot.scr", Role::Script, slot(board.slots.script.0)),
                part(FLASH_SCRIPT, Role::Script, Vec::new()),
                part("profile.json", Role::Profile, Vec::new()),
            ],
            core: String::new(),
            epoch: 0,
            format: 1,
            inputs: Vec::new(),
            plan_sha256: Sha256([0; 32]),
            soc: String::new(),
            source_date_epoch: 0,
        };
        let bytes = manifest.parts.iter().map(|part| (part.name.clone(), vec![7])).collect();
        let files = Files::new(&manifest, bytes, Some(&board));
        let image = files.find("p4080ds-two-linux.ram.img").unwrap().1;
        assert_eq!((image.len(), image[0x2_0000], image[0xa0_0000], image[0x2_0001]), (0xa0_0001, 7, 7, 0));

        let listen: SocketAddr = "192.168.1.1:69".parse().unwrap();
        let manual = std::fs::read_to_string(root.join("docs/bench.md")).unwrap();
        let Commands { before, parts, image, flash } = files.commands(&manifest, Some(&board), listen);
        for command in before.iter().chain(&parts).chain(&image).chain(&flash) {
            let command = command.replace("ADDRESS-OF-THE-BOARD", "192.168.1.2");
            assert!(manual.contains(&format!("    {command}\n")), "{command}");
        }
        assert_eq!((before.len(), parts.is_some(), image.is_some(), flash.len()), (3, true, true, 2));
        // Of a board that nobody knows here, nobody knows what its U-Boot must be told.
        let strange = files.commands(&manifest, None, "[::]:6969".parse().unwrap());
        assert_eq!(strange.before[1..], ["setenv serverip ADDRESS-OF-THIS-MACHINE", "setenv tftpdstp 6969"]);
        assert_eq!((strange.parts, strange.image, strange.flash), (parts, None, Vec::new()));
    }

    #[test]
    fn a_file_has_two_names_and_no_other() {
        let files = files();
        for asked in ["boot.scr", "board-profile/boot.scr"] {
            let (name, bytes) = files.find(asked).unwrap();
            assert_eq!((name, bytes.as_slice()), ("boot.scr", &b"boot.scr"[..]), "{asked}");
        }
        for asked in [
            "",
            "/",
            "/boot.scr",
            "./boot.scr",
            "board-profile",
            "board-profile/",
            "board-profile//boot.scr",
            "board-profile/../boot.scr",
            "board-profile/board-profile/boot.scr",
            "../../etc/passwd",
            "boot.scr/",
            "boot.scr\0",
            "BOOT.SCR",
            "other/boot.scr",
            "board-profileboot.scr",
        ] {
            assert!(files.find(asked).is_none(), "{asked}");
        }
    }
}
