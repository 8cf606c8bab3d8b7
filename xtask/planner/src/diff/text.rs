//! Differences for people, one line each, and for machines.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::{Change, Difference, Key, Kind, Value, What};

/// The lines of all differences, or one that says that there is none.
pub fn lines(found: &[Difference]) -> String {
    if found.is_empty() {
        return "no difference\n".to_owned();
    }
    found.iter().map(|difference| line(difference) + "\n").collect()
}

/// One difference: `p1: CPUs 0-6 → 0-5`. A tree may hold any characters; on a terminal only those that print arrive.
pub fn line(difference: &Difference) -> String {
    let text = plain(difference);
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn plain(difference: &Difference) -> String {
    let subject = subject(difference);
    match &difference.change {
        Change::New(facts) => {
            let is_said = |((what, _), value): &&(Key, Value)| match value {
                Value::Text(_) => true,
                Value::Partitions(names) => !names.is_empty(),
                Value::Open(_) => *what == What::Cpus,
            };
            let facts = facts.iter().filter(is_said);
            let facts: Vec<String> = facts.map(|(key, value)| said(&label(key), &value.to_string())).collect();
            let colon = if facts.is_empty() { "" } else { ": " };
            format!("new {subject}{colon}{}", facts.join(", "))
        }
        Change::Gone(_) => format!("{subject} is gone"),
        Change::Fact { key, before, after } => {
            let mut text = match (difference.kind, subject.as_str()) {
                (Kind::System, _) | (_, "") => String::new(),
                (Kind::Partition, _) => format!("{}: ", difference.name),
                (_, subject) => format!("{subject}: "),
            };
            let name = label(key);
            let _ = match (before, after) {
                (Some(before), Some(after)) => write!(text, "{}", said(&name, &format!("{before} → {after}"))),
                (None, Some(after)) => write!(text, "new {}", said(&name, &decided(after))),
                (Some(before), None) => write!(text, "{} is gone", said(&name, &decided(before))),
                (None, None) => Ok(()),
            };
            text
        }
    }
}

/// The value, if it is one.
fn decided(value: &Value) -> String {
    if let Value::Open(_) = value { String::new() } else { value.to_string() }
}

/// A name and a value, each of which may be empty.
fn said(name: &str, value: &str) -> String {
    [name, value].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `partition p1`, `hypervisor`.
fn subject(difference: &Difference) -> String {
    match difference.kind {
        // A file's name says enough.
        Kind::Part => difference.name.clone(),
        kind => said(kind.word(), &difference.name),
    }
}

/// What is said, for people.
pub fn label((what, detail): &Key) -> String {
    let name = match what {
        What::Named | What::Image | What::ImageBytes => return detail.clone(),
        What::ImageLoad => "loaded at",
        What::ImageWindow => "window",
        What::ImageGuest => "guest address",
        What::Device | What::Resource => return said("device", detail),
        What::DeviceHow => return format!("device {detail} is assigned"),
        What::PortalDevice => return format!("device {detail} behind the portals"),
        What::Numbers => return detail.clone(),
        What::Dts => "devicetree source",
        What::Label => "label",
        What::Cpus => "CPUs",
        What::Memory => "memory",
        What::MemoryAddress => "memory address",
        What::GuestAddress => "guest address",
        What::Partitions => "partitions",
        What::Console => "console on channel",
        What::Bootargs => "boot arguments",
        What::Tree => "guest tree",
        What::Dma => "DMA to",
        What::FastTraps => "fast traps",
        What::Manages => "manages",
        What::Starts => "starts",
    };
    said(detail, name)
}

/// One difference for machines.
pub fn to_json(difference: &Difference) -> Json {
    let mut object = json!({ "type": "difference", "kind": difference.kind.word(), "name": difference.name });
    let facts = |facts: &[(Key, Value)]| {
        facts.iter().map(|(key, value)| json!({ "what": label(key), "value": value.to_string() })).collect::<Vec<_>>()
    };
    let fields = match &difference.change {
        Change::New(new) => vec![("change", json!("new")), ("facts", json!(facts(new)))],
        Change::Gone(gone) => vec![("change", json!("gone")), ("facts", json!(facts(gone)))],
        Change::Fact { key, before, after } => {
            let text = |value: &Option<Value>| json!(value.as_ref().map(Value::to_string));
            vec![
                ("change", json!("changed")),
                ("what", json!(label(key))),
                ("before", text(before)),
                ("after", text(after)),
            ]
        }
    };
    fields.into_iter().for_each(|(name, value)| object[name] = value);
    object
}
