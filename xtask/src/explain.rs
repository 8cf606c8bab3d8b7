//! The pages of `docs/diagnostics/`, one per code, as `cargo xtask explain` prints them.

// `PAGES: &[(&str, &str)]`: every code with its page, in order. The build script finds the pages.
include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// The page of `code`.
pub fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(known, _)| *known == code).map(|(_, text)| *text)
}
