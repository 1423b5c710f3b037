//! Bytes looked at eight at a time: control characters are rare, and one look at a word tells that
//! none of its eight bytes is one.

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
