//! The main job, whole: a real bundle, judged by programs that are not ours, booted on the real QEMU, and
//! refused in every way that it can be wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod serving;
mod systems;

use std::ffi::OsStr;
use std::path::Path;

use common::{Checkout, finish, tool};

fn os(path: &Path) -> &OsStr {
    path.as_os_str()
}

/// One bundle is built and looked at from all sides: building is the slow part.
#[test]
fn a_bundle_is_accepted_by_everybody_elses_tools_and_boots() {
    let checkout = Checkout::new();
    let first = checkout.bundle(&[]);
    let identity = first.result()["identity"].clone();
    assert_eq!(first.result()["unchanged"], false);
    let dir = checkout.part("");

    the_ram_image_has_every_part_at_its_address(&checkout, first.result());

    // ssh-keygen accepts our signature, and refuses a stranger's.
    let keys = checkout.keys().join("allowed_signers");
    let verify = |signature: &Path| {
        let manifest = std::fs::File::open(checkout.part("manifest.json")).unwrap();
        std::process::Command::new("ssh-keygen")
            .args(["-Y", "verify", "-n", "citrine-bundle", "-I", "citrine-dev", "-f"])
            .args([os(&keys), OsStr::new("-s"), os(signature)])
            .stdin(manifest)
            .output()
            .unwrap()
    };
    let good = verify(&checkout.part("manifest.json.sig"));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let stranger = checkout.beside("stranger");
    tool(
        "ssh-keygen",
        &["-q", "-t", "ed25519", "-N", ""]
            .map(OsStr::new)
            .into_iter()
            .chain([OsStr::new("-f"), os(&stranger)])
            .collect::<Vec<_>>(),
        &dir,
    );
    let copy = checkout.beside("manifest.json");
    std::fs::copy(checkout.part("manifest.json"), &copy).unwrap();
    tool(
        "ssh-keygen",
        &[
            OsStr::new("-q"),
            OsStr::new("-Y"),
            OsStr::new("sign"),
            OsStr::new("-n"),
            OsStr::new("citrine-bundle"),
            OsStr::new("-f"),
            os(&stranger),
            os(&copy),
        ],
        &dir,
    );
    assert!(!verify(&checkout.beside("manifest.json.sig")).status.success());

    // Everybody else's tools.
    tool("sha256sum", &["-c", "--strict", "SHA256SUMS"].map(OsStr::new), &dir);
    let listed = tool("tar", &[OsStr::new("--list"), OsStr::new("--file"), os(&checkout.tar())], &dir);
    let names: Vec<&str> = listed.lines().collect();
    assert_eq!(names[..2], ["manifest.json", "manifest.json.sig"]);
    for image in ["kernel.uImage", "rootfs.uImage", "hv.uImage", "boot.scr"] {
        assert!(names.contains(&image), "{names:?}");
        let shown = tool("mkimage", &[OsStr::new("-l"), os(&checkout.part(image))], &dir);
        assert!(shown.contains("Image Name:") && shown.contains("PowerPC"), "{image}: {shown}");
        let out = checkout.beside("dumped");
        tool(
            "dumpimage",
            &[
                OsStr::new("-T"),
                OsStr::new(if image == "boot.scr" { "script" } else { "kernel" }),
                OsStr::new("-p"),
                OsStr::new("0"),
                OsStr::new("-o"),
                os(&out),
                os(&checkout.part(image)),
            ],
            &dir,
        );
    }
    let dts = tool("dtc", &["-q", "-I", "dtb", "-O", "dts", "hv.dtb"].map(OsStr::new), &dir);
    std::fs::write(checkout.beside("hv.dts"), &dts).unwrap();
    let again = checkout.beside("again.dtb");
    tool(
        "dtc",
        &[
            OsStr::new("-q"),
            OsStr::new("-I"),
            OsStr::new("dts"),
            OsStr::new("-O"),
            OsStr::new("dtb"),
            OsStr::new("-o"),
            os(&again),
            os(&checkout.beside("hv.dts")),
        ],
        &dir,
    );
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(checkout.part("hv.dtb")).unwrap());

    // Ours says the same, and nothing is written when nothing has changed.
    let verified = checkout.run(&["verify", "artifacts/out/p4080ds-two-linux.tar", "--board", "p4080ds"]);
    assert_eq!(verified.result()["identity"], identity);
    let second = checkout.bundle(&["--offline"]);
    assert_eq!((&second.result()["identity"], &second.result()["unchanged"]), (&identity, &true.into()));

    // The real board's trees give every guest a tree.
    for (partition, cpus) in [("p1", 7), ("p2", 1)] {
        let target = ["--board", "p4080ds", "--profile", "two-linux", "--partition", partition];
        let run = checkout.run(&[&["guest-tree", "--offline"], &target[..]].concat());
        let text = run.result()["text"].as_str().unwrap().to_owned();
        assert!(text.contains("compatible = \"fsl,P4080DS-hv\";"), "{text}");
        assert_eq!(text.matches("cpu@").count(), cpus, "{text}");
        assert!(text.contains("linux,initrd-end"), "the RAM disk has been built: {text}");
    }

    // The real U-Boot boots it into our firmware, and both partitions come up.
    let qemu = checkout.run(&["qemu", "--board", "p4080ds", "--profile", "two-linux", "--yes"]);
    assert_eq!((&qemu.result()["passed"], &qemu.result()["identity"]), (&true.into(), &identity));
    let transcript = std::fs::read(qemu.result()["transcript"].as_str().unwrap()).unwrap();
    let transcript = String::from_utf8_lossy(&transcript);
    // Behind the console's own bytes stand the tool's remarks.
    let (transcript, _) = transcript.split_once("\n---- end ----").unwrap();
    for line in [
        "cpus: 8 of 8 started",
        "partition p1-linux: 7 CPUs (0-6)",
        "partition p2-linux: 1 CPU (7)",
        "memory p1-memory: 0x0..0x40000000, 1 GiB",
        "memory p2-memory: 0x40000000..0x60000000, 512 MiB",
        "citrine: ready, 2 partitions, 0 errors",
    ] {
        assert!(transcript.contains(line), "{line} is missing in:\n{transcript}");
    }
    assert_eq!(
        transcript.matches("CRC ok").count(),
        6,
        "two images of two partitions, and of one again:\n{transcript}"
    );
    let prompts = qemu.result()["prompts"].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(prompts, ["p1", "p2"]);
    for console in ["hv", "p1", "p2"] {
        let file = qemu.result()["consoles"][console].as_str().unwrap();
        assert!(std::fs::metadata(file).unwrap().len() > 0, "{file}");
    }
    assert_eq!(transcript.matches("substituted ").count(), 2, "the substituted parts are named:\n{transcript}");

    // What cannot work is refused with one message, and the bundle from before stays.
    let before = std::fs::read(checkout.tar()).unwrap();
    broken_images_are_refused(&checkout);
    a_missing_dtc_is_named(&checkout);
    assert_eq!(std::fs::read(checkout.tar()).unwrap(), before);
    assert_eq!(checkout.run(&["verify", "artifacts/out/p4080ds-two-linux.tar"]).result()["identity"], identity);
}

