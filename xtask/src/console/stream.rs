//! The words of `mux_server`'s command line: what is done with each channel.

use std::str::FromStr;

use citrine_formats::mux::MAX_CHANNELS;

/// What is done with a channel: the n-th word is for channel n.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// It is offered on this TCP port; 0 is one that the system chooses.
    Port(u16),
    /// It is printed.
    Stdout,
    /// It is printed as an error.
    Stderr,
    /// Standard input is sent to it.
    Stdin,
    /// The next word is for the next channel whose number is a multiple of eight.
    Skip,
}

impl FromStr for Stream {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            "stdin" => Ok(Self::Stdin),
            ":" => Ok(Self::Skip),
            _ => {
                let port =
                    word.parse().map_err(|_| "a stream is a port up to 65535, `stdout`, `stderr`, `stdin` or `:`");
                Ok(Self::Port(port?))
            }
        }
    }
}

/// The channels of these words.
///
/// # Errors
/// Why there are too many.
pub fn channels(words: &[Stream]) -> Result<Vec<(u8, Stream)>, String> {
    let mut channels = Vec::new();
    let mut next = 0_u8;
    for &word in words {
        if word == Stream::Skip {
            next = (next / 8 + 1) * 8;
        } else if next < MAX_CHANNELS {
            channels.push((next, word));
            next += 1;
        } else {
            return Err(format!("the line carries {MAX_CHANNELS} channels, and this is one more"));
        }
        if next > MAX_CHANNELS {
            return Err(format!("`:` leads beyond the last channel, {}", MAX_CHANNELS - 1));
        }
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<(u8, Stream)>, String> {
        channels(&text.split_whitespace().map(str::parse).collect::<Result<Vec<Stream>, String>>()?)
    }

    #[test]
    fn words_are_those_of_mux_server() {
        let wanted = [(0, Stream::Port(18900)), (1, Stream::Stdout), (8, Stream::Stdin), (16, Stream::Stderr)];
        assert_eq!(words("18900 stdout : stdin : stderr").unwrap(), wanted);
        assert_eq!(words(": 1").unwrap(), [(8, Stream::Port(1))]);
        assert_eq!(words(&"0 ".repeat(95)).unwrap().len(), 95);
        for wrong in ["x", "65536", "-1", "", "stdout:"] {
            assert!(wrong.parse::<Stream>().is_err(), "{wrong}");
        }
        assert!(words(&"0 ".repeat(96)).is_err());
        assert!(words(&": ".repeat(12)).is_err());
        assert!(words(&": ".repeat(300)).is_err());
    }
}
