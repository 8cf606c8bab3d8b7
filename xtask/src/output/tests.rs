//! Publication: modes, both names, and what is left when the tool is killed or the disk is full.
//!
//! The child of the last two tests is this test program itself, told by an environment variable what to do.

use super::*;
use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::{Media, Role, Slot};
use citrine_planner::board::Board;
use citrine_planner::input;
use citrine_planner::pack::{Content, PartSource, Subject, assemble, sha256, sign};
use citrine_planner::verify::keys::TrustedKeys;
use citrine_planner::verify::verify;
use ssh_key::PrivateKey;
use ssh_key::private::Ed25519Keypair;
use std::process::{Command, Stdio};

const NAME: &str = "p4080ds-two-linux";
/// Where the parts go, in the board's image area.
const BASE: u64 = 0x7800_0000;
const FIRST: u64 = BASE + 0x2_0000;
const LAST: u64 = BASE + 0x10_0000;
const OUT: &str = "CITRINE_TEST_PUBLISH_TO";

fn key() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]))
}

/// A bundle whose parts are full of the byte `fill`.
fn bundle(fill: u8) -> (Assembled<'static>, Vec<String>) {
    let part = |name: &str, load: u64, len: usize| PartSource {
        name: name.to_owned(),
        role: Role::Kernel,
        slots: vec![Slot { load: TruePhys(load), media: Media::Ram, window: len as u64 }],
        entry: None,
        uncompressed: None,
        content: Content::plain(vec![fill; len]),
    };
    let subject = Subject {
        board: "p4080ds".to_owned(),
        core: "e500mc".to_owned(),
        epoch: 0,
        inputs: Vec::new(),
        plan_sha256: sha256(b""),
        profile: "two-linux".to_owned(),
        soc: "p4080".to_owned(),
        source_date_epoch: 1_700_000_000,
    };
    let bundle = assemble(subject, vec![part("a", FIRST, 300_000), part("b", LAST, 1_000)]).unwrap();
    let signatures = sign(&bundle, &[key()]).unwrap();
    (bundle, signatures)
}

fn board() -> Board {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../boards/p4080ds.toml");
    input::board::parse("board.toml", &std::fs::read_to_string(path).unwrap()).0.unwrap()
}

/// Publishes a bundle with its RAM image.
fn publish(out: &Path, name: &str, bundle: &Assembled<'_>, signatures: &[String]) -> diag::Result<Published> {
    let ram = RamImage::of_bundle(&board(), &bundle.manifest, &bundle.contents).unwrap();
    super::publish(out, name, bundle, signatures, Some(&ram))
}

fn is_current(out: &Path, name: &str, bundle: &Assembled<'_>, signatures: &[String]) -> Option<Published> {
    let ram = RamImage::of_bundle(&board(), &bundle.manifest, &bundle.contents).unwrap();
    super::is_current(out, name, bundle, signatures, Some(&ram))
}

/// Checks that `out` shows a whole RAM image.
fn image_is_whole(out: &Path) {
    let image = std::fs::read(out.join(format!("{NAME}.ram.img"))).unwrap();
    let fill = |from: u64, len: usize| {
        let from = usize::try_from(from - BASE).unwrap();
        let bytes = &image[from..from + len];
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        bytes[0]
    };
    assert_eq!(image.len() as u64, LAST - BASE + 1_000);
    assert_eq!(fill(FIRST, 300_000), fill(LAST, 1_000));
    assert!(image[..usize::try_from(FIRST - BASE).unwrap()].iter().all(|byte| *byte == 0));
}

/// Checks that `out` shows a whole archive and a whole directory, and returns what fills them.
fn shown(out: &Path) -> (u8, u8) {
    let keys = TrustedKeys::parse(&format!("a {}", key().public_key().to_openssh().unwrap())).unwrap();
    let mut fill = 0;
    let archive = File::open(out.join(format!("{NAME}.tar"))).unwrap();
    let verified = verify(archive, &keys, &mut |part, bytes| {
        if part.name == "a" {
            fill = bytes[0];
        }
        Ok(())
    });
    verified.unwrap();
    let sums = std::fs::read_to_string(out.join(NAME).join("SHA256SUMS")).unwrap();
    for line in sums.lines() {
        let (hash, name) = line.split_once("  ").unwrap();
        assert_eq!(sha256(&std::fs::read(out.join(NAME).join(name)).unwrap()).to_string(), hash);
    }
    image_is_whole(out);
    (fill, std::fs::read(out.join(NAME).join("b")).unwrap()[0])
}