fn the_ram_image_has_every_part_at_its_address(checkout: &Checkout, bundle: &serde_json::Value) {
    let told = &bundle["ram_image"];
    let image = std::fs::read(told["file"].as_str().unwrap()).unwrap();
    assert_eq!((&told["load"], &told["size"]), (&0x7800_0000.into(), &image.len().into()));
    let mut rest = image.clone();
    let mut parts = 0;
    for part in bundle["parts"].as_array().unwrap() {
        let Some(load) = part["slots"].as_array().and_then(|slots| slots.first()?["load"].as_u64()) else { continue };
        let bytes = std::fs::read(checkout.part(part["name"].as_str().unwrap())).unwrap();
        let from = usize::try_from(load - 0x7800_0000).unwrap();
        assert!(image[from..from + bytes.len()] == bytes, "{part}");
        rest[from..from + bytes.len()].fill(0);
        parts += 1;
    }
    assert_eq!(parts, 6);
    assert!(rest.iter().all(|byte| *byte == 0), "nothing lies between the parts");
}

fn broken_images_are_refused(checkout: &Checkout) {
    let bytes = |name: &str| std::fs::read(checkout.part(name)).unwrap();
    let truncated = bytes("kernel.uImage")[..100_000].to_vec();
    let mut wrong_crc = bytes("rootfs.uImage");
    *wrong_crc.last_mut().unwrap() ^= 1;
    let arm = checkout.beside("arm.uImage");
    let payload = checkout.beside("payload");
    std::fs::write(&payload, [0; 1000]).unwrap();
    let args = ["-A", "arm", "-O", "linux", "-T", "kernel", "-C", "none", "-a", "0", "-e", "0", "-n", "hv", "-d"];
    tool(
        "mkimage",
        &args.map(OsStr::new).into_iter().chain([os(&payload), os(&arm)]).collect::<Vec<_>>(),
        &checkout.root(),
    );
    for (flag, name, bytes, code) in [
        ("--kernel", "truncated.uImage", truncated, "I101"),
        ("--rootfs", "wrong-crc.uImage", wrong_crc, "I101"),
        ("--hypervisor", "arm.uImage", std::fs::read(&arm).unwrap(), "I102"),
        ("--kernel", "missing.uImage", Vec::new(), "C108"),
    ] {
        let file = checkout.beside(name);
        if code != "C108" {
            std::fs::write(&file, bytes).unwrap();
        }
        let run = checkout.bundle(&[flag, file.to_str().unwrap()]);
        let error = run.error();
        assert_eq!(error["code"], code, "{error:#}");
        assert!(error["message"].as_str().unwrap().contains(name), "{error:#}");
        assert!(error["help"].is_string(), "{error:#}");
    }
}

