//! Diagnostic codes and severities: what a rule is called, everywhere.
//!
//! A code is a letter for the rule's family and three digits (`L104`). Codes are never reused. Each is
//! declared once, beside its rule; `docs/diagnostics/` explains it and `tests/bad/` holds its smallest
//! failing input.

use core::fmt;

/// The stable name of one rule, such as `L104`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    family: u8,
    number: u16,
}

impl Code {
    /// The code of family `family` (an upper-case ASCII letter) and `number` (100..=999).
    ///
    /// # Panics
    /// When either is out of range. Codes are constants, so this fails at compile time.
    pub const fn new(family: char, number: u16) -> Self {
        assert!(family.is_ascii_uppercase() && number >= 100 && number <= 999);
        Self { family: family as u8, number }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:03}", self.family as char, self.number)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How grave a diagnostic is. Only an error stops a bundle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Notice,
    /// It works today and will bite.
    Warning,
    /// It cannot work.
    Error,
}

impl Severity {
    /// `error`, `warning` or `notice`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
