//! What the cache must survive: damage, crowding, two builds at once.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const NO_TIME: Duration = Duration::ZERO;

fn quiet() -> Progress<'static> {
    Progress::hidden(|_| {})
}

fn id(input: &str) -> StageId {
    StageId::new("test", 1, &[("input", input.as_bytes())])
}

/// Makes the stage with one file that holds its input, and tells whether it had to.
fn make(cache: &Cache, input: &str) -> (Entry, bool) {
    let mut ran = false;
    let entry = cache
        .stage(&id(input), "test", NO_TIME, &quiet(), |dir, _| {
            ran = true;
            fs_err::write(dir.join("file"), input).map_err(|error| io_error(dir, &error))
        })
        .unwrap();
    assert_eq!(entry.read("file").unwrap(), input.as_bytes());
    assert_eq!(entry.cached, !ran);
    (entry, ran)
}

#[test]
fn each_part_of_an_id_counts() {
    let base = StageId::new("a", 1, &[("x", b"12"), ("y", b"3")]);
    for other in [
        StageId::new("b", 1, &[("x", b"12"), ("y", b"3")]),
        StageId::new("a", 2, &[("x", b"12"), ("y", b"3")]),
        StageId::new("a", 1, &[("x", b"1"), ("y", b"23")]),
        StageId::new("a", 1, &[("x", b"12"), ("z", b"3")]),
        StageId::new("a", 1, &[("x", b"12")]),
    ] {
        assert_ne!(base, other);
    }
    assert_eq!(base, StageId::new("a", 1, &[("x", b"12"), ("y", b"3")]));
}

#[test]
fn a_stage_is_made_once() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::open(root.path().into(), false).unwrap();
    assert!(make(&cache, "one").1);
    assert!(!make(&cache, "one").1);
    drop(cache);
    assert!(!make(&Cache::open(root.path().into(), true).unwrap(), "one").1);
}

#[test]
fn offline_makes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::open(root.path().into(), true).unwrap();
    let error = cache.stage(&id("one"), "test", NO_TIME, &quiet(), |_, _| unreachable!()).unwrap_err();
    assert_eq!(error.code, NOT_CACHED);
}

#[test]
fn every_kind_of_damage_is_noticed_and_repaired() {
    static NOTICES: AtomicUsize = AtomicUsize::new(0);
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::open(root.path().into(), false).unwrap();
    let dir = make(&cache, "one").0.dir;
    let outside = format!("{{\"../{}/file\":{{\"sha256\":\"{}\",\"size\":3}}}}", id("one").directory(), sha256(b"one"));
    let damages: [(&str, Option<&str>); 6] = [
        ("file", Some("onE")),
        ("file", Some("one more")),
        ("file", None),
        (INDEX, None),
        (INDEX, Some("{")),
        (INDEX, Some(&outside)),
    ];
    for (count, (file, content)) in damages.into_iter().enumerate() {
        match content {
            Some(content) => fs_err::write(dir.join(file), content).unwrap(),
            None => fs_err::remove_file(dir.join(file)).unwrap(),
        }
        let progress = Progress::hidden(|notice| {
            assert_eq!(notice.code, DAMAGED);
            NOTICES.fetch_add(1, Ordering::Relaxed);
        });
        assert!(cache.find(&id("one"), &progress).unwrap().is_none());
        assert_eq!(NOTICES.load(Ordering::Relaxed), count + 1);
        assert!(make(&cache, "one").1);
        assert!(!make(&cache, "one").1);
    }
}

#[test]
fn a_stage_that_fails_leaves_no_entry_and_no_files() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::open(root.path().into(), false).unwrap();
    let failed = cache.stage(&id("one"), "test", NO_TIME, &quiet(), |dir, _| {
        fs_err::write(dir.join("half"), "").unwrap();
        Err(Diagnostic::error(FILE, "on purpose").into())
    });
    assert!(failed.is_err());
    assert!(children(&root.path().join("tmp")).unwrap().is_empty());
    assert!(children(&root.path().join("stages")).unwrap().is_empty());
}

#[test]
fn what_a_killed_build_left_is_swept_by_the_next_one_that_is_alone() {
    let root = tempfile::tempdir().unwrap();
    let first = Cache::open(root.path().into(), false).unwrap();
    let left = root.path().join("tmp/work-left");
    fs_err::create_dir_all(left.join("product")).unwrap();
    let second = Cache::open(root.path().into(), false).unwrap();
    assert!(left.exists(), "it may belong to the other process");
    drop((first, second));
    let _third = Cache::open(root.path().into(), false).unwrap();
    assert!(!left.exists());
}

#[test]
fn two_builds_of_one_stage_make_it_once() {
    let root = tempfile::tempdir().unwrap();
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = Cache::open(root.path().into(), false).unwrap();
                cache
                    .stage(&id("one"), "test", NO_TIME, &quiet(), |dir, _| {
                        made.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(50));
                        fs_err::write(dir.join("file"), "one").map_err(|error| io_error(dir, &error))
                    })
                    .unwrap();
            });
        }
    });
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[test]
fn trimming_removes_what_was_used_longest_ago() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::open(root.path().into(), false).unwrap();
    for (age, input) in [(300, "old, but used again"), (200, "old"), (100, "young")] {
        let index = make(&cache, input).0.dir.join(INDEX);
        let used = SystemTime::now() - Duration::from_secs(age);
        File::options().append(true).open(index).unwrap().set_modified(used).unwrap();
    }
    make(&cache, "old, but used again");
    let all = cache.gc(u64::MAX, &quiet()).unwrap();
    assert_eq!(all.removed, 0);
    let trimmed = cache.gc(all.kept - 1, &quiet()).unwrap();
    assert_eq!(trimmed.removed, 1);
    assert_eq!(trimmed.kept + trimmed.freed, all.kept);
    assert!(!make(&cache, "young").1);
    assert!(!make(&cache, "old, but used again").1);
    assert!(make(&cache, "old").1);
    assert_eq!(cache.gc(0, &quiet()).unwrap().kept, 0);
}
