//! The range of a representation that a client asks for: RFC 9110 §14, for one range of bytes.
//!
//! A request with several ranges gets the whole: nobody may rely on more (§14.2), and a body of
//! parts costs more than it saves. What cannot be understood is ignored, as §14.2 wants.

use super::syntax::decimal;
use std::ops::Range;

/// The fields of a request that ask for a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RangeRequest {
    /// The value of `range`.
    pub(super) range: Vec<u8>,
    /// The value of `if-range`.
    pub(super) if_range: Option<Vec<u8>>,
}

/// What of a representation is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    /// All of it.
    Whole,
    /// These bytes; never empty.
    Part(Range<u64>),
    /// Nothing of what was asked for is there.
    Unsatisfiable,
}

/// What the value of a Range field selects of `length` bytes.
pub(super) fn select(range: &[u8], length: u64) -> Selected {
    let Some((unit, set)) = split_at(range, b'=') else { return Selected::Whole };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Selected::Whole;
    }
    let Some((first, last)) = split_at(set.trim_ascii(), b'-') else { return Selected::Whole };
    match (first, last, decimal(first), decimal(last)) {
        // The last so many bytes.
        (b"", _, _, Some(0)) => Selected::Unsatisfiable,
        (b"", _, _, Some(_)) if length == 0 => Selected::Unsatisfiable,
        (b"", _, _, Some(suffix)) => Selected::Part(length.saturating_sub(suffix)..length),
        (_, b"", Some(first), _) if first >= length => Selected::Unsatisfiable,
        (_, b"", Some(first), _) => Selected::Part(first..length),
        (_, _, Some(first), Some(last)) if last < first => Selected::Whole,
        (_, _, Some(first), Some(_)) if first >= length => Selected::Unsatisfiable,
        (_, _, Some(first), Some(last)) => {
            Selected::Part(first..last.saturating_add(1).min(length))
        }
        _ => Selected::Whole,
    }
}

/// Whether the client's copy is of the representation that has these fields, RFC 9110 §13.1.5: its
/// validator is the same byte for byte, and a strong one.
pub(super) fn is_same(if_range: &[u8], etag: Option<&[u8]>, last_modified: Option<&[u8]>) -> bool {
    if if_range.starts_with(b"W/") {
        return false;
    }
    let current = if if_range.starts_with(b"\"") { etag } else { last_modified };
    current == Some(if_range)
}

fn split_at(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let position = text.iter().position(|&byte| byte == separator)?;
    Some((&text[..position], &text[position + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_selected_and_all_else_is_the_whole() {
        use Selected::{Part, Unsatisfiable, Whole};
        let table: [(&str, u64, Selected); 24] = [
            ("bytes=0-0", 10, Part(0..1)),
            ("bytes=0-9", 10, Part(0..10)),
            ("bytes=0-", 10, Part(0..10)),
            ("bytes=3-5", 10, Part(3..6)),
            ("bytes=3-99", 10, Part(3..10)),
            ("bytes=3-18446744073709551615", 10, Part(3..10)),
            ("bytes=9-", 10, Part(9..10)),
            ("bytes=-3", 10, Part(7..10)),
            ("bytes=-99", 10, Part(0..10)),
            ("BYTES=1-2", 10, Part(1..3)),
            ("bytes= 1-2", 10, Part(1..3)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-5", 0, Unsatisfiable),
            ("bytes=5-3", 10, Whole),
            ("bytes=0-1,4-5", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("lines=1-2", 10, Whole),
            ("1-2", 10, Whole),
        ];
        for (range, length, expected) in table {
            assert_eq!(select(range.as_bytes(), length), expected, "{range} of {length}");
        }
    }

    #[test]
    fn a_validator_must_be_strong_and_the_same() {
        let date: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
        assert!(is_same(b"\"a\"", Some(b"\"a\""), None));
        assert!(is_same(date, None, Some(date)));
        assert!(!is_same(b"\"a\"", Some(b"\"b\""), None));
        assert!(!is_same(b"W/\"a\"", Some(b"W/\"a\""), None));
        assert!(!is_same(b"\"a\"", None, Some(date)));
        assert!(!is_same(date, Some(b"\"a\""), None));
    }
}
