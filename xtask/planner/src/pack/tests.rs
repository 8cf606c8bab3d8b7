//! Packing: the order of the files, the checksums, and headers equal to the `tar` crate's reading of them.

use super::*;
use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::Media;

fn source(name: &str, body: &'static [u8]) -> PartSource<'static> {
    PartSource {
        name: name.to_owned(),
        role: Role::Kernel,
        slots: vec![Slot { load: TruePhys(0x7802_0000), media: Media::Ram, window: 0x6e_0000 }],
        entry: None,
        uncompressed: None,
        content: Content::plain(body),
    }
}

fn subject() -> Subject {
    Subject {
        board: "p4080ds".to_owned(),
        core: "e500mc".to_owned(),
        epoch: 0,
        inputs: Vec::new(),
        plan_sha256: sha256(b"plan"),
        profile: "two-linux".to_owned(),
        soc: "p4080".to_owned(),
        source_date_epoch: 1_700_000_000,
    }
}

#[test]
fn the_checksums_come_last_and_list_the_others() {
    let bundle = assemble(subject(), vec![source("b", b"abc"), source("a", b"")]).unwrap();
    let names: Vec<_> = bundle.manifest.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["b", "a", CHECKSUMS]);
    let text = bundle.contents[2].pieces().concat();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b\n\
         e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n"
    );
}

#[test]
fn a_name_that_the_manifest_refuses_is_a_diagnostic() {
    let error = assemble(subject(), vec![source("../x", b"")]).unwrap_err();
    assert_eq!(error.code, crate::verify::MANIFEST);
    assert!(error.message.contains("parts[0].name"), "{}", error.message);
}

#[test]
fn another_reader_finds_the_same_files() {
    let bundle = assemble(subject(), vec![source("b", &[7; 1000]), source("a", b"")]).unwrap();
    let mut archive = Vec::new();
    write_tar(&mut archive, &bundle, &["signature\n".to_owned()]).unwrap();
    assert!(archive.len().is_multiple_of(512));
    let mut reader = tar::Archive::new(&archive[..]);
    let found: Vec<_> = reader
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 1_700_000_000);
            (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
        })
        .collect();
    let expected: Vec<_> =
        bundle.files(&["signature\n".to_owned()]).map(|(name, pieces)| (name.into_owned(), pieces.concat())).collect();
    assert_eq!(found, expected);
    assert_eq!(found[1], ("manifest.json.sig".to_owned(), b"signature\n".to_vec()));
}

#[test]
fn packing_copies_no_part() {
    let body: &'static [u8] = &[1; 100];
    let bundle = assemble(subject(), vec![source("b", body)]).unwrap();
    assert!(std::ptr::eq(bundle.contents[0].pieces()[1], body));
}
