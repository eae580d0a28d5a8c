//! What a producer hands in: a record, borrowed.

use std::fmt;

use std::hint::black_box;

/// A record to be appended: value, key, headers, timestamp, partition, all of them optional.
///
/// Nothing is copied until the record is sent. A key or value that is null differs from one that
/// is empty, as in Kafka.
///
/// ```
/// use ottla::Record;
///
/// let record = Record::new("paid").key("order-42").header("trace", "7f3a").timestamp(1_700_000_000_000);
/// assert_eq!(record.value_bytes(), Some(&b"paid"[..]));
/// assert_eq!(Record::tombstone("order-42").value_bytes(), None);
/// ```
///
/// Shows its lengths, not its content: what is logged is read by others.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Record<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<Header<'a>>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) partition: Option<u32>,
}

/// A record's header: a name and a value that may be null. Names may repeat, and keep their order.
///
/// ```
/// let header = ottla::Header { key: "trace", value: Some(b"7f3a") };
/// assert_eq!(header.key, "trace");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name; never null.
    pub key: &'a str,
    /// The value; null differs from empty.
    pub value: Option<&'a [u8]>,
}

/// Stands for bytes where they must not be shown: how many they are, or that they are null.
pub(crate) struct Unshown(pub(crate) Option<usize>);

impl Unshown {
    pub(crate) fn of(bytes: Option<&[u8]>) -> Unshown {
        Unshown(bytes.map(<[u8]>::len))
    }
}

impl fmt::Debug for Unshown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(len) => write!(f, "{len} bytes"),
            None => f.write_str("null"),
        }
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &Unshown::of(self.key))
            .field("value", &Unshown::of(self.value))
            .field("headers", &self.headers)
            .field("timestamp_ms", &self.timestamp_ms)
            .field("partition", &self.partition)
            .finish()
    }
}

impl fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("key", &Unshown(Some(self.key.len())))
            .field("value", &Unshown::of(self.value))
            .finish()
    }
}

impl<'a> Record<'a> {
    /// Makes a record with a value and no key.
    pub fn new<V: AsRef<[u8]> + ?Sized>(value: &'a V) -> Record<'a> {
        Record { value: Some(value.as_ref()), ..Record::default() }
    }

    /// Makes a record with a key and a null value: on a compacted topic it deletes the key.
    pub fn tombstone<K: AsRef<[u8]> + ?Sized>(key: &'a K) -> Record<'a> {
        Record { key: Some(key.as_ref()), ..Record::default() }
    }

    /// Sets the key; records with the same key go to the same partition.
    pub fn key<K: AsRef<[u8]> + ?Sized>(mut self, key: &'a K) -> Record<'a> {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the key, or leaves it null.
    pub fn key_or_null(mut self, key: Option<&'a [u8]>) -> Record<'a> {
        self.key = key;
        self
    }

    /// Sets the value, or makes it null.
    pub fn value_or_null(mut self, value: Option<&'a [u8]>) -> Record<'a> {
        self.value = value;
        self
    }

    /// Adds a header behind those already there.
    pub fn header<V: AsRef<[u8]> + ?Sized>(mut self, key: &'a str, value: &'a V) -> Record<'a> {
        self.headers.push(Header { key, value: Some(value.as_ref()) });
        self
    }

    /// Adds a header whose value is null.
    pub fn null_header(mut self, key: &'a str) -> Record<'a> {
        self.headers.push(Header { key, value: None });
        self
    }

    /// Sets the timestamp, in milliseconds since 1970; without one it is the time of the send.
    pub fn timestamp(mut self, timestamp_ms: i64) -> Record<'a> {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Sends the record to this partition, whatever its key.
    pub fn partition(mut self, partition: u32) -> Record<'a> {
        self.partition = Some(partition);
        self
    }

    /// Has the processor fetch the value, if it is small and not at hand. Whoever waits for a lock or looks at a clock
    /// before the value is copied does so meanwhile.
    #[inline]
    pub(crate) fn fetch_value(&self) {
        if let Some(value) = self.value {
            black_box(value.first().copied());
            black_box(value.get(CACHE_LINE_LEN).copied());
            black_box(value.last().copied());
        }
    }

    /// Gives the key, if it is not null.
    pub fn key_bytes(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Gives the value, if it is not null.
    pub fn value_bytes(&self) -> Option<&'a [u8]> {
        self.value
    }
}

const CACHE_LINE_LEN: usize = 64;

impl<'a, V: AsRef<[u8]> + ?Sized> From<&'a V> for Record<'a> {
    fn from(value: &'a V) -> Record<'a> {
        Record::new(value)
    }
}
