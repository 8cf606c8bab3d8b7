//! Records what compiled the tool: the compiler, its host, where its targets lie, and the deflate crate.
//!
//! Each of them reaches the bytes of a bundle, so each is part of the ids of cached stages. Known at
//! compile time, they cost a run of the tool nothing. It also lists the pages of `cargo xtask explain`.

use std::process::Command;
use std::{env, fs};

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let ask = |args: &[&str]| {
        let output = Command::new(&rustc).args(args).output().expect("cargo has just run this compiler");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let verbose = ask(&["-vV"]);
    let field = |name: &str| {
        let line = verbose.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown");
        line.trim().to_string()
    };
    println!("cargo::rustc-env=CITRINE_RUSTC={} ({})", field("release:"), field("commit-hash:"));
    println!("cargo::rustc-env=CITRINE_RUSTC_RELEASE={}", field("release:"));
    println!("cargo::rustc-env=CITRINE_HOST={}", field("host:"));
    println!("cargo::rustc-env=CITRINE_SYSROOT={}", ask(&["--print", "sysroot"]).trim());

    let lock = "../Cargo.lock";
    let packages = fs::read_to_string(lock).expect("the workspace has a Cargo.lock");
    println!("cargo::rustc-env=CITRINE_DEFLATE=zlib-rs {}", locked_version(&packages, "zlib-rs"));
    println!("cargo::rerun-if-changed={lock}");
    pages("../docs/diagnostics");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTUP_HOME");
}

/// Writes the list of the pages that explain diagnostics, so that a new page needs no second entry anywhere.
fn pages(dir: &str) {
    println!("cargo::rerun-if-changed={dir}");
    let dir = fs::canonicalize(dir).expect("the project has pages for its diagnostics");
    let entries = fs::read_dir(dir).expect("the directory can be read");
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut list = String::from("/// Every code with its page, in order.\npub const PAGES: &[(&str, &str)] = &[\n");
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let code = path.file_stem().unwrap_or_default().to_string_lossy();
        list.push_str(&format!("    ({code:?}, include_str!({path:?})),\n"));
    }
    list.push_str("];\n");
    let out = env::var_os("OUT_DIR").expect("cargo names the output directory");
    fs::write(std::path::Path::new(&out).join("pages.rs"), list).expect("the output directory can be written");
}

/// The version of a package in Cargo.lock, where `version` is the line below `name`.
fn locked_version<'a>(lock: &'a str, name: &str) -> &'a str {
    let after = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).map_or("", |(_, after)| after);
    after.split('"').next().unwrap_or_default()
}
