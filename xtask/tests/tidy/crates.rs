//! Crates and modules depend in one direction; who may be unsafe, and who may touch the world.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{code, is_test, judge, read, rust, sources};

/// Every crate with the crates of the workspace that it may depend on.
const MAY: [(&str, &[&str]); 8] = [
    ("hypervisor/formats", &[]),
    ("hypervisor/core", &["citrine-formats"]),
    ("hypervisor/e500", &["citrine-formats", "citrine-core"]),
    ("hypervisor/firmware", &["citrine-formats", "citrine-core", "citrine-e500"]),
    ("hypervisor/guests", &["citrine-formats"]),
    ("xtask/planner", &["citrine-formats", "citrine-core"]),
    ("xtask", &["citrine-formats", "citrine-core", "citrine-planner"]),
    ("tests/fuzz", &["citrine-formats", "citrine-core", "citrine-planner"]),
];

/// Crates whose root forbids `unsafe`.
const SAFE: [&str; 5] = [
    "hypervisor/formats/src/lib.rs",
    "hypervisor/core/src/lib.rs",
    "xtask/planner/src/lib.rs",
    "xtask/src/main.rs",
    "tests/fuzz/src/lib.rs",
];

/// Where `unsafe` has its address.
const UNSAFE: [&str; 3] = ["hypervisor/e500/", "hypervisor/firmware/", "hypervisor/guests/"];

#[test]
fn crates_depend_in_one_direction() {
    let mut complaints = Vec::new();
    let workspace: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let members = workspace["workspace"]["members"].as_array().expect("a list of members");
    for member in members.iter().filter_map(|member| member.as_str()) {
        let Some((_, allowed)) = MAY.iter().find(|(name, _)| *name == member) else {
            complaints.push(format!("{member} is new: say in tidy/crates.rs what it may depend on"));
            continue;
        };
        let manifest: toml::Table = read(&format!("{member}/Cargo.toml")).parse().expect("Cargo.toml is TOML");
        for kind in ["dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(kind).and_then(toml::Value::as_table) else { continue };
            for name in dependencies.keys().filter(|name| name.starts_with("citrine-")) {
                if !allowed.contains(&name.as_str()) {
                    complaints.push(format!("{member} may not depend on {name}"));
                }
            }
        }
        if manifest.get("lints").and_then(|lints| lints.get("workspace")) != Some(&toml::Value::Boolean(true)) {
            complaints.push(format!("{member} does not have the workspace's lints"));
        }
    }
    judge(complaints);
}

/// `libfuzzer` is no member of the workspace, so nothing else keeps its lock file up to date.
#[test]
fn the_fuzzer_is_locked_to_what_the_tool_is_made_of() {
    let packages = |lock: &str| -> Vec<toml::Value> {
        let lock: toml::Table = read(lock).parse().expect("a lock file is TOML");
        lock["package"].as_array().expect("a list of packages").clone()
    };
    let text = |package: &toml::Value, key: &str| package[key].as_str().expect("a text").to_owned();
    let manifests = MAY.map(|(member, _)| -> toml::Table {
        read(&format!("{member}/Cargo.toml")).parse().expect("Cargo.toml is TOML")
    });
    let (tool, fuzzer) = (packages("Cargo.lock"), packages("tests/fuzz/libfuzzer/Cargo.lock"));
    let mut complaints = Vec::new();
    for package in &fuzzer {
        let name = text(package, "name");
        if package.get("source").is_some() {
            let mut same = tool.iter().filter(|known| text(known, "name") == name).peekable();
            if same.peek().is_some() && !same.any(|known| known["version"] == package["version"]) {
                complaints.push(format!("the tool has another {name} than {}", text(package, "version")));
            }
            continue;
        }
        let Some(manifest) = manifests.iter().find(|manifest| manifest["package"]["name"] == package["name"]) else {
            continue;
        };
        let wanted = manifest.get("dependencies").and_then(toml::Value::as_table);
        let wanted: BTreeSet<&str> = wanted.into_iter().flat_map(|table| table.keys().map(String::as_str)).collect();
        let locked = package.get("dependencies").and_then(toml::Value::as_array);
        let locked = locked.into_iter().flatten().filter_map(|entry| entry.as_str()?.split(' ').next()).collect();
        if wanted != locked {
            let cure = "cargo metadata --manifest-path tests/fuzz/libfuzzer/Cargo.toml";
            complaints.push(format!("{name} depends on other crates than {locked:?}: `{cure}` locks them"));
        }
    }
    assert!(fuzzer.len() > 50, "{}", fuzzer.len());
    judge(complaints);
}

