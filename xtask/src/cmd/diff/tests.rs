//! Every pair of kinds, from files as the user has them: what is said is kept in `tests/diff/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use citrine_formats::hvconfig::Digest;
use citrine_formats::manifest::{InputKind, Role};
use citrine_planner::image::ImageFacts;
use citrine_planner::pack::{self, Content, Subject, parts, sha256};
use citrine_planner::plan::LoadPlan;
use citrine_planner::render::{Digests, hv_dts, strip_markers};
use citrine_planner::{place, rules};

use super::*;
use crate::blessed::{compare, root};
use crate::bundle::configuration;
use crate::output;
use crate::project::template;

/// A directory with two configurations in all their forms: `a.toml`, `a.dts`, `a.dtb`, `out/a.tar`.
struct Forms {
    dir: tempfile::TempDir,
}

impl Forms {
    fn new() -> Self {
        let forms = Self { dir: tempfile::tempdir().unwrap() };
        let key = ssh_key::PrivateKey::from(ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]));
        let public = key.public_key().to_openssh().unwrap();
        std::fs::write(forms.path("keys"), format!("test {public}\n")).unwrap();
        for (name, seed) in [("a", 1), ("b", 2)] {
            let text = std::fs::read_to_string(root().join(format!("tests/diff/{name}.toml"))).unwrap();
            std::fs::write(forms.path(&format!("{name}.toml")), text).unwrap();
            forms.write(name, seed, &key);
        }
        forms
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the tree and the bundle of a profile; `seed` makes images of their own.
    fn write(&self, name: &str, seed: u8, key: &ssh_key::PrivateKey) {
        let ui = Ui::new(true);
        let project = Project::find().unwrap_or_else(|failure| panic!("{failure:?}"));
        let file = self.path(&format!("{name}.toml")).display().to_string();
        let (board, profile) = project.target("p4080ds", &file, &ui).unwrap_or_else(|failure| panic!("{failure:?}"));
        let mut plan = place::place(&board, &profile, &artifacts::known(None)).unwrap_or_else(|f| panic!("{f:#?}"));
        assert!(rules::check(&plan).iter().all(|d| d.severity != citrine_planner::diag::Severity::Error));
        let contents: BTreeMap<String, Vec<u8>> =
            plan.parts.iter().map(|part| (part.file.clone(), bytes_of(&plan, part, seed))).collect();
        let digest = |bytes: &Vec<u8>| Digest { size: bytes.len() as u64, sha256: sha256(bytes) };
        let digests: Digests = contents.iter().map(|(file, bytes)| (file.clone(), digest(bytes))).collect();
        plan.facts = contents.iter().map(|(file, b)| (file.clone(), ImageFacts::plain(b.len() as u64))).collect();

        let hv_dtb = configuration(&project, &plan, &digests, &ui).unwrap_or_else(|f| panic!("{f:?}"));
        std::fs::write(self.path(&format!("{name}.dtb")), &hv_dtb).unwrap();
        let read = project.template("hv.dts.j2", &ui).unwrap_or_else(|f| panic!("{f:?}"));
        let dts = hv_dts(&plan, &digests, &template(&read)).unwrap_or_else(|f| panic!("{f:?}"));
        std::fs::write(self.path(&format!("{name}.dts")), strip_markers(&dts)).unwrap();

        let mut contents: BTreeMap<String, Content<'_>> =
            contents.into_iter().map(|(file, bytes)| (file, Content::plain(bytes))).collect();
        contents.insert("hv.dtb".to_owned(), Content::plain(hv_dtb));
        let sources = parts::sources(&[&plan], &plan.profile, contents).unwrap();
        let input = citrine_formats::manifest::Input {
            kind: InputKind::Package,
            name: "dtc".to_owned(),
            origin: "debian".to_owned(),
            sha256: None,
            size: None,
            version: format!("1.{seed}"),
        };
        let subject = Subject {
            board: board.name.clone(),
            core: board.core.clone(),
            epoch: 0,
            inputs: vec![input],
            plan_sha256: sha256(b""),
            profile: profile.name.clone(),
            soc: board.soc.clone(),
            source_date_epoch: 1_700_000_000,
        };
        let assembled = pack::assemble(subject, sources).unwrap();
        let signatures = pack::sign(&assembled, std::slice::from_ref(key)).unwrap();
        output::publish(&self.path("out"), name, &assembled, &signatures, None).unwrap();
    }

    fn diff(&self, before: &Path, after: &Path, board: Option<&str>) -> Result<Vec<Difference>, Failure> {
        let args = Diff {
            before: before.display().to_string(),
            after: after.display().to_string(),
            board: board.map(str::to_owned),
            keys: Some(self.path("keys")),
            exit_code: false,
        };
        differences(&args, &Ui::new(true))
    }
}

