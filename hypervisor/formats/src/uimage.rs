//! U-Boot's legacy image format ("uImage"): a 64-byte big-endian header in front of the payload.
//!
//! Written byte for byte as `mkimage` writes it under `SOURCE_DATE_EPOCH`, and read as a hostile input:
//! the header is believed only when its own CRC holds, the payload only when [`Image::payload_crc`] does.
//! Layout: U-Boot `include/image.h`, `struct legacy_img_hdr`.

use core::fmt;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 64;
/// The first word of every header (`IH_MAGIC`).
pub const MAGIC: u32 = 0x2705_1956;
/// Longest name that the header holds, in bytes (`IH_NMLEN`).
pub const NAME_LEN: usize = 32;
/// Length in bytes of what `mkimage -T script` puts in front of the text: its length, then a zero word.
pub const SCRIPT_PREFIX_LEN: usize = 8;

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            /// A number this code gives no meaning to.
            Other(u8),
        }

        impl $name {
            /// The meaning of the header byte `code`.
            pub const fn from_code(code: u8) -> Self {
                match code {
                    $($value => Self::$variant,)*
                    other => Self::Other(other),
                }
            }

            /// The header byte.
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $value,)*
                    Self::Other(code) => code,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Other(code) => write!(f, "number {code}"),
                }
            }
        }
    };
}

coded!(
    /// Operating system (`ih_os`).
    Os {
        /// NetBSD.
        NetBsd = 2 "netbsd",
        /// Linux; also what hypervisor images declare.
        Linux = 5 "linux",
    }
);
coded!(
    /// CPU architecture (`ih_arch`).
    Arch {
        /// ARM, 32-bit.
        Arm = 2 "arm",
        /// Intel x86.
        X86 = 3 "x86",
        /// MIPS, 32-bit.
        Mips = 5 "mips",
        /// PowerPC, 32- and 64-bit.
        PowerPc = 7 "powerpc",
        /// ARM, 64-bit.
        Arm64 = 22 "arm64",
    }
);
coded!(
    /// What the payload is (`ih_type`).
    Kind {
        /// Stand-alone program.
        Standalone = 1 "standalone",
        /// Operating system kernel, or a hypervisor.
        Kernel = 2 "kernel",
        /// RAM disk: handed over as it is.
        Ramdisk = 3 "ramdisk",
        /// Several images in one.
        Multi = 4 "multi",
        /// Firmware.
        Firmware = 5 "firmware",
        /// U-Boot script.
        Script = 6 "script",
    }
);
coded!(
    /// How the payload is compressed (`ih_comp`).
    Compression {
        /// Not compressed.
        None = 0 "none",
        /// gzip, one member.
        Gzip = 1 "gzip",
        /// bzip2.
        Bzip2 = 2 "bzip2",
        /// LZMA.
        Lzma = 3 "lzma",
    }
);

/// The name field: up to 32 bytes, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name([u8; NAME_LEN]);

impl Name {
    /// The name `text`, cut to 32 bytes; `mkimage` leaves no zero behind such a name, and U-Boot needs none.
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; NAME_LEN];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Self(bytes)
    }
}

impl fmt::Display for Name {
    /// Printable ASCII up to the first zero; anything else as `?`, so that an image cannot write
    /// escape sequences to a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for &byte in self.0.iter().take_while(|&&byte| byte != 0) {
            f.write_char(if (0x20..0x7f).contains(&byte) { byte as char } else { '?' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The header's fields, but for the magic number and the header's own CRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Time stamp, seconds since 1970.
    pub time: u32,
    /// Length of the payload in bytes.
    pub size: u32,
    /// Address that `bootm` copies or unpacks the payload to (32-bit effective).
    pub load: u32,
    /// Address that is jumped to (32-bit effective).
    pub entry: u32,
    /// CRC-32 of the payload as stored.
    pub data_crc: u32,
    /// Operating system.
    pub os: Os,
    /// Architecture.
    pub arch: Arch,
    /// What the payload is.
    pub kind: Kind,
    /// Compression of the payload.
    pub compression: Compression,
    /// Name shown by `bootm` and `iminfo`.
    pub name: Name,
}

/// Why bytes are not a usable uImage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Fewer bytes than a header has.
    NoHeader {
        /// Bytes there are.
        have: usize,
    },
    /// Another magic number.
    NotUimage {
        /// The first word.
        magic: u32,
    },
    /// The header does not match its own CRC.
    HeaderCrc {
        /// CRC stored in the header.
        stored: u32,
        /// CRC of the header as it is.
        computed: u32,
    },
    /// The payload is cut short.
    Truncated {
        /// Payload bytes that the header announces.
        announced: u32,
        /// Payload bytes that there are.
        have: usize,
    },
    /// The payload does not match the header's data CRC.
    DataCrc {
        /// CRC stored in the header.
        stored: u32,
        /// CRC of the payload as it is.
        computed: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoHeader { have } => write!(f, "{have} bytes are too few for the {HEADER_LEN}-byte uImage header"),
            Self::NotUimage { magic } => write!(f, "not a uImage: magic number {magic:#010x} instead of {MAGIC:#010x}"),
            Self::HeaderCrc { stored, computed } => {
                write!(f, "the header is damaged: its CRC is {computed:#010x}, it says {stored:#010x}")
            }
            Self::Truncated { announced, have } => {
                write!(f, "truncated: the header announces {announced} bytes of payload, there are {have}")
            }
            Self::DataCrc { stored, computed } => {
                write!(f, "the payload is damaged: its CRC is {computed:#010x}, the header says {stored:#010x}")
            }
        }
    }
}

