//! A kernel that is not the one of the bundle: its partition is refused, and the other does not notice.

use std::time::Duration;

use citrine_formats::uimage::{HEADER_LEN, Header};

use super::*;
use crate::smoke::answers::{loaded, overview};
use crate::smoke::boot::Reported;
use crate::smoke::script::{self, Live};
use crate::smoke::steps::Steps;
use crate::smoke::system::System;

/// Changes one byte of a uImage's payload, and makes its CRCs right again: nobody but a digest sees it.
fn with_another_byte(image: &mut [u8]) {
    let header = Header::parse(image).unwrap();
    let (head, payload) = image.split_at_mut(HEADER_LEN);
    *payload.last_mut().unwrap() ^= 0x10;
    let name = header.name.to_string();
    let mut new = Header::for_payload(header.kind, header.compression, &name, header.time, payload).unwrap();
    (new.load, new.entry) = (header.load, header.entry);
    head.copy_from_slice(&new.to_bytes());
}

#[test]
fn a_kernel_with_another_byte_is_refused_and_the_other_partition_boots() {
    const PART: &str = "kernel-hello.uImage";
    let ui = Ui::new(true);
    let project = Project::find().unwrap();
    let profile = project.root().join("tests/systems/linux-and-hello.toml");
    let bundle = build(&project, &arguments(profile.to_str().unwrap()), &[Need::Bundle, Need::Qemu], &ui).unwrap();
    let mut parts = Parts::read(&bundle.published.tar, None, &ui).unwrap();
    with_another_byte(parts.bytes.get_mut(PART).unwrap());

    let stand_in = prepare(&project, &parts, &Hardware::default(), &ui).unwrap();
    let expected = expected(&parts, &stand_in).unwrap();
    let found = citrine_planner::pack::sha256(&parts.bytes[PART]);
    let signed = parts.verified.manifest.parts.iter().find(|part| part.name == PART).unwrap().sha256.unwrap();
    let refusal = format!("p2-hello: NOT STARTED: kernel: SHA-256 does not match: expected {signed}, found {found}");
    assert!(expected.loads.contains(&refusal), "{:#?}", expected.loads);

    // U-Boot accepts it, since it knows no digest.
    let dir = tempfile::tempdir().unwrap();
    let transcript = dir.path().join("transcript");
    let boot = prepared(&parts, &stand_in, &transcript, dir.path()).unwrap();
    let Reported { mut session, mut said, .. } = start(&boot, &expected.report, &mut |_| {}).unwrap();
    let refused = Expect {
        name: "p2-hello is refused",
        source: console(&boot),
        marker: Marker::Text(refusal),
        timeout: Duration::from_secs(120),
        failures: &[],
    };
    said.extend(session.wait_for(&refused, &mut |_| {}).unwrap().bytes);

    let mut system = System::of(&parts.verified.manifest, &stand_in.plan);
    let hello = system.guests.pop().unwrap();
    let image = hello.images.first().unwrap();
    assert!(loaded(&hello, image, &String::from_utf8_lossy(&said)).is_err(), "its hash is not the manifest's");
    let loads: Vec<String> = expected.loads.iter().filter(|line| line.starts_with("p1-linux: ")).cloned().collect();
    // The shell's first prompt came before the refusal, and has been read.
    session.send(system.hypervisor(), b"\r").unwrap();
    let mut live = Live { session: &mut session, show: &mut |_| {} };
    let prompts = script::run(&mut live, &system, &Steps::default(), &loads, said).unwrap();
    assert_eq!(prompts.len(), 1);

    // After all that, the refused one is where it was.
    session.send(system.hypervisor(), b"info\r").unwrap();
    let prompt = Expect { marker: Marker::Text("HV> ".to_owned()), ..refused };
    let text = session.wait_for(&prompt, &mut |_| {}).unwrap().bytes;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(overview(&text, [(&system.guests[0], "running"), (&hello, "stopped")]), Ok(()), "{text}");
}
