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
        // unreserved, sub-delims and the percent sign
        if alphanumeric || is_one_of(character, b"-._~!$&'()*+,;=%") {
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
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
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

/// Whether `text` is `uri-host [ ":" port ]`, RFC 3986 §3.2. User information is not (RFC 9110
/// §4.2.4 calls it an error), and neither is an unclosed address literal.
pub(crate) fn is_host(text: &[u8]) -> bool {
    let port = if let Some(literal) = text.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|&byte| byte == b']') else { return false };
        let (address, rest) = (&literal[..end], &literal[end + 1..]);
        let valid = |&byte: &u8| byte == b':' || CLASSES[usize::from(byte)] & HOST != 0;
        if address.is_empty() || !address.iter().all(valid) {
            return false;
        }
        rest
    } else {
        let end = text.iter().position(|&byte| CLASSES[usize::from(byte)] & HOST == 0);
        &text[end.unwrap_or(text.len())..]
    };
    match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
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
