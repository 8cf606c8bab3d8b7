//! Where a test leaves the figure that stands behind a promise: a line in the file that `cargo xtask promises` names.
//! Run by itself, a test leaves none.

/// The environment's name of the file.
pub const FILE: &str = "CITRINE_FIGURES";

/// Leaves one figure, such as `forgeries refused: 119 of 119`.
pub fn figure(text: &str) {
    use std::io::Write as _;
    if let Some(path) = std::env::var_os(FILE) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("the file can be opened"), "{text}").expect("the file can be written");
    }
}
