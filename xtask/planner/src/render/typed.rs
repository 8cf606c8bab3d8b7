//! What is typed at U-Boot's prompt. Manuals, scripts, `serve` and the labgrid environment say the same, since it is
//! made here.

use citrine_formats::addr::TruePhys;

use crate::board::Board;

/// What U-Boot must know before it fetches anything. Of a board that nobody knows here, nobody knows what else.
pub fn before(board_address: &str, server: &str, board: Option<&Board>) -> Vec<String> {
    let bootm_size = board.and_then(|board| board.uboot.bootm_size);
    [format!("setenv ipaddr {board_address}"), format!("setenv serverip {server}")]
        .into_iter()
        .chain(bootm_size.map(|size| format!("setenv bootm_size {size:#x}")))
        .collect()
}

/// Fetches a script of `directory` and runs it.
pub fn run_script(directory: &str, script: &str, at: TruePhys) -> String {
    format!("tftp {at:#x} {directory}/{script} && source {at:#x}", at = at.0)
}

/// Makes the board start from its flash: the first script that is whole. `None` for a board without slots there.
pub fn start_from_flash(board: &Board) -> Option<String> {
    let nor = board.nor.as_ref()?;
    let slots = nor.slots.as_ref()?;
    let first = nor.effective(slots.first.script)?;
    Some(format!("setenv bootcmd 'source {first:#x} || source {:#x}'; saveenv", first + slots.second))
}
