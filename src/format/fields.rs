//! The fields that Kafka's messages are made of: integers, texts, bytes, arrays.
//!
//! There are two styles. The old one has lengths of fixed width, the flexible one writes them as unsigned varints, one
//! larger than they are, and ends every structure with tagged fields, which may be unknown and are passed over.
//!
//! ```text
//!             text                   bytes                  array                  structure
//! old         i16 length, UTF-8      i32 length, bytes      i32 count, elements    fields
//! flexible    uvarint length + 1     uvarint length + 1     uvarint count + 1      fields, tagged fields
//! null        length −1, or 0        length −1, or 0        count −1, or 0
//! ```
//!
//! Every length is checked against the bytes that are there before anything is made of it.

use crate::format::varint;

/// What was read; or why nothing can be.
pub(crate) type Read<T> = Result<T, &'static str>;

/// The longest text in the old style, in bytes.
pub(crate) const TEXT_LEN_MAX: usize = i16::MAX as usize;

const CUT_OFF: &str = "it is cut off";

/// Takes fields off the front of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    is_flexible: bool,
}

impl<'a> Fields<'a> {
    /// Begins in the old style.
    pub(crate) fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { bytes, is_flexible: false }
    }

    /// Goes on in the flexible style if a version has it.
    pub(crate) fn flexible_if(self, is_flexible: bool) -> Fields<'a> {
        Fields { is_flexible, ..self }
    }

    pub(crate) fn i16(&mut self) -> Read<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Read<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Read<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn text(&mut self) -> Read<&'a str> {
        self.text_or_null()?.ok_or("a text is null")
    }

    pub(crate) fn text_or_null(&mut self) -> Read<Option<&'a str>> {
        let len = if self.is_flexible { self.len_flexible()? } else { self.i16()?.into() };
        let text = self.sized(len)?.map(std::str::from_utf8).transpose();
        text.map_err(|_| "a text is not UTF-8")
    }

    pub(crate) fn bytes(&mut self) -> Read<&'a [u8]> {
        self.bytes_or_null()?.ok_or("bytes are null")
    }

    pub(crate) fn bytes_or_null(&mut self) -> Read<Option<&'a [u8]>> {
        let len = if self.is_flexible { self.len_flexible()? } else { self.i32()?.into() };
        self.sized(len)
    }

    /// Reads an array whose elements take `len_min` bytes at least; a null one has none.
    pub(crate) fn elements<T>(
        &mut self,
        len_min: usize,
        mut element: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let count = if self.is_flexible { self.len_flexible()? } else { self.i32()?.into() };
        if count < -1 {
            return Err("a count is negative");
        }
        let count = usize::try_from(count).unwrap_or(0);
        if count > self.bytes.len() / len_min {
            return Err("a count is larger than what follows");
        }
        // Not reserved at once: in memory an element may take much more than it does here, and those that are counted
        // need not be there.
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// Passes over the tagged fields that end a structure, if the style has any.
    pub(crate) fn tags(&mut self) -> Read<()> {
        if self.is_flexible {
            for _ in 0..self.unsigned()? {
                self.unsigned()?;
                let len = self.unsigned()?;
                self.sized(len.into())?;
            }
        }
        Ok(())
    }

    /// Ends the reading. Nothing may be left.
    pub(crate) fn end(self) -> Read<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err("more follows than there should be") }
    }

    fn array<const LEN: usize>(&mut self) -> Read<[u8; LEN]> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or(CUT_OFF)?;
        self.bytes = rest;
        Ok(*array)
    }

    fn unsigned(&mut self) -> Read<u32> {
        varint::read_u32(&mut self.bytes).ok_or("a varint is cut off or too large")
    }

    fn len_flexible(&mut self) -> Read<i64> {
        Ok(i64::from(self.unsigned()?) - 1)
    }

    fn sized(&mut self, len: i64) -> Read<Option<&'a [u8]>> {
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| "a length is negative")?;
        let (sized, rest) = self.bytes.split_at_checked(len).ok_or(CUT_OFF)?;
        self.bytes = rest;
        Ok(Some(sized))
    }
}

