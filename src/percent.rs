//! Percent-decoding, RFC 3986 §2.1: for the `path` of the application and of the access log.

/// `raw` with every `%XX` decoded; a `%` without two hexadecimal digits stays as it is.
#[must_use]
pub fn decoded(raw: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        let pair = match tail {
            [high, low, ..] if *first == b'%' => digit(high).zip(digit(low)),
            _ => None,
        };
        if let Some((high, low)) = pair {
            decoded.extend(u8::try_from(high * 16 + low));
            rest = &tail[2..];
        } else {
            decoded.push(*first);
            rest = tail;
        }
    }
    decoded
}
