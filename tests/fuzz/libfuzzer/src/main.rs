//! libFuzzer with the target that `CITRINE_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

static BODY: LazyLock<citrine_fuzz::Body> = LazyLock::new(|| {
    let name = std::env::var("CITRINE_FUZZ_TARGET").unwrap_or_default();
    citrine_fuzz::find(&name).unwrap_or_else(|| panic!("CITRINE_FUZZ_TARGET names no target: `{name}`"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    BODY(data);
});