fn hidden(out: &Path) -> usize {
    let names = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().contains(MARK)).count()
}

#[test]
fn a_bundle_replaces_the_one_before() {
    let out = tempfile::tempdir().unwrap();
    for fill in [1, 2] {
        let (bundle, signatures) = bundle(fill);
        assert_eq!(is_current(out.path(), NAME, &bundle, &signatures), None);
        let published = publish(out.path(), NAME, &bundle, &signatures).unwrap();
        assert_eq!(is_current(out.path(), NAME, &bundle, &signatures), Some(published.clone()));
        assert_eq!(shown(out.path()), (fill, fill));
        // The directory behind the link and nothing else.
        assert_eq!(hidden(out.path()), 1);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&published.tar), mode(&published.dir), mode(&published.ram)), (0o644, 0o755, 0o644));
        assert_eq!(mode(&published.dir.join("manifest.json.sig")), 0o644);
    }
}

/// Changes a byte of a RAM image.
fn change(image: &Path, addr: u64) {
    let mut file = File::options().write(true).open(image).unwrap();
    file.seek(SeekFrom::Start(addr - BASE)).unwrap();
    file.write_all(b"x").unwrap();
}

#[test]
fn the_image_of_another_bundle_does_not_stay() {
    let out = tempfile::tempdir().unwrap();
    let (bundle, signatures) = bundle(1);
    let published = publish(out.path(), NAME, &bundle, &signatures).unwrap();
    assert_eq!(super::is_current(out.path(), NAME, &bundle, &signatures, None), None);
    super::publish(out.path(), NAME, &bundle, &signatures, None).unwrap();
    assert!(!published.ram.exists());
    assert!(super::is_current(out.path(), NAME, &bundle, &signatures, None).is_some());
}

#[test]
fn gaps_of_an_image_take_no_room() {
    use std::os::unix::fs::MetadataExt as _;
    let out = tempfile::tempdir().unwrap();
    let (bundle, signatures) = bundle(1);
    let published = publish(out.path(), NAME, &bundle, &signatures).unwrap();
    let file = std::fs::metadata(published.ram).unwrap();
    assert!(file.blocks() * 512 < file.len() / 2, "{} of {}", file.blocks() * 512, file.len());
}

#[test]
fn a_bundle_that_is_half_there_is_not_current() {
    let out = tempfile::tempdir().unwrap();
    let (new, signatures) = bundle(1);
    let published = publish(out.path(), NAME, &new, &signatures).unwrap();
    let (old, old_signatures) = bundle(2);
    for spoil in [
        &|| std::fs::remove_file(published.dir.join("b")).unwrap() as (),
        &|| std::fs::write(published.dir.join("b"), "x").unwrap(),
        &|| std::fs::write(published.dir.join("manifest.json"), "x").unwrap(),
        &|| std::fs::write(&published.tar, "x").unwrap(),
        &|| {
            let mut bytes = Vec::new();
            write_tar(&mut bytes, &old, &old_signatures).unwrap();
            std::fs::write(&published.tar, bytes).unwrap();
        },
        &|| std::fs::remove_file(&published.ram).unwrap(),
        &|| change(&published.ram, FIRST + 1),
        &|| change(&published.ram, FIRST - 1),
        &|| File::options().append(true).open(&published.ram).unwrap().write_all(b"x").unwrap(),
    ] as [&dyn Fn(); 9]
    {
        spoil();
        assert_eq!(is_current(out.path(), NAME, &new, &signatures), None);
        publish(out.path(), NAME, &new, &signatures).unwrap();
        assert!(is_current(out.path(), NAME, &new, &signatures).is_some());
    }
}

#[test]
fn names_that_begin_alike_leave_each_other_alone() {
    let out = tempfile::tempdir().unwrap();
    let (bundle, signatures) = bundle(1);
    for name in ["a.b", "a", "a"] {
        publish(out.path(), name, &bundle, &signatures).unwrap();
    }
    assert!(is_current(out.path(), "a.b", &bundle, &signatures).is_some());
}

