//! Overwrites the value of `:authority` in one header block (RFC 7541), without the header table: a
//! block is walked field by field, and only a literal whose name is the static table's entry 1 is
//! touched. An entry that clients later name by its index is then ours already, because the first
//! literal was overwritten. The new value has as many octets and decodes to as many characters, since
//! the size of a table entry counts decoded characters (§4.1) and both ends must agree on evictions.

use std::ops::Range;

/// Place of `:authority` in the static table (RFC 7541 appendix A).
const AUTHORITY: usize = 1;

/// True if something was overwritten. A block that cannot be read is left as it is from there on.
pub(crate) fn overwrite_authority(block: &mut [u8]) -> bool {
    let mut at = 0;
    let mut changed = false;
    while let Some(field) = field(block, &mut at) {
        if let Field::Authority(value) = field
            && let Some(octets) = block.get_mut(value.octets.clone())
        {
            changed |= if value.huffman { huffman(octets) } else { raw(octets) };
        }
    }
    changed
}

/// A string of a block.
struct Text {
    huffman: bool,
    octets: Range<usize>,
}

/// One field of a block.
enum Field {
    /// A literal `:authority` with this value.
    Authority(Text),
    /// Anything else.
    Other,
}

/// Walks over one field. `None` = the end, or nothing that can be read.
fn field(block: &[u8], at: &mut usize) -> Option<Field> {
    let first = *block.get(*at)?;
    let name = match first {
        // Indexed field; size update (§6.1, §6.3): no strings.
        0x80.. => return integer(block, at, 7).map(|_| Field::Other),
        0x20..=0x3f => return integer(block, at, 5).map(|_| Field::Other),
        // Literal: with indexing (§6.2.1); without, never (§6.2.2, §6.2.3).
        0x40..=0x7f => integer(block, at, 6)?,
        0..=0x1f => integer(block, at, 4)?,
    };
    if name == 0 {
        text(block, at)?;
    }
    let value = text(block, at)?;
    Some(if name == AUTHORITY { Field::Authority(value) } else { Field::Other })
}

/// An integer with a prefix of so many bits (§5.1), bounded far above any real block.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let largest = (1usize << prefix).saturating_sub(1);
    let first = usize::from(*block.get(*at)?) & largest;
    *at = at.saturating_add(1);
    if first < largest {
        return Some(first);
    }
    let mut value = largest;
    for shift in [0u32, 7, 14, 21] {
        let octet = usize::from(*block.get(*at)?);
        *at = at.saturating_add(1);
        value = value.saturating_add((octet & 0x7f) << shift);
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string literal (§5.2).
fn text(block: &[u8], at: &mut usize) -> Option<Text> {
    let huffman = *block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let end = at.checked_add(length)?;
    let octets = *at..end;
    block.get(octets.clone())?;
    *at = end;
    Some(Text { huffman, octets })
}

/// Zeros: a host name made of digits is legal.
fn raw(octets: &mut [u8]) -> bool {
    octets.fill(b'0');
    !octets.is_empty()
}

/// Overwrites a Huffman-coded value (§5.2) by one of as many characters and as many bits, made of
/// codes of 5 to 8 bits. A value whose codes are longer on average is left alone; no path is.
fn huffman(octets: &mut [u8]) -> bool {
    let Some((characters, bits)) = measure(octets) else { return false };
    let Some(mut spare) = bits.checked_sub(characters.saturating_mul(5)) else { return false };
    if characters == 0 || spare > characters.saturating_mul(3) {
        return false;
    }
    let mut writer = Bits { octets, at: 0 };
    for _ in 0..characters {
        let more = spare.min(3);
        spare = spare.saturating_sub(more);
        // `0`, `3`, `B`, `X`: each the code of a letter or digit (RFC 7541 appendix B).
        let (code, length) = match more {
            0 => (0x00, 5),
            1 => (0x19, 6),
            2 => (0x5d, 7),
            _ => (0xfc, 8),
        };
        writer.put(code, length);
    }
    // The rest of the last octet is ones, the beginning of the end-of-string code.
    let rest = writer.octets.len().saturating_mul(8).saturating_sub(writer.at);
    for _ in 0..rest {
        writer.put(1, 1);
    }
    true
}

/// First and last code of each length up to 15 bits; the code is canonical (RFC 7541 appendix B).
/// Longer ones stand for characters that no path and no host name has.
const CODES: [(usize, u32, u32); 10] = [
    (5, 0x0, 0x9),
    (6, 0x14, 0x2d),
    (7, 0x5c, 0x7b),
    (8, 0xf8, 0xfd),
    (10, 0x3f8, 0x3fc),
    (11, 0x7fa, 0x7fc),
    (12, 0xffa, 0xffb),
    (13, 0x1ff8, 0x1ffd),
    (14, 0x3ffc, 0x3ffd),
    (15, 0x7ffc, 0x7ffe),
];

/// Characters and bits without the padding. `None` = not a Huffman string that we know.
fn measure(octets: &[u8]) -> Option<(usize, usize)> {
    let total = octets.len().saturating_mul(8);
    let (mut characters, mut at) = (0usize, 0usize);
    'next: while at < total {
        for (length, first, last) in CODES {
            let Some(code) = bits(octets, at, length) else { break };
            if (first..=last).contains(&code) {
                at = at.saturating_add(length);
                characters = characters.saturating_add(1);
                continue 'next;
            }
        }
        // What is left must be padding: fewer than eight ones.
        let left = total.saturating_sub(at);
        let padding = bits(octets, at, left.min(8))?;
        let ones = (1u32 << left.min(8)).saturating_sub(1);
        return (left < 8 && padding == ones).then_some((characters, at));
    }
    Some((characters, at))
}

