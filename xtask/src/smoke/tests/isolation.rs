//! The control of the tests of isolation: with a firmware that does not isolate, the sentinel must break. What it
//! says then is what the test of the real firmware forbids.

use super::*;
use crate::build::hypervisor_without_isolation;
use crate::smoke::boot::Reported;
use crate::smoke::script::{self, Live};
use crate::smoke::steps::Steps;
use crate::smoke::system::System;

/// What the sentinel says of damage.
const DAMAGE: &str = "CORRUPTED";

#[test]
fn without_isolation_the_sentinel_is_damaged() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap();
    let bundle = build(&project, &arguments("hostile"), &[Need::Bundle, Need::Qemu], &ui).unwrap();
    let mut parts = Parts::read(&bundle.published.tar, None, &ui).unwrap();
    let broken = hypervisor_without_isolation(project.root(), &parts.verified.manifest.core).unwrap();
    *parts.bytes.get_mut("hv.uImage").unwrap() = broken;

    let stand_in = prepare(&project, &parts, &Hardware::default(), &ui).unwrap();
    let expected = expected(&parts, &stand_in).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let transcript = dir.path().join("transcript");
    let boot = prepared(&parts, &stand_in, &transcript, dir.path()).unwrap();
    let Reported { mut session, said, .. } = start(&boot, &expected.report, &mut |_| {}).unwrap();
    let text = String::from_utf8_lossy(&said).into_owned();
    assert!(text.contains("WARNING: built without isolation, for tests only"), "{text}");

    let system = System::of(&parts.verified.manifest, &stand_in.plan);
    let mut steps = Steps::of(project.root(), "hostile", &system).unwrap();
    assert!(steps.never.iter().any(|text| text == DAMAGE), "{:?}", steps.never);
    // The hostile guest itself tells of success before anybody else does.
    steps.never.retain(|text| text == DAMAGE);
    let mut live = Live { session: &mut session, show: &mut |_| {} };
    let refused = script::run(&mut live, &system, &steps, &expected.loads, said).unwrap_err();
    drop(session);
    assert_eq!(refused.code.to_string(), "Q103", "{refused:#?}");
    assert!(refused.message.contains("p1 says `sentinel: CORRUPTED: "), "{refused:#?}");
    let hostile = std::fs::read(dir.path().join("transcript.p2.log")).unwrap();
    let hostile = String::from_utf8_lossy(&hostile);
    assert!(hostile.contains("hostile: BREACH: swept write "), "{hostile}");
}
