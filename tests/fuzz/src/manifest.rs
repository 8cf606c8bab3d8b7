//! Any bytes as a manifest.
//!
//! What is read is written as exactly the same bytes, and what JSON says is either refused or has one spelling.

use citrine_formats::manifest::Manifest;

/// Runs the target: 1 for a manifest's members with another spelling or values that are refused, 2 for a manifest.
pub(crate) fn run(data: &[u8]) -> usize {
    let read = Manifest::parse(data);
    if let Ok(manifest) = &read {
        assert_eq!(manifest.to_canonical().as_deref(), Ok(data), "there are two spellings");
    }
    // As a lenient reader takes it: in any order, with any blanks.
    let Ok(meant) = serde_json::from_slice::<Manifest>(data) else {
        assert!(read.is_err(), "it is no JSON of a manifest");
        return 0;
    };
    match meant.to_canonical() {
        Ok(written) => {
            assert_eq!(Manifest::parse(&written).as_ref(), Ok(&meant), "what is written is not what was meant");
            assert_eq!(read.is_ok(), written == data);
        }
        Err(error) => assert_eq!(read, Err(error)),
    }
    1 + usize::from(read.is_ok())
}