/// So many bits from a place on.
fn bits(octets: &[u8], at: usize, length: usize) -> Option<u32> {
    (at..at.checked_add(length)?).try_fold(0u32, |code, bit| {
        let octet = octets.get(bit / 8)?;
        Some(code << 1 | u32::from(octet >> (7 - bit % 8) & 1))
    })
}

/// Writes bits over octets.
struct Bits<'a> {
    octets: &'a mut [u8],
    at: usize,
}

impl Bits<'_> {
    fn put(&mut self, code: u32, length: usize) {
        for bit in (0..length).rev() {
            if let Some(octet) = self.octets.get_mut(self.at / 8) {
                let mask = 1u8 << (7 - self.at % 8);
                *octet = if code >> bit & 1 == 1 { *octet | mask } else { *octet & !mask };
            }
            self.at = self.at.saturating_add(1);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{measure, overwrite_authority};

    /// A literal with incremental indexing, raw.
    pub(in crate::authority) fn literal(name: u8, value: &[u8]) -> Vec<u8> {
        let mut field = vec![0x40 | name, u8::try_from(value.len()).unwrap()];
        field.extend_from_slice(value);
        field
    }

    /// A literal whose value is already Huffman-coded.
    fn coded(value: &[u8]) -> Vec<u8> {
        let mut field = vec![0x41, 0x80 | u8::try_from(value.len()).unwrap()];
        field.extend_from_slice(value);
        field
    }

    #[test]
    fn the_rest_of_the_block_is_untouched() {
        // :method POST, :path /a (literal), dynamic index, :authority, an own header, a size update.
        let before = [vec![0x83], literal(4, b"/a"), vec![0xbe]].concat();
        let after =
            [vec![0x00, 1, b'x', 1, b'/'], vec![0x3f, 0xe1, 0x1f], vec![0x7f, 0x00, 0x01, b'/']]
                .concat();
        let mut block = [before.clone(), literal(1, b"/run/a"), after.clone()].concat();
        assert!(overwrite_authority(&mut block));
        assert_eq!(block, [before, literal(1, b"000000"), after].concat());
    }

    #[test]
    fn all_kinds_of_literals_are_known() {
        for first in [0x41, 0x01, 0x11] {
            let mut block = vec![first, 2, b'/', b'x'];
            assert!(overwrite_authority(&mut block));
            assert_eq!(block, [first, 2, b'0', b'0']);
        }
    }

    #[test]
    fn a_coded_value_keeps_octets_and_characters() {
        // RFC 7541 C.4.1: "www.example.com" in 12 octets.
        let example = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(measure(&example), Some((15, 89)));
        let mut block = coded(&example);
        assert!(overwrite_authority(&mut block));
        assert_eq!(block.len(), 14);
        assert_eq!(measure(&block[2..]), Some((15, 89)));
        assert_ne!(&block[2..], &example);
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let unreadable: [&[u8]; 5] = [
            &[0x41, 5, b'/'],
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x41, 0x00],
            &[0x41, 0x82, 0xff, 0xff],
            &[0x7f],
        ];
        for octets in unreadable {
            let mut block = octets.to_vec();
            assert!(!overwrite_authority(&mut block));
            assert_eq!(block, octets);
        }
    }
}