#[test]
fn the_planner_and_the_hypervisor_do_not_touch_the_world() {
    let mut complaints = Vec::new();
    for path in rust("xtask/planner/src").iter().filter(|path| !is_test(path)) {
        let text = code(path);
        for world in ["std::fs", "std::process", "std::net", "std::env", "std::time"] {
            if text.contains(world) {
                complaints.push(format!("{path} uses {world}; the planner is pure"));
            }
        }
    }
    for root in ["hypervisor/formats/src/lib.rs", "hypervisor/core/src/lib.rs"] {
        if !code(root).contains("#![no_std]") {
            complaints.push(format!("{root} is not no_std"));
        }
    }
    judge(complaints);
}

#[test]
fn unsafe_has_an_address() {
    let mut complaints = Vec::new();
    for root in SAFE {
        if !code(root).contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{root} does not forbid unsafe code"));
        }
    }
    for path in sources() {
        if path.starts_with("xtask/tests/tidy/") {
            continue; // It only speaks of it.
        }
        if UNSAFE.iter().any(|place| path.starts_with(place)) {
            complaints.extend(without_safety(&path));
        } else if code(&path).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
            complaints.push(format!("{path} is unsafe outside {}", UNSAFE.join(", ")));
        }
    }
    judge(complaints);
}

/// Unsafe blocks and implementations without a `SAFETY:` comment in the lines before or on their own line.
fn without_safety(path: &str) -> Vec<String> {
    let text = read(path);
    let lines: Vec<&str> = text.lines().collect();
    let opens = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("unsafe {") || code.contains("unsafe impl")
    };
    let mut complaints = Vec::new();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| opens(line)) {
        // The statement may have begun some lines earlier, and the comment stands above it.
        let explained = line.contains("SAFETY:")
            || lines[index.saturating_sub(12)..index]
                .iter()
                .rev()
                .any(|line| line.trim_start().starts_with("// SAFETY:"));
        if !explained {
            complaints.push(format!("{path}:{}: unsafe without a SAFETY comment", index + 1));
        }
    }
    complaints
}

#[test]
fn no_two_modules_need_each_other() {
    let mut complaints = Vec::new();
    for source in ["hypervisor/formats/src", "hypervisor/core/src", "xtask/planner/src"] {
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for path in rust(source).iter().filter(|path| !is_test(path)) {
            let inside = path.strip_prefix(source).unwrap_or(path).trim_start_matches('/');
            let module = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
            if module != "lib" {
                needs.entry(module).or_default().extend(imports(&code(path)));
            }
        }
        for (module, others) in &needs {
            let back =
                |other: &&String| *other != module && needs.get(*other).is_some_and(|n| reaches(&needs, n, module));
            for other in others.iter().filter(back) {
                complaints.push(format!("{source}: `{module}` imports `{other}`, which needs `{module}`"));
            }
        }
    }
    judge(complaints);
}

/// Whether a module is among `from` or what these need in turn.
fn reaches(needs: &BTreeMap<String, BTreeSet<String>>, from: &BTreeSet<String>, wanted: &str) -> bool {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut waiting: Vec<&str> = from.iter().map(String::as_str).collect();
    while let Some(module) = waiting.pop() {
        if module == wanted {
            return true;
        }
        if seen.insert(module) {
            waiting.extend(needs.get(module).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

/// The top-level modules that a text names as `crate::module`.
fn imports(code: &str) -> BTreeSet<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found: BTreeSet<String> = code.split("crate::").skip(1).map(name).collect();
    found.remove("");
    found
}

#[test]
fn the_cycle_check_sees_a_cycle() {
    let needs: BTreeMap<String, BTreeSet<String>> = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
        .map(|(module, other)| (module.to_owned(), BTreeSet::from([other.to_owned()])))
        .into();
    assert!(reaches(&needs, &needs["b"], "a") && !reaches(&needs, &needs["a"], "d"));
    assert_eq!(imports("use crate::x::{A, B}; fn f(c: crate::y_z::C) {}"), ["x".to_owned(), "y_z".to_owned()].into());
}
