//! The same firmware on other machines and with other partitions, booted on the real QEMU.

use crate::common::{Checkout, Run};

/// Changes a file of the checkout, where `old` stands once.
fn replace(checkout: &Checkout, file: &str, changes: &[(&str, &str)]) {
    let path = checkout.root().join(file);
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (old, new) in changes {
        assert_eq!(text.matches(old).count(), 1, "{old} in {file}");
        text = text.replace(old, new);
    }
    std::fs::write(path, text).unwrap();
}

/// A boot that passes: its transcript, and how many partitions came to their prompts.
fn passes(run: &Run) -> (String, usize) {
    let result = run.result();
    assert_eq!(result["passed"], true);
    let transcript = std::fs::read(result["transcript"].as_str().unwrap()).unwrap();
    println!("prompts: {}", result["prompts"]);
    (String::from_utf8_lossy(&transcript).into_owned(), result["prompts"].as_object().unwrap().len())
}

/// The 32-bit firmware needs nothing that an e5500 has not.
#[test]
fn the_firmware_runs_on_an_e5500_and_refuses_an_e6500() {
    let checkout = Checkout::new();
    let boot =
        |cpu: &str| checkout.run(&["qemu", "--board", "p4080ds", "--profile", "two-linux", "--yes", "--cpu", cpu]);
    let (transcript, prompts) = passes(&boot("e5500"));
    assert!(transcript.contains(" on e5500 ") && transcript.contains("cpus: 8 of 8 started"), "{transcript}");
    assert_eq!(prompts, 2);

    let refused = boot("e6500");
    let error = refused.error();
    assert_eq!(error["code"], "Q103", "{error:#}");
    let said = error["primary"]["text"].as_str().unwrap();
    assert!(said.contains("error: this firmware is for e500mc and e5500 cores"), "{said}");
}

/// However the parts of one signed bundle come to the hypervisor, both partitions come to their prompts.
#[test]
fn one_bundle_boots_from_memory_network_and_flash() {
    let checkout = Checkout::new();
    let made = checkout.run(&["bundle", "--board", "p4080ds", "--profile", "two-linux", "--media", "all", "--yes"]);
    let bundle = made.result()["tar"].as_str().unwrap().to_owned();
    for (way, says, and) in [
        (&["--load", "preloaded"], "citrine: parts are loaded already", "\npreload  "),
        (&["--load", "tftp"], "citrine: loading from p4080ds-two-linux", "Filename 'p4080ds-two-linux/rootfs.uImage'."),
        (&["--load", "ram-image"], "citrine: parts are loaded already", "Filename 'p4080ds-two-linux.ram.img'."),
        (&["--media", "nor"], "citrine: checking the parts", "\nsubstituted boot-nor.scr: "),
    ] {
        let run = checkout.run(&[&["qemu", bundle.as_str()], way.as_slice()].concat());
        let (transcript, prompts) = passes(&run);
        assert_eq!(prompts, 2, "{way:?}");
        for line in [says, and, "\nsubstituted hv", " has the manifest's hash: "] {
            assert!(transcript.contains(line), "{way:?}: {line} is missing in:\n{transcript}");
        }
        let is_preloaded = transcript.contains("\npreload  ");
        assert_eq!(is_preloaded, way[1] == "preloaded", "{way:?}:\n{transcript}");
    }
}

/// The systems of our own small guests: what each must print is in `tests/smoke/`.
#[test]
fn every_guest_says_what_it_must() {
    let checkout = Checkout::new();
    let mut booted = Vec::new();
    for entry in std::fs::read_dir(checkout.root().join("tests/smoke")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(profile) = name.strip_suffix(".toml") else { continue };
        let run = checkout.run(&["qemu", "--board", "p4080ds", "--profile", profile, "--yes"]);
        let (transcript, prompts) = passes(&run);
        assert!(transcript.contains("citrine: ready, ") && prompts == 0, "{profile}:\n{transcript}");
        // Only the test build of the firmware has this line.
        assert!(!transcript.contains("without isolation"), "{profile}:\n{transcript}");
        booted.push(profile.to_owned());
    }
    for profile in ["hostile", "manager", "twin"] {
        assert!(booted.iter().any(|name| name == profile), "{booted:?}");
    }
}

#[test]
fn a_partition_may_have_all_cpus() {
    let checkout = Checkout::new();
    let (transcript, prompts) =
        passes(&checkout.run(&["qemu", "--board", "p4080ds", "--profile", "one-linux", "--yes"]));
    assert!(transcript.contains("partition p1-linux: 8 CPUs (0-7)"), "{transcript}");
    assert_eq!(prompts, 1);
}

#[test]
fn two_cpus_are_enough_for_two_partitions() {
    let checkout = Checkout::new();
    replace(&checkout, "boards/p4080ds.toml", &[("cpus = 8\n", "cpus = 2\n")]);
    // A board of its own, whose hardware tree nobody has looked at.
    std::fs::remove_file(checkout.root().join("boards/devices/p4080ds.toml")).unwrap();
    let run = checkout.run(&["qemu", "--board", "p4080ds", "--profile", "two-linux", "--yes"]);
    let (transcript, prompts) = passes(&run);
    for line in ["cpus: 2 of 2 started", "partition p1-linux: 1 CPU (0)", "partition p2-linux: 1 CPU (1)"] {
        assert!(transcript.contains(line), "{line} is missing in:\n{transcript}");
    }
    assert_eq!(prompts, 2);
}

/// True-physical addresses have 36 bits: whatever the partitions have is where 32 do not reach.
#[test]
fn partitions_may_lie_above_4_gib() {
    let checkout = Checkout::new();
    replace(&checkout, "boards/p4080ds.toml", &[("size = \"4 GiB\"", "size = \"8 GiB\"")]);
    replace(
        &checkout,
        "profiles/two-linux.toml",
        &[
            ("memory = \"1 GiB\"\n", "memory = \"1 GiB\"\nmemory-address = 0x1_4000_0000\n"),
            ("memory = \"512 MiB\"\n", "memory = \"512 MiB\"\nmemory-address = 0x1_e000_0000\n"),
            ("size = \"1 MiB\"\n", "size = \"1 MiB\"\naddress = 0x1_2000_0000\n"),
        ],
    );
    let target = ["qemu", "--board", "p4080ds", "--profile", "two-linux", "--yes"];
    let (transcript, prompts) = passes(&checkout.run(&[&target[..], &["--memory", "8GiB"]].concat()));
    for line in [
        "memory p1-memory: 0x1_40000000..0x1_80000000, 1 GiB",
        "memory p2-memory: 0x1_e0000000..0x2_00000000, 512 MiB",
        "memory mailbox-shared: 0x1_20000000..0x1_20100000, 1 MiB, shared",
    ] {
        assert!(transcript.contains(line), "{line} is missing in:\n{transcript}");
    }
    assert_eq!(prompts, 2);

    // The stand-in's own memory ends below.
    let error = checkout.run(&target);
    assert_eq!(error.output.status.code(), Some(1));
    assert!(error.objects.iter().any(|object| object["code"] == "H107"), "{:#?}", error.objects);
}
