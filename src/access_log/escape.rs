//! What a client sent, as text that is one line and that no terminal obeys.
//!
//! Printable characters stay as they are, in UTF-8; everything else (controls of ASCII and of
//! Latin-1, line and paragraph separators, marks that turn the direction of writing, bytes that are
//! no UTF-8) is shown by its number. In text quotes and backslashes get a backslash, so that a quote
//! without one is always the format's own.

use std::io::Write;

/// Append `bytes` as text: `\xNN`, `\uNNNN` and `\UNNNNNNNN` as Python writes them.
pub(super) fn text(bytes: &[u8], out: &mut Vec<u8>) {
    escape(bytes, out, push_text, |byte, out| number(out, format_args!("\\x{byte:02x}")));
}

/// Append `bytes` as the inside of a JSON string (RFC 8259 §7). A byte that is no UTF-8 becomes
/// U+FFFD, since JSON has no bytes.
pub(super) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    escape(bytes, out, push_json, |_, out| out.extend_from_slice("\u{fffd}".as_bytes()));
}

fn escape(
    bytes: &[u8],
    out: &mut Vec<u8>,
    character: fn(char, &mut Vec<u8>),
    invalid: fn(u8, &mut Vec<u8>),
) {
    if bytes.iter().all(|&byte| is_plain(byte)) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for valid in chunk.valid().chars() {
            if is_printable(valid) {
                out.extend_from_slice(valid.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                character(valid, out);
            }
        }
        for &byte in chunk.invalid() {
            invalid(byte, out);
        }
    }
}

/// An ASCII character that stands for itself in text and in JSON.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

fn is_printable(character: char) -> bool {
    if let Ok(byte) = u8::try_from(character)
        && byte.is_ascii()
    {
        return is_plain(byte);
    }
    // The standard library's judgement is to be had through `escape_debug` alone. Behind a letter,
    // so that accents, which are printable on something, are left to it.
    let mut buffer = [b'a', 0, 0, 0, 0];
    let length = 1 + character.encode_utf8(&mut buffer[1..]).len();
    let pair = str::from_utf8(&buffer[..length]).unwrap_or_default();
    pair.escape_debug().nth(1) == Some(character)
}

fn push_text(character: char, out: &mut Vec<u8>) {
    match u32::from(character) {
        0x22 | 0x5c => number(out, format_args!("\\{character}")),
        code @ 0..=0xff => number(out, format_args!("\\x{code:02x}")),
        code @ 0x100..=0xffff => number(out, format_args!("\\u{code:04x}")),
        code => number(out, format_args!("\\U{code:08x}")),
    }
}

fn push_json(character: char, out: &mut Vec<u8>) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                number(out, format_args!("\\u{unit:04x}"));
            }
        }
    }
}

fn number(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a vector takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: impl AsRef<[u8]>) -> String {
        let mut out = Vec::new();
        text(bytes.as_ref(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_client_sends_cannot_break_the_line() {
        for (sent, written) in [
            ("/a\r\nGET /forged", r"/a\x0d\x0aGET /forged"),
            ("/\x1b[2J", r"/\x1b[2J"),
            ("/\0\x7f\u{85}\t", r"/\x00\x7f\x85\x09"),
            ("/\u{2028}\u{202e}\u{feff}", r"/\u2028\u202e\ufeff"),
            ("/\u{e0001}", r"/\U000e0001"),
            ("/\"200 OK\"", r#"/\"200 OK\""#),
            (r"/\x41", r"/\\x41"),
            ("/straße/日本/e\u{301}", "/straße/日本/e\u{301}"),
        ] {
            assert_eq!(escaped(sent), written);
        }
        assert_eq!(escaped(b"a\xff\xc3(\x9b\xed\xa0\x80"), r"a\xff\xc3(\x9b\xed\xa0\x80");
    }

    #[test]
    fn json_has_no_control_and_no_byte_that_is_not_utf_8() {
        let mut out = Vec::new();
        json("a\n\"\\\u{1f600}\u{e0001}\u{2029}".as_bytes(), &mut out);
        json(b"\xff", &mut out);
        let written = "a\\u000a\\\"\\\\\u{1f600}\\udb40\\udc01\\u2029\u{fffd}";
        assert_eq!(String::from_utf8(out).unwrap(), written);
    }
}
