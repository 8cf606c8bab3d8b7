//! `explain`: what a diagnostic means.

use citrine_planner::diag::Diagnostic;
use citrine_planner::input::UNKNOWN_NAME;
use citrine_planner::input::reader::nearest;
use serde_json::json;

use crate::cli::Explain;
use crate::explain::{PAGES, page};
use crate::report::{CmdResult, Ui};

/// Runs `explain`.
pub fn run(args: &Explain, ui: &Ui) -> CmdResult {
    let Some(wanted) = &args.code else {
        for (code, text) in PAGES {
            if ui.is_json() {
                ui.object(&json!({ "type": "code", "code": code, "title": title(text) }));
            } else {
                ui.product(&format!("{code}  {}\n", title(text)));
            }
        }
        return Ok(());
    };
    let code = wanted.to_ascii_uppercase();
    let Some(text) = page(&code) else {
        let near = nearest(&code, PAGES.iter().map(|(code, _)| *code));
        let help = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
        return Err(Diagnostic::error(UNKNOWN_NAME, format!("there is no diagnostic {}", wanted.escape_debug()))
            .help(format!("{help}`cargo xtask explain` lists them all"))
            .into());
    };
    if ui.is_json() {
        ui.object(&json!({ "type": "explanation", "code": code, "text": text }));
    } else {
        ui.product(text);
    }
    Ok(())
}

/// The title in a page's first line: `# L101: title`.
fn title(page: &str) -> &str {
    page.lines().next().and_then(|line| line.split_once(": ")).map_or("", |(_, title)| title)
}
