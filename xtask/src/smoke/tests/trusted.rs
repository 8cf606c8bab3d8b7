//! A firmware that believes one key: it starts a configuration that this key has signed, and no other.

use citrine_formats::signature;
use citrine_planner::pack::configuration_signature;
use citrine_planner::verify::policy::Policy;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use super::*;
use crate::cli::Sign;
use crate::sign::{config_dir, development_key, trusted_line};

const READY: &str = "citrine: ready, 1 partitions, 0 errors";

fn key(seed: u8) -> PrivateKey {
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
    key.set_comment("a test");
    key
}

/// `hello` with a key to believe; in the directory are `key`, `key.pub`, the profile, and the keys whose bundles count.
fn trusting() -> (tempfile::TempDir, BundleArgs) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let hello = std::fs::read_to_string(crate::blessed::root().join("profiles/hello.toml")).unwrap();
    write(
        "trusting.toml",
        &(hello.replace("name = \"hello\"", "name = \"trusting\"") + "\n[trust]\nkey = \"key.pub\"\n"),
    );
    let (own, _) = development_key(&config_dir().unwrap()).unwrap();
    write("key", &key(7).to_openssh(LineEnding::LF).unwrap());
    write("key.pub", &key(7).public_key().to_openssh().unwrap());
    let theirs = key(7);
    let lines = [("citrine-dev", own.public_key()), ("tests", theirs.public_key())];
    write("keys", &lines.map(|(name, key)| trusted_line(name, key)).join("\n"));
    let args = arguments(&dir.path().join("trusting.toml").display().to_string());
    (dir, BundleArgs { media: crate::cli::Media::All, ..args })
}

/// The lines of the firmware's report, each awaited in turn; when each came.
fn report(parts: &Parts, stand_in: &StandIn) -> Vec<(String, Duration)> {
    let dir = tempfile::tempdir().unwrap();
    let transcript = dir.path().join("transcript");
    let boot = prepared(parts, stand_in, &transcript, dir.path()).unwrap();
    let lines = expected(parts, stand_in).unwrap().report;
    let mut session = Session::start(&boot).unwrap();
    let steps = report_steps(console(&boot), &lines, &[]);
    steps.iter().map(|step| (step.name.to_owned(), session.wait_for(step, &mut |_| {}).unwrap().at)).collect()
}

#[test]
fn only_what_the_key_has_signed_starts() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap();
    let (dir, args) = trusting();
    let file = |name: &str| dir.path().join(name);
    let bundle = build(&project, &args, &[Need::Bundle, Need::Qemu], &ui).unwrap();

    // Whoever builds has no key; whoever has it signs later, and the bundle stays the same one.
    let unsigned = Parts::read(&bundle.published.tar, Some(&file("keys")), &ui).unwrap().verified;
    assert_eq!(unsigned.unsigned, ["hv.dtb.sig", "hv-nor.dtb.sig"]);
    let demands = Policy { production: true, ..Policy::default() };
    assert_eq!(demands.judge_whole(&unsigned, "x").unwrap_err().code.to_string(), "K105");
    let sign = Sign {
        bundle: bundle.published.tar.clone(),
        key: file("key"),
        replace: false,
        output: Some(file("signed.tar")),
        keys: Some(file("keys")),
    };
    crate::cmd::sign::run(&sign, &ui).unwrap();
    let parts = Parts::read(&file("signed.tar"), Some(&file("keys")), &ui).unwrap();
    assert!(parts.verified.unsigned.is_empty() && parts.verified.signers.len() == 2);
    assert_eq!(parts.verified.identity, unsigned.identity);
    demands.judge_whole(&parts.verified, "x").unwrap();

    // The emulator's configuration is another one: without the key nobody can sign it.
    let refused = prepare(&project, &parts, &Hardware::default(), &ui).unwrap_err();
    assert_eq!(refused.0[0].code.to_string(), "K106");
    let hardware = Hardware { key: Some(file("key")), ..Hardware::default() };
    let mut stand_in = prepare(&project, &parts, &hardware, &ui).unwrap();
    let said = report(&parts, &stand_in);
    let at = |begins: &str| said.iter().find(|(line, _)| line.starts_with(begins)).unwrap().1;
    let took = at("config is signed by ").saturating_sub(at("config at "));
    println!("the check takes {} ms on QEMU", took.as_millis());
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(said.last().unwrap().0, READY);

    // From the flash, too, where the signature has a sector of its own.
    let in_flash = prepare(&project, &parts, &Hardware { flash: true, ..hardware }, &ui).unwrap();
    assert_eq!(report(&parts, &in_flash).last().unwrap().0, READY);

    // Each of these stops with its message, and nothing has happened yet.
    let index = |stand_in: &StandIn, name: &str| stand_in.substitutes.iter().position(|s| s.name == name).unwrap();
    let (tree, blob) = (index(&stand_in, "hv.dtb"), index(&stand_in, "hv.dtb.sig"));
    let good = [stand_in.substitutes[tree].bytes.clone(), stand_in.substitutes[blob].bytes.clone()];
    let mut flipped = good[0].clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let other = configuration_signature(&key(8), &good[0]).unwrap().to_vec();
    let cases = [
        (flipped, good[1].clone(), "its signature does not match"),
        (good[0].clone(), vec![0; signature::LEN], "nobody has signed it"),
        (good[0].clone(), other, "not by the key that this firmware believes"),
    ];
    for (new_tree, new_blob, why) in cases {
        stand_in.substitutes[tree].bytes = new_tree;
        stand_in.substitutes[blob].bytes = new_blob;
        let said: Vec<String> = report(&parts, &stand_in).into_iter().map(|(line, _)| line).collect();
        let [.., error, end] = said.as_slice() else { panic!("{said:?}") };
        assert!(error.starts_with("error: the configuration tree is not believed: ") && error.contains(why), "{error}");
        assert_eq!(end, "citrine: FAILED, 1 errors");
        assert!(said.iter().all(|line| !line.starts_with("cpus: ") && !line.starts_with("partition ")), "{said:?}");
        assert!(expected(&parts, &stand_in).unwrap().loads.is_empty());
    }
}