fn a_missing_dtc_is_named(checkout: &Checkout) {
    let mut command = checkout.command(&["bundle", "--board", "p4080ds", "--profile", "two-linux"]);
    command.env("PATH", checkout.beside("nothing-here"));
    let run = finish(command);
    let error = run.error();
    assert_eq!(error["code"], "R104", "{error:#}");
    assert!(error["message"].as_str().unwrap().contains("dtc"), "{error:#}");
}

#[test]
fn an_older_epoch_comes_back_only_where_that_is_demanded() {
    let checkout = Checkout::new();
    let profile = checkout.root().join("profiles/hello.toml");
    let text = std::fs::read_to_string(&profile).unwrap();
    let words = ["bundle", "--board", "p4080ds", "--profile", "hello", "--media", "nor", "--yes"];
    std::fs::write(&profile, format!("epoch = 2\n{text}")).unwrap();
    checkout.run(&words).result();
    let (tar, installed) = (checkout.root().join("artifacts/out/p4080ds-hello.tar"), checkout.beside("installed.tar"));
    std::fs::copy(tar, &installed).unwrap();

    std::fs::write(&profile, format!("epoch = 1\n{text}")).unwrap();
    let words = [&words[..], &["--installed", installed.to_str().unwrap()]].concat();
    assert_eq!(checkout.run(&words).error()["code"], "B119");
    checkout.run(&[&words[..], &["--allow-rollback"]].concat()).result();
    let manifest = std::fs::read(checkout.root().join("artifacts/out/p4080ds-hello/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["epoch"], 1);
    let inputs = manifest["inputs"].as_array().unwrap();
    assert!(inputs.iter().any(|input| input["version"] == "epoch 2, left with --allow-rollback"), "{inputs:#?}");
}

/// The harness reads every line as an object.
#[test]
fn promises_for_machines_are_objects_only() {
    let checkout = Checkout::new();
    let table = "| P1 | It holds. | `xtask proofs that_takes_hours` |\n";
    std::fs::write(checkout.root().join("docs/promises.md"), table).unwrap();
    let run = checkout.run(&["promises", "--yes"]);
    assert_eq!((run.result()["verdict"].as_str(), run.objects.len()), (Some("not run"), 1), "{:#?}", run.objects);
}
