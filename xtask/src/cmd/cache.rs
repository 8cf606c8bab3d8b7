//! `cache`: show or trim the build cache.

use citrine_formats::addr::Size;
use citrine_planner::diag::Diagnostic;
use citrine_planner::input::IMPOSSIBLE_VALUE;
use citrine_planner::units::parse_size;
use serde_json::json;

use crate::cache::Cache;
use crate::cli::CacheArgs;
use crate::progress::watch_signals;
use crate::report::{CmdResult, Failure, Ui};

/// Runs `cache`.
pub fn run(args: &CacheArgs, ui: &Ui) -> CmdResult {
    watch_signals()?;
    let cache = Cache::open(Cache::default_root()?, false)?;
    let limit = match &args.gc {
        None => u64::MAX,
        Some(text) => parse_size(text).ok_or_else(|| {
            let message = format!("`{}` is no size", text.escape_debug());
            Failure::from(Diagnostic::error(IMPOSSIBLE_VALUE, message).help("write one such as \"2 GiB\""))
        })?,
    };
    let trimmed = cache.gc(limit, &ui.progress())?;
    let root = cache.root().display().to_string();
    if ui.is_json() {
        ui.object(&json!({
            "type": "cache",
            "directory": root,
            "removed": trimmed.removed,
            "freed": trimmed.freed,
            "kept": trimmed.kept,
        }));
    } else {
        let removed = match trimmed.removed {
            0 => String::new(),
            n => format!(", after {n} entries with {} were removed", Size(trimmed.freed)),
        };
        ui.product(&format!("{root}: {}{removed}\n", Size(trimmed.kept)));
    }
    Ok(())
}
