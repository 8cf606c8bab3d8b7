//! What the person at the screen types: keys for a channel, and commands for us.

use super::Server;
use crate::console::terminal::Typed;

impl Server<'_> {
    /// Does what the person has typed; true when that is to leave.
    pub(super) fn read_screen(&mut self) -> bool {
        let Some(screen) = &mut self.screen else { return false };
        for typed in screen.typed() {
            let Some(screen) = &mut self.screen else { return false };
            match typed {
                Typed::Bytes(bytes) => {
                    let number = screen.channel;
                    self.send(number, &bytes);
                }
                Typed::Command(b'x') => return true,
                Typed::Command(key @ b'0'..=b'9') => self.switch(key - b'0'),
                Typed::Command(b'n') => {
                    let shown = screen.channel;
                    let mut all = self.channels.keys().copied();
                    let next = all.clone().find(|&number| number > shown).or_else(|| all.next());
                    self.switch(next.unwrap_or(shown));
                }
                Typed::Command(b'p') => {
                    let shown = screen.channel;
                    let mut all = self.channels.keys().rev().copied();
                    let before = all.clone().find(|&number| number < shown).or_else(|| all.next());
                    self.switch(before.unwrap_or(shown));
                }
                Typed::Command(b'h') => {
                    let history = self.channels.get(&screen.channel).map(|channel| channel.history.bytes());
                    screen.say("what this channel has brought");
                    screen.replay(&history.unwrap_or_default());
                }
                Typed::Command(b'l') => {
                    let shown = screen.channel;
                    let each = self.channels.iter().map(|(number, channel)| match channel.unseen {
                        _ if *number == shown => format!("{number}: shown"),
                        unseen => format!("{number}: {unseen} bytes not seen"),
                    });
                    let list = each.collect::<Vec<_>>().join(" | ");
                    screen.say(&list);
                }
                Typed::Command(_) => screen.help(),
            }
        }
        false
    }

    fn switch(&mut self, number: u8) {
        let Some(screen) = &mut self.screen else { return };
        match self.channels.get_mut(&number) {
            Some(channel) => {
                channel.unseen = 0;
                screen.switch(number, &channel.history.bytes());
            }
            None => screen.switch(number, b""),
        }
    }
}
