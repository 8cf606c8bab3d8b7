//! U-Boot's header in front of a kernel, a RAM disk, a hypervisor or a script, byte for byte as `mkimage`
//! writes it under `SOURCE_DATE_EPOCH`.

use std::borrow::Cow;

use citrine_formats::uimage::{Compression, Header, Kind, script_prefix};

use super::Content;

/// The header fields that are chosen; the rest follows from the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields<'a> {
    /// What the payload is.
    pub kind: Kind,
    /// How the payload is compressed already.
    pub compression: Compression,
    /// The name that U-Boot shows, cut to 32 bytes.
    pub name: &'a str,
    /// Address that `bootm` copies or unpacks the payload to.
    pub load: u32,
    /// Address that is jumped to.
    pub entry: u32,
    /// Time stamp, seconds since 1970: the bundle's `source_date_epoch`.
    pub time: u32,
}

/// A uImage of `payload`. `None` if that is longer than the header's 32-bit field can say.
pub fn wrap<'a>(fields: Fields<'_>, payload: impl Into<Cow<'a, [u8]>>) -> Option<Content<'a>> {
    let body = payload.into();
    let header = Header::for_payload(fields.kind, fields.compression, fields.name, fields.time, &body)?;
    let header = Header { load: fields.load, entry: fields.entry, ..header };
    Some(Content { head: header.to_bytes().to_vec(), body, key: None })
}

/// A U-Boot script image of `text`. `None` if that is longer than 32 bits can say.
pub fn script(name: &str, time: u32, text: &str) -> Option<Content<'static>> {
    let payload = [&script_prefix(text)?[..], text.as_bytes()].concat();
    let fields = Fields { kind: Kind::Script, compression: Compression::None, name, load: 0, entry: 0, time };
    wrap(fields, payload)
}
