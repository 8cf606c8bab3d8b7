//! `sbom.cdx.json`: a CycloneDX 1.6 bill of materials of everything that is in the bundles, or made them.
//!
//! What is in a bundle has the scope `required`; tools, and the crates of the tool itself, have `excluded`: they are at
//! work when a bundle is built, not when it runs. There is no serial number and no time, so that the same release has
//! the same bill.

use std::collections::{BTreeMap, BTreeSet};

use citrine_formats::manifest::{Input, InputKind};
use serde_json::{Value, json};

use super::recipe::{Licensed, Recipe};
use super::{Built, LICENCE, canonical, inputs, provenance, purl};
use crate::diag::{Diagnostic, Label, Result};

/// What cargo says of the crates.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Crates {
    /// `cargo tree --prefix depth --format '{p}|{l}'` of the programs that are in bundles, without its
    /// repetitions being left out.
    pub product: String,
    /// The same of the tool.
    pub tool: String,
    /// `Cargo.lock`.
    pub lock: String,
}

/// A component before it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Component {
    kind: &'static str,
    name: String,
    version: String,
    licence: String,
    required: bool,
    sha256: Option<String>,
    needs: BTreeSet<String>,
}

/// All components, by their package URL.
type Components = BTreeMap<String, Component>;

/// The bill of materials of a release.
///
/// # Errors
/// [`LICENCE`] for something whose licence `recipe` does not say.
pub fn bill(recipe: &Recipe, file: &str, bundles: &[Built], crates: &Crates) -> Result<String> {
    let mut components = Components::new();
    let checksums = checksums(&crates.lock);
    add_crates(&mut components, &crates.tool, false, &checksums);
    add_crates(&mut components, &crates.product, true, &checksums);
    add_inputs(&mut components, recipe, file, &inputs(bundles))?;
    let release = "citrine-release";
    let entries = components.iter().map(|(reference, component)| entry(reference, component));
    let mut dependencies = vec![json!({
        "ref": release,
        "dependsOn": components.iter().filter(|(_, c)| c.required).map(|(reference, _)| reference).collect::<Vec<_>>(),
    })];
    dependencies.extend(components.iter().map(|(reference, component)| {
        let known = component.needs.iter().filter(|need| components.contains_key(*need));
        json!({ "ref": reference, "dependsOn": known.collect::<Vec<_>>() })
    }));
    Ok(canonical(&json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "bom-ref": release,
                "type": "firmware",
                "name": "citrine",
                "version": recipe.version,
            },
        },
        "components": entries.collect::<Vec<_>>(),
        "dependencies": dependencies,
    })))
}

fn entry(reference: &str, component: &Component) -> Value {
    let mut value = json!({
        "bom-ref": reference,
        "type": component.kind,
        "name": component.name,
        "version": component.version,
        "licenses": [{ "expression": component.licence }],
        "purl": reference,
        "scope": if component.required { "required" } else { "excluded" },
    });
    if let Some(sha256) = &component.sha256 {
        value["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    value
}

/// The checksums of Cargo.lock by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    #[derive(serde::Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
    }
    #[derive(serde::Deserialize)]
    struct Package {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let packages = toml::from_str(lock).map_or_else(|_| Vec::new(), |lock: Lock| lock.package);
    packages.into_iter().filter_map(|package| Some(((package.name, package.version), package.checksum?))).collect()
}

/// A line of `cargo tree`: `2crc32fast v1.5.5|MIT OR Apache-2.0 (*)`.
struct Line<'l> {
    depth: usize,
    name: &'l str,
    version: &'l str,
    licence: &'l str,
    /// Whether it runs in the compiler.
    is_macro: bool,
}

/// Reads a line. The directory of a crate of ours stands behind its version and is passed over.
fn line(text: &str) -> Option<Line<'_>> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (depth, rest) = text.split_at_checked(digits)?;
    let (package, licence) = rest.rsplit_once('|')?;
    let mut words = package.split(' ');
    Some(Line {
        depth: depth.parse().ok()?,
        name: words.next()?,
        version: words.next()?.strip_prefix('v')?,
        licence: licence.trim_end_matches("(*)").trim(),
        is_macro: package.contains("(proc-macro)"),
    })
}

/// Adds the crates of a tree. With `product` those are required that are not macros or behind one.
fn add_crates(components: &mut Components, tree: &str, product: bool, checksums: &BTreeMap<(String, String), String>) {
    let mut above: Vec<(String, bool)> = Vec::new();
    for Line { depth, name, version, licence, is_macro } in tree.lines().filter_map(line) {
        let reference = purl("cargo", name, version);
        above.truncate(depth);
        let mut required = product && !is_macro;
        if let Some((parent, linked)) = above.last() {
            required &= linked;
            if let Some(parent) = components.get_mut(parent) {
                parent.needs.insert(reference.clone());
            }
        }
        let component = components.entry(reference.clone()).or_insert_with(|| Component {
            kind: "library",
            name: name.to_owned(),
            version: version.to_owned(),
            // The spelling of old manifests.
            licence: licence.replace('/', " OR "),
            required,
            sha256: checksums.get(&(name.to_owned(), version.to_owned())).cloned(),
            needs: BTreeSet::new(),
        });
        component.required |= required;
        above.push((reference, required));
    }
}

fn add_inputs(components: &mut Components, recipe: &Recipe, file: &str, inputs: &[&Input]) -> Result<()> {
    for input in inputs {
        let (name, version) = match input.kind {
            // A source has several files: `busybox_1.35.0-4.dsc` and its archives are one component.
            InputKind::Source => (input.name.split('_').next().unwrap_or_default(), input.version.as_str()),
            InputKind::Package | InputKind::Toolchain => {
                (input.name.as_str(), input.version.split(' ').next().unwrap_or_default())
            }
            // Crates come from cargo, recipes are text of this project.
            _ => continue,
        };
        let Licensed { licence, in_product } = licensed(recipe, file, name)?.clone();
        let reference = match input.kind {
            InputKind::Source => purl("deb/debian", name, version),
            _ => provenance::uri(input).unwrap_or_default(),
        };
        let is_archive = !input.name.ends_with(".dsc") && !input.name.contains(".debian.tar");
        let sha256 = input.sha256.filter(|_| is_archive).map(|sha256| sha256.to_string());
        let component = components.entry(reference).or_insert_with(|| Component {
            kind: "application",
            name: name.to_owned(),
            version: version.to_owned(),
            licence,
            required: in_product,
            sha256: None,
            needs: BTreeSet::new(),
        });
        component.sha256 = component.sha256.take().or(sha256);
    }
    Ok(())
}

fn licensed<'r>(recipe: &'r Recipe, file: &str, name: &str) -> Result<&'r Licensed> {
    recipe.licences.get(name).ok_or_else(|| {
        Diagnostic::error(LICENCE, format!("nobody has written down the licence of {name}"))
            .primary(Label::file(file, "has no [[component]] of that name"))
            .help(format!(
                "add to {file}: [[component]] name = \"{name}\", licence = \"...\", in-product = true or false"
            ))
            .into()
    })
}
