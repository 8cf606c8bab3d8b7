//! The plan's views as text: hv.dts and the U-Boot script, through the templates of `templates/`.
//!
//! Templates hold shape only. Every number they print is made here, from the plan, as the text that the
//! reader of the file expects (`0xf 0xe8020000` cells, `0x78020000` for U-Boot).

mod context;
pub mod json;
mod template;

use std::collections::BTreeMap;

use citrine_formats::hvconfig::Digest;
pub use template::{Template, strip_markers};

use crate::diag::Result;
use crate::plan::LoadPlan;

/// Which bytes the guests' images have, by the part's file name.
pub type Digests = BTreeMap<String, Digest>;

/// The configuration tree's source. A partition whose images all have a digest in `digests` starts with exactly
/// those images; the others take what lies in memory. With line markers, so that `dtc` reports the template's lines; see
/// [`strip_markers`].
///
/// # Errors
/// The template is wrong: it uses a variable that there is not, or does not end.
pub fn hv_dts(plan: &LoadPlan, digests: &Digests, template: &Template<'_>) -> Result<String> {
    template.render_marked(&context::HvDts::of(plan, digests))
}

/// The U-Boot script's text.
///
/// # Errors
/// The template is wrong, as for [`hv_dts`].
pub fn boot_cmd(plan: &LoadPlan, template: &Template<'_>) -> Result<String> {
    template.render(&context::BootCmd::of(plan))
}
