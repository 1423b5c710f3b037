//! Characters, lists and numbers of the grammar (RFC 9110 §5.6, RFC 3986 §3.2.2).

const TOKEN: u8 = 1;
const HOST: u8 = 2;

/// What each byte may be part of.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        // `byte` is below 256, so that the cast cuts nothing.
        #[allow(clippy::cast_possible_truncation)]
        let character = byte as u8;
        let alphanumeric = character.is_ascii_alphanumeric();
        if alphanumeric || is_one_of(character, b"!#$%&'*+-.^_`|~") {
            classes[byte] |= TOKEN;
        }
        // unreserved and sub-delims
        if alphanumeric || is_one_of(character, b"-._~!$&'()*+,;=") {
            classes[byte] |= HOST;
        }
        byte += 1;
    }
    classes
}

const fn is_one_of(byte: u8, characters: &[u8]) -> bool {
    let mut index = 0;
    while index < characters.len() {
        if characters[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

/// Whether `byte` is a tchar, RFC 9110 §5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// Whether `text` is a token, RFC 9110 §5.6.2.
pub(crate) fn is_token(text: &[u8]) -> bool {
    // Nearly all are, so that looking at every byte is cheaper than a branch for each.
    let common = text.iter().fold(TOKEN, |common, &byte| common & CLASSES[usize::from(byte)]);
    !text.is_empty() && common != 0
}

/// Whether `byte` may stand in a field value: RFC 9110 §5.5, horizontal tab included.
pub(super) fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The elements of a comma-separated list without the white space around them, RFC 9110 §5.6.1.
/// Empty elements are returned too.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// A number of digits and nothing else: no sign, no space, no list. `None` also for what a `u64`
/// cannot hold.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Whether `text` is `uri-host [ ":" port ]`, RFC 3986 §3.2, or empty. User information is not (RFC
/// 9110 §4.2.4 calls it an error), and neither is a port without a host (§4.2.1).
#[inline]
pub(crate) fn is_host(text: &[u8]) -> bool {
    let port = if let Some(literal) = text.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|&byte| byte == b']') else { return false };
        if !is_address(&literal[..end]) {
            return false;
        }
        &literal[end + 1..]
    } else {
        &text[reg_name_length(text)..]
    };
    match port.split_first() {
        None => true,
        Some((b':', digits)) => port.len() < text.len() && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

/// How much of the front of `text` is a reg-name, RFC 3986 §3.2.2; a dotted IPv4 address is one.
fn reg_name_length(text: &[u8]) -> usize {
    let end = text.iter().position(|&byte| !is_host_byte(byte)).unwrap_or(text.len());
    if text.get(end) == Some(&b'%') { escaped_reg_name_length(text) } else { end }
}

#[cold]
fn escaped_reg_name_length(text: &[u8]) -> usize {
    let mut length = 0;
    loop {
        length += match text[length..] {
            [byte, ..] if is_host_byte(byte) => 1,
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => 3,
            _ => return length,
        };
    }
}

/// Whether `text` may stand in the brackets of an IP-literal, RFC 3986 §3.2.2. A zone may not: it
/// means something on the client's machine only.
#[cold]
fn is_address(text: &[u8]) -> bool {
    let Some(future) = text.strip_prefix(b"v").or_else(|| text.strip_prefix(b"V")) else {
        return str::from_utf8(text).is_ok_and(|text| text.parse::<core::net::Ipv6Addr>().is_ok());
    };
    let mut parts = future.splitn(2, |&byte| byte == b'.');
    let (version, address) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    !version.is_empty()
        && version.iter().all(u8::is_ascii_hexdigit)
        && !address.is_empty()
        && address.iter().all(|&byte| byte == b':' || is_host_byte(byte))
}

fn is_host_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & HOST != 0
}

/// Appends `number` in decimal.
pub(super) fn write_decimal(number: u64, out: &mut Vec<u8>) {
    write_digits::<10>(number, out);
}

/// Appends `number` in lower-case hexadecimal.
pub(super) fn write_hexadecimal(number: u64, out: &mut Vec<u8>) {
    write_digits::<16>(number, out);
}

fn write_digits<const BASE: u64>(mut number: u64, out: &mut Vec<u8>) {
    // 20 digits hold any u64 in base ten, the smaller of the two bases.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b"0123456789abcdef"[usize::from((number % BASE).to_le_bytes()[0])];
        number /= BASE;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}
