//! Fields of a header block: text up to a NUL, numbers in octal or in GNU's base-256 form. Pure; a
//! field that is neither is refused, never guessed.

/// Text up to the first NUL.
pub fn text(field: Option<&[u8]>) -> Vec<u8> {
    field.unwrap_or_default().split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

/// Octal digits between spaces and NULs, or GNU's base-256 with the high bit set; never negative.
pub fn octal(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        return signed(field).and_then(|number| u64::try_from(number).ok());
    }
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let field = field.get(start..)?;
    let end = field.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(field.len());
    let (digits, rest) = field.split_at(end);
    if !rest.iter().all(|b| matches!(b, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = (b'0'..=b'7').contains(byte).then(|| u64::from(byte & 7))?;
        sum.checked_mul(8)?.checked_add(digit)
    })
}

/// As [`octal`]; base-256 is two's complement below its marker bit, so times before 1970 have a form.
pub fn signed(field: &[u8]) -> Option<i64> {
    let Some((first, rest)) = field.split_first().filter(|(first, _)| *first & 0x80 != 0) else {
        return octal(field).and_then(|number| i64::try_from(number).ok());
    };
    // Bit 6 of the first byte is the sign; above eight bytes only the sign may stand.
    let start =
        if first & 0x40 != 0 { i128::from(*first) - 0x100 } else { i128::from(first & 0x7f) };
    let number = rest.iter().try_fold(start, |sum, byte| {
        let next = sum.checked_mul(256)?.checked_add(i128::from(*byte))?;
        i64::try_from(next).ok().map(i128::from)
    })?;
    i64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::{octal, signed};

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(octal(b"0000644\0"), Some(0o644));
        assert_eq!(octal(b"   644 \0"), Some(0o644));
        assert_eq!(octal(b"\0\0\0\0"), Some(0));
        assert_eq!(octal(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(octal(b"0009\0"), None);
        assert_eq!(octal(b"1\x00 1"), None);
        assert_eq!(octal(&[0xff; 12]), None);
    }

    #[test]
    fn times_before_the_epoch_are_twos_complement() {
        assert_eq!(signed(&[0xff; 12]), Some(-1));
        let mut field = [0xff; 12];
        field[11] = 0x9c;
        assert_eq!(signed(&field), Some(-100));
        assert_eq!(signed(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(signed(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), Some(i64::MAX));
    }
}
