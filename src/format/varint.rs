//! Variable-length integers: zigzag ones, as used inside records, and unsigned ones, as used in flexible messages.
//!
//! Under zigzag, small magnitudes take few bytes, whatever their sign: 0 → `00`, −1 → `01`, 1 → `02`, 5 → `0a`.
//! Writers write the shortest form; readers also accept longer ones, as Kafka's do.

/// Writes a 32-bit value at `at`, where there must be room for five bytes, and moves `at` behind it.
#[inline]
pub(crate) fn write_i32(out: &mut [u8], at: &mut usize, value: i32) {
    write_unsigned(out, at, zigzag_i32(value));
}

/// Writes a 64-bit value at `at`, where there must be room for ten bytes, and moves `at` behind it.
#[inline]
pub(crate) fn write_i64(out: &mut [u8], at: &mut usize, value: i64) {
    write_unsigned(out, at, zigzag_i64(value));
}

/// Gives the number of bytes [`write_i32`] writes.
#[inline]
pub(crate) fn len_i32(value: i32) -> usize {
    len_unsigned(zigzag_i32(value))
}

/// Gives the number of bytes [`write_i64`] writes.
#[inline]
pub(crate) fn len_i64(value: i64) -> usize {
    len_unsigned(zigzag_i64(value))
}

/// Takes a 32-bit value off the front of `bytes`; `None` if it is cut off or does not fit.
#[inline(always)]
pub(crate) fn read_i32(bytes: &mut &[u8]) -> Option<i32> {
    if let Some(raw) = read_short(bytes) {
        return Some(unzigzag(raw));
    }
    let (value, rest) = read_long(bytes, 5)?;
    *bytes = rest;
    Some(unzigzag(u32::try_from(value).ok()?))
}

/// Takes a 64-bit value off the front of `bytes`; `None` if it is cut off or does not fit.
#[inline(always)]
pub(crate) fn read_i64(bytes: &mut &[u8]) -> Option<i64> {
    if let Some(raw) = read_short(bytes) {
        return Some(i64::from(unzigzag(raw)));
    }
    let (raw, rest) = read_long(bytes, 10)?;
    *bytes = rest;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Takes a value of one or two bytes off the front, still in zigzag; `None` if it is longer or cut off.
#[inline(always)]
pub(crate) fn read_short(bytes: &mut &[u8]) -> Option<u32> {
    // Nearly all values take one or two bytes; a branch for each lets the processor run ahead.
    match **bytes {
        [first @ ..=0x7f, ref rest @ ..] => {
            *bytes = rest;
            Some(u32::from(first))
        }
        [first, second @ ..=0x7f, ref rest @ ..] => {
            *bytes = rest;
            Some(u32::from(first & 0x7f) | u32::from(second) << 7)
        }
        _ => None,
    }
}

/// Undoes the zigzag: 0, 1, 2, 3 stand for 0, −1, 1, −2.
#[inline(always)]
pub(crate) fn unzigzag(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

/// Takes an unsigned 32-bit value off the front of `bytes`; `None` if it is cut off or does not fit.
pub(crate) fn read_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (value, rest) = read_long(bytes, 5)?;
    *bytes = rest;
    u32::try_from(value).ok()
}

#[inline]
fn zigzag_i32(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

#[inline]
fn zigzag_i64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
fn write_unsigned(out: &mut [u8], at: &mut usize, mut value: u64) {
    while value >= 0x80 {
        out[*at] = value as u8 | 0x80;
        *at += 1;
        value >>= 7;
    }
    out[*at] = value as u8;
    *at += 1;
}

#[inline]
fn len_unsigned(value: u64) -> usize {
    // Nine bits in 64 are as good as one in seven, for every length there is.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// Reads a value of up to `len_max` bytes; gives it with what lies behind it. Takes and returns the slice by
/// value, so that a caller's loop keeps it in registers.
#[inline(never)]
fn read_long(bytes: &[u8], len_max: usize) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(len_max).enumerate() {
        let group = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        // The tenth byte has room for one bit only.
        if shift == 63 && group > 1 {
            return None;
        }
        value |= group << shift;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded_i32(value: i32) -> Vec<u8> {
        let (mut out, mut at) = ([0; 5], 0);
        write_i32(&mut out, &mut at, value);
        out[..at].to_vec()
    }

    #[test]
    fn golden_values() {
        for (value, bytes) in
            [(0, "00"), (-1, "01"), (1, "02"), (5, "0a"), (-10, "13"), (64, "8001")]
        {
            let hex: String = encoded_i32(value).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, bytes, "{value}");
        }
    }

    #[test]
    fn every_edge_makes_the_round_trip() {
        let edges =
            [0, 1, -1, 63, 64, -64, -65, 8191, 8192, i64::MAX, i64::MIN, i64::from(i32::MAX)];
        for value in edges {
            let (mut out, mut at) = ([0; 10], 0);
            write_i64(&mut out, &mut at, value);
            assert_eq!(at, len_i64(value));
            assert_eq!(read_i64(&mut &out[..at]), Some(value));
            if let Ok(small) = i32::try_from(value) {
                let out = encoded_i32(small);
                assert_eq!(out.len(), len_i32(small));
                assert_eq!(read_i32(&mut out.as_slice()), Some(small));
            }
        }
        for value in [i32::MAX, i32::MIN] {
            assert_eq!(read_i32(&mut encoded_i32(value).as_slice()), Some(value));
        }
    }

    #[test]
    fn cut_off_and_oversized_values_are_refused() {
        assert_eq!(read_i32(&mut &[][..]), None);
        assert_eq!(read_i32(&mut &[0x80][..]), None);
        assert_eq!(read_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0xff][..]), None);
        assert_eq!(read_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
        assert_eq!(read_i64(&mut &[0xff; 11][..]), None);
        assert_eq!(
            read_i64(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]),
            None
        );
    }

    #[test]
    fn unsigned_values_have_no_zigzag() {
        assert_eq!(read_u32(&mut &[0x05][..]), Some(5));
        assert_eq!(read_u32(&mut &[0xac, 0x02][..]), Some(300));
        assert_eq!(read_u32(&mut &[0xff, 0xff, 0xff, 0xff, 0x0f][..]), Some(u32::MAX));
        assert_eq!(read_u32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
        assert_eq!(read_u32(&mut &[0x80][..]), None);
    }

    #[test]
    fn longer_forms_than_needed_are_read() {
        assert_eq!(read_i32(&mut &[0x8a, 0x80, 0x00][..]), Some(5));
    }
}