/// Writes a text in the old style.
///
/// One of more than [`TEXT_LEN_MAX`] bytes cannot be written and is clipped, so that what follows stays readable.
/// Whoever takes a text from a user refuses it before.
pub(crate) fn put_text(into: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= TEXT_LEN_MAX, "a text of {} bytes", text.len());
    let mut len = text.len().min(TEXT_LEN_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    into.extend_from_slice(&(len as i16).to_be_bytes());
    into.extend_from_slice(&text.as_bytes()[..len]);
}

/// Writes a text in the old style, or null.
pub(crate) fn put_text_or_null(into: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(into, text),
        None => into.extend_from_slice(&(-1_i16).to_be_bytes()),
    }
}

/// Writes bytes in the old style. They come from records, so their length fits.
pub(crate) fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    put_count(into, bytes.len());
    into.extend_from_slice(bytes);
}

/// Writes bytes in the old style, or null.
pub(crate) fn put_bytes_or_null(into: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => put_bytes(into, bytes),
        None => into.extend_from_slice(&(-1_i32).to_be_bytes()),
    }
}

/// Writes what stands in front of an array in the old style.
pub(crate) fn put_count(into: &mut Vec<u8>, count: usize) {
    debug_assert!(i32::try_from(count).is_ok(), "a count of {count}");
    into.extend_from_slice(&(count as i32).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_is_none_and_not_what_must_be_there() {
        assert_eq!(Fields::new(&[0xff, 0xff]).text_or_null(), Ok(None));
        assert_eq!(Fields::new(&[0xff, 0xff]).text(), Err("a text is null"));
        assert_eq!(Fields::new(&[0xff; 4]).bytes_or_null(), Ok(None));
        assert_eq!(Fields::new(&[0xff; 4]).bytes(), Err("bytes are null"));
        assert_eq!(Fields::new(&[0]).flexible_if(true).text_or_null(), Ok(None));
        assert_eq!(Fields::new(&[1]).flexible_if(true).text_or_null(), Ok(Some("")));
        assert_eq!(Fields::new(&[0xff; 4]).elements(1, Fields::i16), Ok(vec![]));
    }

    #[test]
    fn lengths_that_are_not_there_are_refused() {
        assert_eq!(Fields::new(&[0xff, 0xfe]).text(), Err("a length is negative"));
        assert_eq!(Fields::new(&[0, 2, b'a']).text(), Err(CUT_OFF));
        assert_eq!(Fields::new(&[0x7f, 0xff, 0xff, 0xff, 1]).bytes(), Err(CUT_OFF));
        assert_eq!(Fields::new(&[0xff, 0xff, 0xff, 0xfe]).bytes(), Err("a length is negative"));
        let bomb = [0x7f, 0xff, 0xff, 0xff, 0, 0];
        assert_eq!(
            Fields::new(&bomb).elements(2, Fields::i16),
            Err("a count is larger than what follows")
        );
        let negative = [0xff, 0xff, 0xff, 0xfe, 0, 0];
        assert_eq!(Fields::new(&negative).elements(2, Fields::i16), Err("a count is negative"));
        // A number of tagged fields ends with the bytes, however large it is.
        let tags = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert!(Fields::new(&tags).flexible_if(true).tags().is_err());
    }

    #[test]
    fn texts_are_utf_8() {
        assert_eq!(Fields::new(&[0, 2, 0xc3, 0xb6]).text(), Ok("ö"));
        assert_eq!(Fields::new(&[0, 1, 0xc3]).text(), Err("a text is not UTF-8"));
        assert_eq!(
            Fields::new(&[2, 0xc3]).flexible_if(true).text_or_null(),
            Err("a text is not UTF-8")
        );
    }

    #[test]
    fn the_longest_text_makes_the_round_trip() {
        let text = "ö".repeat(TEXT_LEN_MAX / 2);
        let mut bytes = Vec::new();
        put_text(&mut bytes, &text);
        assert_eq!(Fields::new(&bytes).text(), Ok(text.as_str()));
    }
}
