//! The machine's package sources, rewritten for the tool's own use: the same Debian archives and keys, with
//! source packages. Pure text; the machine's own files are only read. Formats: `sources.list(5)`.

use std::fmt::Write as _;

/// One stanza of a source list: fields in order, values verbatim.
type Stanza = Vec<(String, String)>;

/// The private source list (deb822) for what `files` (name, text) configure for the release `codename`.
/// Empty when none of them is a Debian archive of that release.
///
/// Archives of others are left out: they hold nothing that is needed, and may be out of reach.
pub fn private_list(files: &[(String, String)], codename: &str) -> String {
    let mut list = String::new();
    for (name, text) in files {
        let stanzas = if name.ends_with(".sources") { deb822(text) } else { one_line(text) };
        for stanza in stanzas.into_iter().filter_map(|stanza| with_sources(stanza, codename)) {
            for (field, value) in &stanza {
                // Writing to a String cannot fail.
                let _ = writeln!(list, "{field}: {value}");
            }
            list.push('\n');
        }
    }
    list
}

/// The stanza with source packages switched on, if it is a Debian archive of the release.
fn with_sources(mut stanza: Stanza, codename: &str) -> Option<Stanza> {
    let words = |name: &str| -> Vec<String> {
        let value = stanza.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        value.map(|(_, value)| value.split_whitespace().map(str::to_string).collect()).unwrap_or_default()
    };
    let is_off =
        |word: &String| ["no", "false", "off", "0", "without", "disable"].contains(&word.to_lowercase().as_str());
    let suites: Vec<String> = words("Suites").into_iter().filter(|suite| of_release(suite, codename)).collect();
    let usable = words("Types").contains(&"deb".to_string())
        && !suites.is_empty()
        && words("Components").contains(&"main".to_string())
        && !words("URIs").iter().all(|uri| uri.starts_with("cdrom:"))
        && !words("Enabled").iter().any(is_off);
    if !usable {
        return None;
    }
    stanza.retain(|(field, _)| !["types", "suites", "enabled"].contains(&field.to_lowercase().as_str()));
    stanza.insert(0, ("Types".into(), "deb deb-src".into()));
    stanza.insert(1, ("Suites".into(), suites.join(" ")));
    Some(stanza)
}

/// Whether a suite such as `bookworm-security` or `bookworm/updates` belongs to the release.
fn of_release(suite: &str, codename: &str) -> bool {
    let base = suite.split(['-', '/']).next().unwrap_or_default();
    [codename, "stable", "oldstable"].contains(&base) && !suite.ends_with('/')
}

/// Reads the deb822 form.
fn deb822(text: &str) -> Vec<Stanza> {
    let mut stanzas = vec![Stanza::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = stanzas.last_mut() else { continue };
        if line.trim().is_empty() {
            stanzas.push(Stanza::new());
        } else if line.starts_with([' ', '\t']) {
            // A key within the file: kept as it stands.
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((field, value)) = line.split_once(':') {
            stanza.push((field.trim().to_string(), value.trim().to_string()));
        }
    }
    stanzas.retain(|stanza| !stanza.is_empty());
    stanzas
}

/// Reads the one-line form: `deb [option=value ...] uri suite component ...`.
fn one_line(text: &str) -> Vec<Stanza> {
    text.lines().filter_map(|line| one_entry(line.split('#').next()?.trim())).collect()
}

fn one_entry(line: &str) -> Option<Stanza> {
    let rest = line.strip_prefix("deb")?;
    let mut rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let mut stanza = vec![("Types".to_string(), "deb".to_string())];
    if let Some(inside) = rest.strip_prefix('[') {
        let (options, after) = inside.split_once(']')?;
        rest = after;
        stanza.extend(options.split_whitespace().filter_map(option));
    }
    let mut words = rest.split_whitespace();
    stanza.push(("URIs".into(), words.next()?.into()));
    stanza.push(("Suites".into(), words.next()?.into()));
    stanza.push(("Components".into(), words.collect::<Vec<_>>().join(" ")));
    Some(stanza)
}

/// The deb822 field of a one-line option; those that add to or take from a default are left at the default.
fn option(option: &str) -> Option<(String, String)> {
    let (name, value) = option.split_once('=')?;
    let name = match name {
        "arch" => "Architectures".to_string(),
        "lang" => "Languages".to_string(),
        "target" => "Targets".to_string(),
        other if other.ends_with(['+', '-']) => return None,
        other => other.split('-').map(capital).collect::<Vec<_>>().join("-"),
    };
    Some((name, value.replace(',', " ")))
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewritten(name: &str, text: &str) -> String {
        private_list(&[(name.to_string(), text.to_string())], "bookworm")
    }

    #[test]
    fn deb822_keeps_keys_and_gains_sources() {
        let text = "# comment\nTypes: deb\nURIs: https://mirror.example/debian\nSuites: bookworm bookworm-updates trixie\n\
            Components: main contrib\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n\
            Types: deb\nURIs: https://other.example/repo\nSuites: nodistro\nComponents: main\n";
        assert_eq!(
            rewritten("debian.sources", text),
            "Types: deb deb-src\nSuites: bookworm bookworm-updates\nURIs: https://mirror.example/debian\n\
             Components: main contrib\nSigned-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n"
        );
    }

    #[test]
    fn one_line_becomes_deb822() {
        let text = "deb-src http://mirror.example/debian bookworm main\n\
            deb [signed-by=/usr/share/keyrings/a.gpg arch=amd64,i386 by-hash=no lang-=de] http://mirror.example/debian bookworm main # x\n\
            deb cdrom:[Debian]/ bookworm main\n#deb http://mirror.example/debian bookworm main\n";
        assert_eq!(
            rewritten("sources.list", text),
            "Types: deb deb-src\nSuites: bookworm\nSigned-By: /usr/share/keyrings/a.gpg\nArchitectures: amd64 i386\n\
             By-Hash: no\nURIs: http://mirror.example/debian\nComponents: main\n\n"
        );
    }

    #[test]
    fn what_is_no_debian_archive_of_the_release_is_left_out() {
        for text in [
            "deb http://mirror.example/debian trixie main",
            "deb http://mirror.example/docker bookworm stable",
            "deb http://mirror.example/flat bookworm/",
            "deb cdrom:[x] bookworm main",
            "deb",
            "deb [",
            "deb [a=b] ",
            "debug http://mirror.example/debian bookworm main",
        ] {
            assert_eq!(rewritten("a.list", text), "", "{text}");
        }
        let off = "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n";
        assert_eq!(rewritten("a.sources", off), "");
        assert_ne!(rewritten("a.sources", &off.replace("no", "yes")), "");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(deb |deb-src |Types: deb\n|Suites: bookworm\n| |\n|\\[|\\]|=|-|main|#|ü|.){0,30}") {
            let _ = rewritten("a.list", &text);
            let _ = rewritten("a.sources", &text);
        }
    }
}