impl core::error::Error for Error {}

impl Header {
    /// The header of `payload`, for PowerPC and Linux, with the payload's size and CRC filled in.
    ///
    /// Returns `None` when the payload is longer than the 32-bit size field can say.
    pub fn for_payload(kind: Kind, compression: Compression, name: &str, time: u32, payload: &[u8]) -> Option<Self> {
        Some(Self {
            time,
            size: u32::try_from(payload.len()).ok()?,
            load: 0,
            entry: 0,
            data_crc: crc32fast::hash(payload),
            os: Os::Linux,
            arch: Arch::PowerPc,
            kind,
            compression,
            name: Name::new(name),
        })
    }

    /// The 64 bytes as they are stored, header CRC included.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let words = [MAGIC, 0, self.time, self.size, self.load, self.entry, self.data_crc];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        bytes[28..32].copy_from_slice(&[self.os.code(), self.arch.code(), self.kind.code(), self.compression.code()]);
        bytes[32..].copy_from_slice(&self.name.0);
        // The CRC is taken with its own field zero.
        let crc = crc32fast::hash(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads a header whose own CRC holds.
    ///
    /// # Errors
    /// [`Error::NoHeader`], [`Error::NotUimage`] or [`Error::HeaderCrc`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(Error::NoHeader { have: bytes.len() });
        };
        let word = |index: usize| {
            let at = index * 4;
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if word(0) != MAGIC {
            return Err(Error::NotUimage { magic: word(0) });
        }
        let mut zeroed = *header;
        zeroed[4..8].fill(0);
        let (stored, computed) = (word(1), crc32fast::hash(&zeroed));
        if stored != computed {
            return Err(Error::HeaderCrc { stored, computed });
        }
        let mut name = [0; NAME_LEN];
        name.copy_from_slice(&header[32..]);
        Ok(Self {
            time: word(2),
            size: word(3),
            load: word(4),
            entry: word(5),
            data_crc: word(6),
            os: Os::from_code(header[28]),
            arch: Arch::from_code(header[29]),
            kind: Kind::from_code(header[30]),
            compression: Compression::from_code(header[31]),
            name: Name(name),
        })
    }

    /// Header and payload together, in bytes.
    pub fn total_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.size)
    }
}

/// The CRC-32 of a payload that is seen in pieces.
#[derive(Clone, Debug, Default)]
pub struct Crc(crc32fast::Hasher);

impl Crc {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The CRC of all pieces.
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// A uImage in memory: a believed header and as many payload bytes as it announces.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// The header.
    pub header: Header,
    /// The payload as stored (compressed, if the header says so).
    pub payload: &'a [u8],
}

impl<'a> Image<'a> {
    /// Reads the image at the start of `bytes`; what follows the payload is not looked at, since an image
    /// in a memory window is followed by whatever lies there.
    ///
    /// # Errors
    /// What [`Header::parse`] returns, and [`Error::Truncated`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let header = Header::parse(bytes)?;
        let rest = &bytes[HEADER_LEN..];
        let payload = usize::try_from(header.size)
            .ok()
            .and_then(|size| rest.get(..size))
            .ok_or(Error::Truncated { announced: header.size, have: rest.len() })?;
        Ok(Self { header, payload })
    }

    /// Computes the payload's CRC, once over all its bytes, and compares it with the header's.
    ///
    /// # Errors
    /// [`Error::DataCrc`].
    pub fn payload_crc(&self) -> Result<(), Error> {
        let (stored, computed) = (self.header.data_crc, crc32fast::hash(self.payload));
        if stored == computed { Ok(()) } else { Err(Error::DataCrc { stored, computed }) }
    }

    /// Reads an image and checks both CRCs.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn verify(bytes: &'a [u8]) -> Result<Self, Error> {
        let image = Self::parse(bytes)?;
        image.payload_crc()?;
        Ok(image)
    }
}

/// The words in front of a script's text: its length, and the zero that ends the list of texts.
/// `None` when the text is longer than 32 bits can say.
pub fn script_prefix(text: &str) -> Option<[u8; SCRIPT_PREFIX_LEN]> {
    let len = u32::try_from(text.len()).ok()?;
    let mut prefix = [0; SCRIPT_PREFIX_LEN];
    prefix[..4].copy_from_slice(&len.to_be_bytes());
    Some(prefix)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn image(payload: &[u8]) -> Vec<u8> {
        let header = Header::for_payload(Kind::Kernel, Compression::Gzip, "linux", 1_700_000_000, payload).unwrap();
        [&header.to_bytes()[..], payload].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = image(b"payload");
        let read = Image::verify(&bytes).unwrap();
        assert_eq!(read.payload, b"payload");
        assert_eq!((read.header.kind, read.header.compression), (Kind::Kernel, Compression::Gzip));
        assert_eq!(read.header.total_len(), bytes.len() as u64);
    }

    #[test]
    fn bytes_behind_the_payload_are_not_part_of_it() {
        let mut bytes = image(b"payload");
        bytes.extend_from_slice(&[0xff; 100]);
        assert_eq!(Image::verify(&bytes).unwrap().payload, b"payload");
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        assert_eq!(std::format!("{}", Name::new("a\x1b[2Jb")), "a?[2Jb");
        assert_eq!(std::format!("{}", Name::new(&"x".repeat(40))), "x".repeat(NAME_LEN));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = image(b"some payload");
        for len in 0..bytes.len() {
            assert!(Image::verify(&bytes[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn every_flipped_bit_is_an_error() {
        let bytes = image(b"some payload");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Image::verify(&damaged).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Image::verify(&bytes);
        }
    }
}
