//! `reproduce` on a real bundle: identical where nothing changed, and what is said where something did. The cache is
//! used, so that it takes seconds; the long proofs build everything.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use common::Checkout;

const HELLO: [&str; 6] = ["bundle", "--board", "p4080ds", "--profile", "hello", "--yes"];
const TAR: &str = "artifacts/out/p4080ds-hello.tar";

/// Replaces a text in a file of the checkout.
fn edit(checkout: &Checkout, file: &str, from: &str, to: &str) {
    let path = checkout.root().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_bundle_is_the_same_again_until_its_recipes_change() {
    let checkout = Checkout::new();
    // A file of the user's own comes out of the bundle again; it is the built one here.
    let first = checkout.run(&HELLO);
    let identity = first.result()["identity"].clone();
    let own = checkout.beside("own.uImage");
    std::fs::copy(checkout.root().join("artifacts/out/p4080ds-hello/hv.uImage"), &own).unwrap();

    let again = checkout.run(&["reproduce", TAR, "--cached"]);
    let result = again.result();
    assert_eq!((&result["identical"], &result["identity_now"]), (&true.into(), &identity), "{result}");
    let parts = result["parts"].as_array().unwrap();
    assert!(parts.len() >= 7 && parts.iter().all(|part| part["verdict"] == "identical"), "{result}");
    assert_eq!(result["unproved"], serde_json::json!(["kernel.uImage", "hv.uImage", "p4080ds.dtb"]));

    let given = checkout.run(&[&HELLO[..], &["--hypervisor", own.to_str().unwrap()]].concat());
    assert_ne!(given.result()["identity"], identity);
    std::fs::remove_file(&own).unwrap();
    let again = checkout.run(&["reproduce", TAR, "--cached"]);
    let how = |part: &str| {
        let parts = again.result()["parts"].as_array().unwrap();
        parts.iter().find(|found| found["part"] == part).unwrap()["how"].clone()
    };
    assert_eq!(again.result()["identical"], true, "{:#?}", again.objects);
    assert_eq!(how("hv.uImage"), "given");

    // The template and the profile change; the profile is the bundle's own, so only the script differs.
    edit(&checkout, "templates/boot.cmd.j2", "setenv", "setenv ");
    edit(&checkout, "profiles/hello.toml", "cpus", "# cpus\ncpus");
    let changed = checkout.run(&["reproduce", TAR, "--cached"]);
    let error = changed.error();
    assert_eq!((&error["code"], &error["facts"]["part"]), (&"V102".into(), &"boot.scr".into()), "{error}");
    assert!(error["facts"]["field"].as_str().unwrap().starts_with("line "), "{error}");
    let result = changed.objects.iter().find(|object| object["type"] == "reproduce").unwrap();
    assert_eq!(result["identical"], false);
    assert_eq!(result["inputs"].as_array().unwrap().len(), 1, "{result}");
    assert_eq!(result["inputs"][0]["what"], "recipe templates/boot.cmd.j2");

    // Sources come from where the user says, and from nowhere else.
    std::fs::create_dir(checkout.beside("sources")).unwrap();
    let gone = checkout.run(&["reproduce", TAR, "--cached", "--sources", checkout.beside("sources").to_str().unwrap()]);
    assert_eq!(gone.error()["code"], "V101", "{:#?}", gone.objects);
    // Nothing is believed that is not signed.
    let path = checkout.root().join(TAR);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.iter_mut().rev().find(|byte| **byte != 0).unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(checkout.run(&["reproduce", TAR, "--cached"]).error()["code"], "B107");
}