#[test]
fn what_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (bundle, signatures) = bundle(1);
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = publish(&file.join("out"), NAME, &bundle, &signatures).unwrap_err();
    assert_eq!(error.code, CANNOT_WRITE);
    assert!(error.message.contains("file/out"), "{}", error.message);
    // A directory of the user's where the link should go.
    std::fs::create_dir(dir.path().join(NAME)).unwrap();
    let error = publish(dir.path(), NAME, &bundle, &signatures).unwrap_err();
    assert!(error.help.as_deref().unwrap().contains("out of the way"), "{error:?}");
    assert_eq!(hidden(dir.path()), 0);
    // One where the archive should go stays too.
    std::fs::create_dir_all(dir.path().join("other.tar/mine")).unwrap();
    publish(dir.path(), "other", &bundle, &signatures).unwrap_err();
    assert!(dir.path().join("other.tar/mine").is_dir());
}

/// Not a test by itself: what the child processes of the following tests run.
#[test]
fn child() {
    let Some(out) = std::env::var_os(OUT).map(PathBuf::from) else {
        return;
    };
    for fill in (3..=200).cycle() {
        let (bundle, signatures) = bundle(fill);
        if let Err(error) = publish(&out, NAME, &bundle, &signatures) {
            println!("{}: {}", error.code, error.message);
            return;
        }
    }
}

fn child_command(out: &Path, shell: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{shell} exec \"$0\" --exact output::tests::child --nocapture")]);
    command.arg(std::env::current_exe().unwrap()).env(OUT, out);
    command
}

#[test]
fn a_tool_killed_at_any_moment_leaves_whole_bundles() {
    let out = tempfile::tempdir().unwrap();
    let (bundle, signatures) = bundle(1);
    publish(out.path(), NAME, &bundle, &signatures).unwrap();
    let mut published = 0;
    for round in 0..40u64 {
        let mut child = child_command(out.path(), "").stdout(Stdio::null()).spawn().unwrap();
        // Odd steps, so that the kills fall on different moments.
        std::thread::sleep(std::time::Duration::from_micros(2_000 + 1_237 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        published += u32::from(shown(out.path()) != (1, 1));
    }
    // Else no child came far enough to be killed at its work.
    assert!(published > 0);
    publish(out.path(), NAME, &bundle, &signatures).unwrap();
    assert_eq!((shown(out.path()), hidden(out.path())), ((1, 1), 1));
}

#[test]
fn a_full_disk_leaves_the_bundle_before() {
    let out = tempfile::tempdir().unwrap();
    let (bundle, signatures) = bundle(1);
    publish(out.path(), NAME, &bundle, &signatures).unwrap();
    // A limit on the size of a file stands for a full disk; with its signal ignored, writing fails as there.
    let output = child_command(out.path(), "trap '' XFSZ; ulimit -f 200;").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("O101: ") && text.contains(NAME), "{text}");
    assert_eq!((shown(out.path()), hidden(out.path())), ((1, 1), 1));
}

#[test]
fn a_file_that_the_user_names_is_replaced_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map.svg");
    write_file(&path, b"old").unwrap();
    write_file(&path, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    // A link stays a link, and what is no file is written to.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    write_file(&link, b"newer").unwrap();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&path).unwrap(), b"newer");
    write_file(Path::new("/dev/null"), b"gone").unwrap();
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    for wrong in [dir.path().to_owned(), path.join("x"), dir.path().join("none/x")] {
        assert_eq!(write_file(&wrong, b"x").unwrap_err().code, CANNOT_WRITE, "{}", wrong.display());
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn parts_that_make_no_ram_image_say_why() {
    use crate::report::{Width, to_text};

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        load: u64,
        size: usize,
    }
    let dir = "tests/bad/O104-outside-the-image-area";
    let text = std::fs::read_to_string(crate::blessed::root().join(dir).join("part.toml")).unwrap();
    let Case { name, load, size } = toml::from_str(&text).unwrap();
    let bytes = vec![0; size];
    let error = RamImage::of(&board(), vec![(&name, TruePhys(load), vec![&bytes])]).unwrap_err();
    let text = format!("{}\n", to_text(&error, &Default::default(), Width::Plain));
    assert_eq!(crate::blessed::compare(&format!("{dir}/expected.txt"), &text), None);
}
