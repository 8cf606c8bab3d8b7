//! What was once learned of an image by unpacking it, remembered by its hash.

use std::time::Duration;

use citrine_formats::manifest::Role;
use citrine_planner::diag::Result;
use citrine_planner::image::ImageFacts;
use citrine_planner::pack::sha256;

use super::Context;
use crate::cache::{StageId, io_error};
use crate::progress::Progress;

/// Changes when inspection learns or forbids something new.
const VERSION: u32 = 1;
const FILE: &str = "facts.json";

/// The facts of an image: from the cache, or by `inspect`. An image that `inspect` refuses is not remembered.
///
/// # Errors
/// What `inspect` returns, or a file error of the cache.
pub fn facts(
    context: &Context<'_>,
    role: Role,
    bytes: &[u8],
    inspect: impl FnOnce() -> Result<ImageFacts>,
) -> Result<ImageFacts> {
    let (role, hash) = (role.to_string(), sha256(bytes).to_string());
    let id = StageId::new("facts", VERSION, &[("role", role.as_bytes()), ("sha256", hash.as_bytes())]);
    if let Some(entry) = context.cache.find(&id, context.progress)? {
        // A file that does not read back is only a lost memory.
        if let Ok(facts) = serde_json::from_slice(&entry.read(FILE)?) {
            return Ok(facts);
        }
    }
    let facts = inspect()?;
    if context.cache.offline() {
        return Ok(facts);
    }
    // It takes milliseconds: nobody wants to read of it.
    let quiet = Progress::hidden(|notice| context.progress.notice(notice));
    let entry = context.cache.stage(&id, "image facts", Duration::ZERO, &quiet, |dir, _| {
        let path = dir.join(FILE);
        let text = serde_json::to_vec(&facts).expect("facts are integers");
        fs_err::write(&path, text).map_err(|error| io_error(&path, &error))
    });
    entry.map(|_| facts)
}
