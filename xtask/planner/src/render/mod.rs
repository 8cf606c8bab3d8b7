//! The plan's views as text: hv.dts and the U-Boot script, through the templates of `templates/`.
//!
//! Templates hold shape only. Every number they print is made here, from the plan, as the text that the
//! reader of the file expects (`0xf 0xe8020000` cells, `0x78020000` for U-Boot).

mod context;
mod flash;
pub mod json;
mod labgrid;
pub mod names;
pub mod own;
mod template;
pub mod typed;

use std::collections::BTreeMap;

use citrine_formats::hvconfig::Digest;
pub use labgrid::Bench;
pub use template::{Template, strip_markers};

use crate::diag::Result;
use crate::flash::FlashPlan;
use crate::plan::LoadPlan;

/// Which bytes the guests' images have, by the part's file name.
pub type Digests = BTreeMap<String, Digest>;

/// The configuration tree's source. A partition whose images all have a digest in `digests` starts with exactly
/// those images; the others take what lies in memory. With line markers, so that `dtc` reports the template's lines; see
/// [`strip_markers`].
///
/// # Errors
/// The template is wrong: it uses a variable that there is not, or does not end. Or the profile's own source sets what
/// the template sets.
pub fn hv_dts(plan: &LoadPlan, digests: &Digests, template: &Template<'_>) -> Result<String> {
    let owns = context::owns(plan);
    let mut context = context::HvDts::of(plan, digests);
    if !owns.is_empty() {
        own::judge(plan, &template.render(&context)?, &owns)?;
        context.add(&owns);
    }
    template.render_marked(&context)
}

/// Whether the profile has devicetree source of its own, which only [`hv_dts`] can judge.
pub fn has_own_source(plan: &LoadPlan) -> bool {
    !context::owns(plan).is_empty()
}

/// The text of the U-Boot script that changes the flash. `ram` is the plan with the same parts in RAM, where each is
/// fetched to; `flash` the one that the steps lead to.
///
/// # Errors
/// The template is wrong, as for [`hv_dts`].
pub fn flash_cmd(ram: &LoadPlan, flash: &LoadPlan, steps: &FlashPlan, template: &Template<'_>) -> Result<String> {
    template.render(&flash::FlashCmd::of(ram, flash, steps))
}

/// The boot script's text.
///
/// # Errors
/// The template is wrong, as for [`hv_dts`].
pub fn boot_cmd(plan: &LoadPlan, template: &Template<'_>) -> Result<String> {
    template.render(&context::BootCmd::of(plan))
}

/// The environment in which labgrid boots the plan's parts on `bench`.
///
/// # Errors
/// The template is wrong, as for [`hv_dts`].
pub fn labgrid_environment(plan: &LoadPlan, bench: Bench, template: &Template<'_>) -> Result<String> {
    template.render(&labgrid::Labgrid::of(plan, bench))
}