/// Bytes for a part: what they are does not matter, only which.
fn bytes_of(plan: &LoadPlan, part: &citrine_planner::plan::Part, seed: u8) -> Vec<u8> {
    let seed = if part.role == Role::Kernel { seed } else { 9 };
    format!("{} {} {seed}", plan.board.name, part.file).into_bytes()
}

#[test]
fn every_pair_of_kinds_says_what_is_kept() {
    let forms = Forms::new();
    let kinds = [
        ("profile", "toml", None),
        ("placed", "toml", Some("p4080ds")),
        ("source", "dts", None),
        ("tree", "dtb", None),
        ("bundle", "tar", None),
    ];
    let file = |name: &str, ending: &str| match ending {
        "tar" => forms.path(&format!("out/{name}.tar")),
        _ => forms.path(&format!("{name}.{ending}")),
    };
    let mut complaints = Vec::new();
    for (first, before, board) in kinds {
        for (second, after, other) in kinds {
            // A board is for both.
            let board = board.or(other);
            let diff = |a: &str, b: &str| {
                forms.diff(&file(a, before), &file(b, after), board).unwrap_or_else(|failure| panic!("{failure:#?}"))
            };
            assert_eq!(diff("a", "a"), [], "{first} {second}");
            let found = diff("a", "b");
            let json: String = found.iter().map(|difference| text::to_json(difference).to_string() + "\n").collect();
            complaints.extend(compare(&format!("tests/diff/{first}-{second}.txt"), &text::lines(&found)));
            if first == second {
                complaints.extend(compare(&format!("tests/diff/{first}-{second}.json"), &json));
            }
        }
    }
    assert!(complaints.is_empty(), "{}\n", complaints.join("\n"));
}

#[test]
fn a_bundle_is_not_read_before_it_is_verified() {
    let forms = Forms::new();
    let tar = forms.path("out/a.tar");
    let mut bytes = std::fs::read(&tar).unwrap();
    let at = bytes.windows(9).rposition(|window| window == b"two-linux").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&tar, bytes).unwrap();
    let failure = forms.diff(&tar, &forms.path("b.toml"), None).unwrap_err();
    let codes: Vec<String> = failure.0.iter().map(|diagnostic| diagnostic.code.to_string()).collect();
    assert_eq!(codes, ["B107"]);
    std::fs::write(forms.path("keys"), "").unwrap();
    assert!(forms.diff(&forms.path("out/b.tar"), &forms.path("b.toml"), None).is_err());
}

#[test]
fn what_cannot_be_read_is_said_of_both() {
    let forms = Forms::new();
    let failure = forms.diff(&forms.path("c.dtb"), &forms.path("a.toml.dtb"), None).unwrap_err();
    assert_eq!(failure.0.len(), 2, "{failure:?}");
    std::fs::write(forms.path("c.dtb"), "no tree").unwrap();
    std::fs::write(forms.path("c.dts"), "/dts-v1/;\n/ { x = <; };\n").unwrap();
    for (file, code) in [("c.dtb", "H100"), ("c.dts", "R102")] {
        let failure = forms.diff(&forms.path(file), &forms.path("a.toml"), None).unwrap_err();
        assert_eq!(failure.0.first().map(|diagnostic| diagnostic.code.to_string()).as_deref(), Some(code));
    }
}
