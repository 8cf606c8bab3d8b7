//! The JSON Schemas that editors use (docs/schema/) know exactly the keys that the readers know: the readers are asked,
//! by an unknown key in every table and by leaving everything out. And every shipped file is valid.

use std::collections::{BTreeMap, BTreeSet};

use citrine_planner::diag::Diagnostic;
use citrine_planner::input;
use serde_json::Value;

/// A key that is near no other, so that the reader answers with all that it knows.
const UNKNOWN: &str = "qqqqqqqq";

/// The text of a file of the project, by its path from the root.
fn file(path: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn schema(name: &str) -> Value {
    serde_json::from_str(&file(&format!("docs/schema/{name}.json"))).expect("a schema is JSON")
}

fn read(kind: &str, text: &str) -> Vec<Diagnostic> {
    match kind {
        "board" => input::board::parse("x.toml", text).1,
        _ => input::profile::parse("x.toml", text).1,
    }
}

/// The text between the first two backquotes.
fn quoted(message: &str) -> &str {
    message.split('`').nth(1).unwrap_or_default()
}

/// The schema of a table with keys of ours, alone or besides a short form.
fn table_of(schema: &Value) -> Option<&Value> {
    let forms = schema["oneOf"].as_array().map_or(std::slice::from_ref(schema), Vec::as_slice);
    forms.iter().find(|form| form["type"] == "object" && form["additionalProperties"] == false)
}

/// The tables of a schema by the TOML header under which each is found.
fn tables(schema: &Value, path: &str, list: bool, found: &mut BTreeMap<String, (bool, Value)>) {
    found.insert(path.to_owned(), (list, schema.clone()));
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let (own, items) = (table_of(property), table_of(&property["items"]));
        if let Some(own) = own {
            tables(own, &path, false, found);
        } else if let Some(items) = items {
            tables(items, &path, true, found);
        }
    }
}

/// Asks the reader about one table: the keys that it knows, and those that it cannot do without.
fn ask(kind: &str, all: &BTreeMap<String, (bool, Value)>, path: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut text = if path.is_empty() { format!("{UNKNOWN} = 1\n") } else { String::new() };
    let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
    for depth in 1..=parts.len() {
        let header = parts[..depth].join(".");
        text += &if all[&header].0 { format!("[[{header}]]\n") } else { format!("[{header}]\n") };
    }
    if !path.is_empty() {
        text += &format!("{UNKNOWN} = 1\n");
    }
    let said = read(kind, &text);
    let help = said.iter().find(|d| quoted(&d.message) == UNKNOWN).and_then(|d| d.help.clone()).unwrap_or_default();
    let known = help.strip_prefix("known keys here: ").unwrap_or_else(|| panic!("{kind} {path}: {help}"));
    let place = if path.is_empty() {
        "x.toml needs the key `".to_owned()
    } else {
        // In a list, the reader counts the tables.
        let place: Vec<String> = (1..=parts.len())
            .map(|depth| parts[depth - 1].to_owned() + if all[&parts[..depth].join(".")].0 { "/0" } else { "" })
            .collect();
        format!("`{}` needs the key `", place.join("/"))
    };
    let needed = said.iter().filter_map(|d| d.message.strip_prefix(&place)?.strip_suffix('`').map(str::to_owned));
    (known.split(", ").map(str::to_owned).collect(), needed.collect())
}

#[test]
fn the_schemas_know_what_the_readers_know() {
    let mut asked = 0;
    for kind in ["board", "profile"] {
        let mut all = BTreeMap::new();
        tables(&schema(kind), "", false, &mut all);
        for (path, (_, table)) in &all {
            let keys: BTreeSet<String> = table["properties"].as_object().expect("keys").keys().cloned().collect();
            let required = table["required"].as_array().into_iter().flatten();
            let required: BTreeSet<String> = required.map(|key| key.as_str().expect("a key").to_owned()).collect();
            assert_eq!(table["additionalProperties"], false, "{kind} [{path}]");
            assert_eq!(ask(kind, &all, path), (keys, required), "{kind} [{path}]: known keys, needed keys");
            asked += 1;
        }
    }
    assert!(asked > 15, "only {asked} tables");
}

/// What is wrong with `value`, by the words that the schemas use.
fn violations(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut claim = |is_right: bool, what: &str| {
        if !is_right {
            wrong.push(format!("{path}: {what}: {value}"));
        }
    };
    for (word, limit) in schema.as_object().expect("a schema is an object") {
        let length = value.as_array().map_or(0, Vec::len) as u64;
        match word.as_str() {
            "type" => claim(
                match limit.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("integer") => value.is_u64(),
                    Some("boolean") => value.is_boolean(),
                    _ => false,
                },
                "wrong type",
            ),
            "enum" => claim(limit.as_array().is_some_and(|known| known.contains(value)), "not in the list"),
            "minimum" => claim(value.as_u64() >= limit.as_u64(), "too small"),
            "maximum" => claim(value.as_u64() <= limit.as_u64(), "too large"),
            "minItems" => claim(length >= limit.as_u64().unwrap_or(u64::MAX), "too few"),
            "maxItems" => claim(length <= limit.as_u64().unwrap_or(0), "too many"),
            "required" => {
                for key in limit.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    claim(value.get(key).is_some(), &format!("no {key}"));
                }
            }
            "oneOf" => {
                let fits = |schema: &&Value| violations(schema, value, path).is_empty();
                claim(limit.as_array().into_iter().flatten().filter(fits).count() == 1, "not one of them");
            }
            // Patterns are for editors; the readers' own tests are about texts.
            "properties" | "items" | "additionalProperties" | "pattern" | "description" | "title" | "$schema" => {}
            other => panic!("the schema uses `{other}`, which this test does not know"),
        }
    }
    if schema.get("oneOf").is_some() {
        return wrong;
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        if schema["additionalProperties"].is_object() {
            wrong.extend(violations(&schema["additionalProperties"], value, &format!("{path}/{key}")));
            continue;
        }
        match schema["properties"].get(key) {
            Some(schema) => wrong.extend(violations(schema, value, &format!("{path}/{key}"))),
            None => wrong.push(format!("{path}: unknown key {key}")),
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(violations(&schema["items"], value, &format!("{path}/{index}")));
    }
    wrong
}

#[test]
fn every_shipped_file_is_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for kind in ["board", "profile"] {
        let schema = schema(kind);
        let dir = root.join(format!("{kind}s"));
        let files = std::fs::read_dir(dir).expect("the files are there").map(|entry| entry.expect("readable").path());
        let mut seen = 0;
        for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
            let text = std::fs::read_to_string(&path).expect("a shipped file is text");
            let value: Value = toml::from_str(&text).expect("a shipped file is TOML");
            assert_eq!(violations(&schema, &value, ""), Vec::<String>::new(), "{}", path.display());
            seen += 1;
        }
        assert!(seen >= 2, "{seen} files in {kind}s");
    }
    let misspelt: Value = toml::from_str(&file("tests/bad/C102-misspelt-key/profile.toml")).expect("TOML");
    assert_ne!(violations(&schema("profile"), &misspelt, ""), Vec::<String>::new());
}
