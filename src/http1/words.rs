//! Bytes looked at eight at a time: what is looked for is rare, and one look at a word tells that
//! none of its eight bytes is it.

const ONES: u64 = u64::from_le_bytes([1; 8]);
/// The highest bit of each byte: a mark on the bytes that are meant.
const HIGH: u64 = ONES << 7;

/// How much of the front of `text` has no control character of ASCII (a tab is one, and so is DEL).
pub(super) fn plain_length(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = controls(u64::from_le_bytes(*word));
        if marks != 0 {
            // The first byte is the lowest one.
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let plain = rest.iter().take_while(|byte| !byte.is_ascii_control());
    words.len() * 8 + plain.count()
}

/// Whether there is a control character in `text`.
pub(super) fn has_control(text: &[u8]) -> bool {
    let is_one = |word: &[u8; 8]| controls(u64::from_le_bytes(*word)) != 0;
    match text.last_chunk() {
        // What the words leave over is in the last eight bytes; some are looked at twice.
        Some(last) => text.as_chunks().0.iter().any(is_one) || is_one(last),
        None => text.iter().any(u8::is_ascii_control),
    }
}

/// Where the first byte of `target` is that is no visible character of ASCII, or is `?` or `#`.
pub(super) fn special_position(target: &[u8]) -> Option<usize> {
    let (words, rest) = target.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = specials(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(index * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    if let Some(last) = target.last_chunk() {
        // What the words leave over; what was looked at before has no mark.
        let marks = specials(u64::from_le_bytes(*last));
        return (marks != 0).then(|| target.len() - 8 + marks.trailing_zeros() as usize / 8);
    }
    rest.iter().position(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#'))
}

/// Makes `to` the lower case of `name`, which is as long, and ASCII.
pub(super) fn write_lower_case(name: &[u8], to: &mut [u8]) {
    if let (Some(last), Some(to_last)) = (name.last_chunk::<8>(), to.last_chunk_mut::<8>()) {
        *to_last = lower_case(u64::from_le_bytes(*last)).to_le_bytes();
        for (word, to) in name.as_chunks::<8>().0.iter().zip(to.as_chunks_mut::<8>().0) {
            *to = lower_case(u64::from_le_bytes(*word)).to_le_bytes();
        }
        return;
    }
    // Short names: their ends may overlap.
    let halves = (name.first_chunk::<4>(), name.last_chunk::<4>());
    if let (Some(first), Some(last)) = halves {
        let both =
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
        let both = lower_case(both).to_le_bytes();
        let end = to.len() - 4;
        to[..4].copy_from_slice(&both[..4]);
        to[end..].copy_from_slice(&both[4..]);
        return;
    }
    for (byte, to) in name.iter().zip(to) {
        *to = byte.to_ascii_lowercase();
    }
}

/// A word of ASCII in lower case.
fn lower_case(word: u64) -> u64 {
    // No byte is above 0x7f, so no sum carries into the next byte.
    let from_a = word + ONES * (0x80 - u64::from(b'A'));
    let beyond_z = word + ONES * (0x7f - u64::from(b'Z'));
    word | (from_a & !beyond_z & HIGH) >> 2
}

/// Marks the first byte of a word that is no visible character, or is `?` or `#`; as [`controls`].
fn specials(word: u64) -> u64 {
    let is = |byte: u8| {
        let difference = word ^ (ONES * u64::from(byte));
        difference.wrapping_sub(ONES) & !difference
    };
    let not_visible = word | word.wrapping_sub(ONES * u64::from(b'!'));
    (not_visible | is(0x7f) | is(b'?') | is(b'#')) & HIGH
}

/// Marks the first control character of a word. Bytes behind it may have a mark without being one:
/// a subtraction borrows from them.
fn controls(word: u64) -> u64 {
    let delete = word ^ (ONES * 0x7f);
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    (below_space | (delete.wrapping_sub(ONES) & !delete)) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_special_byte_of_a_target_is_found_wherever_it_is() {
        for length in 0..40 {
            for around in [b'!', b'"', b'$', b'>', b'@', b'~'] {
                let mut target = vec![around; length];
                assert_eq!(special_position(&target), None);
                for position in (0..length).rev() {
                    for special in [0, b'\n', b' ', b'#', b'?', 0x7f, 0x80, 0xff] {
                        target[position] = special;
                        assert_eq!(special_position(&target), Some(position), "{target:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_character_of_a_name_has_its_lower_case() {
        for length in 0..40 {
            for shift in 0..128 {
                let name: Vec<u8> = (0..length).map(|index| (index + shift) % 128).collect();
                let mut lower = vec![0xff; name.len()];
                write_lower_case(&name, &mut lower);
                assert_eq!(lower, name.to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn a_control_character_is_found_wherever_it_is() {
        for length in 0..40 {
            // Between the smallest and the largest bytes that are none.
            for around in [b' ', b'~', 0x80, 0xff] {
                let mut text = vec![around; length];
                assert_eq!(plain_length(&text), length);
                assert!(!has_control(&text));
                for position in (0..length).rev() {
                    for control in [0, b'\t', b'\n', b'\r', 0x1f, 0x7f] {
                        text[position] = control;
                        assert_eq!(plain_length(&text), position, "{text:?}");
                        assert!(has_control(&text), "{text:?}");
                    }
                }
            }
        }
    }
}
