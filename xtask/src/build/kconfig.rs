//! Configurations in the form of Kconfig: fragments, and whether a build really got what they ask for.

use std::collections::BTreeSet;
use std::path::Path;

use citrine_planner::diag::{Code, Diagnostic, Label, Result};

/// Kconfig dropped an option that a fragment asks for.
pub const DROPPED: Code = Code::new('T', 502);

/// The lines of a fragment that ask for something: `CONFIG_X=...` and `# CONFIG_X is not set`.
fn requests(fragment: &str) -> impl Iterator<Item = &str> {
    fragment.lines().map(str::trim).filter(|line| symbol(line).is_some())
}

fn symbol(line: &str) -> Option<&str> {
    match line.strip_prefix("# ") {
        Some(rest) => rest.strip_suffix(" is not set").filter(|name| name.starts_with("CONFIG_")),
        None => line.starts_with("CONFIG_").then(|| line.split_once('=').map(|(name, _)| name))?,
    }
}

/// `config` with every option that `fragment` names set as it says. Each symbol stands there once, for old
/// Kconfigs believe the first line and new ones the last.
pub fn merge(config: &str, fragment: &str) -> String {
    let named: BTreeSet<&str> = requests(fragment).filter_map(symbol).collect();
    let others = config.lines().filter(|line| symbol(line).is_none_or(|name| !named.contains(name)));
    others.chain(requests(fragment)).map(|line| format!("{line}\n")).collect()
}

/// Compares the `.config` that a build wrote with the fragment it was given.
///
/// # Errors
/// [`DROPPED`], naming the options.
pub fn check(recipe: &str, fragment: &str, config: &Path) -> Result<()> {
    let text = fs_err::read_to_string(config).map_err(|error| crate::cache::io_error(config, &error))?;
    let missing = dropped(fragment, &text);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Diagnostic::error(DROPPED, format!("{recipe} asks for what this version drops: {}", missing.join(", ")))
        .primary(Label::file(recipe, "these lines do not survive"))
        .help("an option that it depends on is missing, or has another name in this version")
        .into())
}

/// The lines of `fragment` that `config` does not hold. An unset symbol that is not there at all is unset.
fn dropped<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let lines: BTreeSet<&str> = config.lines().collect();
    let set: BTreeSet<&str> = config.lines().filter(|line| !line.starts_with('#')).filter_map(symbol).collect();
    requests(fragment)
        .filter(|line| match line.starts_with('#') {
            true => symbol(line).is_some_and(|name| set.contains(name)),
            false => !lines.contains(line),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAGMENT: &str = "# a comment about CONFIG_A\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"\"\n";

    #[test]
    fn each_option_stands_there_once() {
        let merged = merge("# CONFIG_A is not set\nCONFIG_AA=y\nCONFIG_B=y\n# end\n", FRAGMENT);
        assert_eq!(merged, "CONFIG_AA=y\n# end\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"\"\n");
    }

    #[test]
    fn a_dropped_option_is_found() {
        assert!(dropped(FRAGMENT, "CONFIG_A=y\nCONFIG_C=\"\"\n").is_empty());
        assert!(dropped(FRAGMENT, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"\"\n").is_empty());
        assert_eq!(dropped(FRAGMENT, "# CONFIG_A is not set\nCONFIG_C=\"\"\n"), ["CONFIG_A=y"]);
        assert_eq!(
            dropped(FRAGMENT, "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=\"x\"\n"),
            ["# CONFIG_B is not set", "CONFIG_C=\"\""]
        );
    }
}
