//! A block device that remembers, in order, everything that was written to it, and can be had as it was at any moment.
//!
//! The device is served by this process over a socket (NBD, the network block device's protocol), shown as a file by
//! `nbdfuse`, and used through a loop device. Requests are answered one after the other, so what the file system waited
//! for is in front of what it did then. Whoever uses the device sees how far the record has come: that is the length of
//! a file, which grows by a byte before a request is answered.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use crate::chance::Chance;

/// What a drive writes at once, or not at all.
pub(crate) const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// The bytes of a device, most of which are zeros.
#[derive(Clone, Default)]
pub(crate) struct Image {
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Image {
    fn write(&mut self, position: u64, bytes: &[u8]) {
        for (page, within, from) in pieces(position, bytes.len()) {
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within.clone()].copy_from_slice(&bytes[from..from + within.len()]);
        }
    }

    fn erase(&mut self, position: u64, len: usize) {
        for (number, within, _) in pieces(position, len) {
            if within.len() == PAGE {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                Arc::make_mut(page)[within].fill(0);
            }
        }
    }

    fn read(&self, position: u64, into: &mut [u8]) {
        for (page, within, from) in pieces(position, into.len()) {
            let target = &mut into[from..from + within.len()];
            match self.pages.get(&page) {
                Some(page) => target.copy_from_slice(&page[within]),
                None => target.fill(0),
            }
        }
    }

    /// Makes a file of it, with holes; another file, if there was one, which a loop device may not have let go of yet.
    pub(crate) fn save(&self, path: &Path, len: u64) {
        drop(fs::remove_file(path));
        let file = fs::File::create(path).unwrap();
        file.set_len(len).unwrap();
        for (number, page) in self.pages.iter().filter(|(_, page)| ***page != [0; PAGE]) {
            file.write_all_at(&page[..], number * PAGE as u64).unwrap();
        }
    }
}

/// Which pages a stretch lies in, where within each, and from where on in the stretch.
fn pieces(position: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = position + from as u64;
        let begin = (at % PAGE as u64) as usize;
        let count = (PAGE - begin).min(len - from);
        from += count;
        (count > 0).then(|| (at / PAGE as u64, begin..begin + count, from - count))
    })
}

/// What was asked of the device.
#[derive(Clone)]
pub(crate) enum Event {
    /// Bytes, and whether they were to be on the medium before the answer.
    Write(u64, Arc<[u8]>, bool),
    /// Zeros, as above; or bytes that nobody needs any more, which are zeros then.
    Erase(u64, usize, bool),
    /// Everything that was answered before is to be on the medium.
    Flush,
}

impl Event {
    fn apply(&self, image: &mut Image) {
        match self {
            Event::Write(position, bytes, _) => image.write(*position, bytes),
            Event::Erase(position, len, _) => image.erase(*position, *len),
            Event::Flush => {}
        }
    }

    fn is_forced(&self) -> bool {
        matches!(self, Event::Write(.., true) | Event::Erase(.., true))
    }
}

/// How much a drive keeps of what was written and not flushed when its power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Nothing,
    All,
    /// Each write or none of it, with so many in a hundred kept.
    Some(u64),
    /// Of each write each stretch of so many bytes or none of it.
    Torn(usize),
}

/// What was written to a device from its first image on.
pub(crate) struct Written {
    pub(crate) first: Image,
    pub(crate) events: Vec<Event>,
}

impl Written {
    /// Gives the moments right behind a flush.
    pub(crate) fn flushes(&self) -> Vec<usize> {
        let flushes = self.events.iter().enumerate();
        flushes.filter(|(_, e)| matches!(e, Event::Flush)).map(|(n, _)| n + 1).collect()
    }

    /// Gives the device as it is when its power goes after so many events. Those behind the last flush may be kept in
    /// any choice, though not in another order.
    pub(crate) fn cut(&self, count: usize, kept: Kept, chance: &mut Chance) -> Image {
        let mut image = self.first.clone();
        let is_flush = |event: &Event| matches!(event, Event::Flush);
        let durable = self.events[..count].iter().rposition(is_flush).unwrap_or(0);
        self.events[..durable].iter().for_each(|event| event.apply(&mut image));
        for event in &self.events[durable..count] {
            if let (Event::Write(position, bytes, false), Kept::Torn(unit)) = (event, kept) {
                for (n, piece) in bytes.chunks(unit).enumerate() {
                    if chance.below(2) == 0 {
                        image.write(position + (n * unit) as u64, piece);
                    }
                }
                continue;
            }
            let is_kept = match kept {
                Kept::Nothing => false,
                Kept::All => true,
                Kept::Some(share) => chance.below(100) < share,
                Kept::Torn(_) => chance.below(2) == 0,
            };
            if is_kept || event.is_forced() {
                event.apply(&mut image);
            }
        }
        image
    }
}

/// The device and its record.
pub(crate) struct BlockLog {
    socket: PathBuf,
    count: PathBuf,
    state: Arc<Mutex<State>>,
    server: Option<thread::JoinHandle<io::Result<()>>>,
}

struct State {
    image: Image,
    events: Vec<Event>,
    count: fs::File,
}

impl State {
    fn note(&mut self, event: Event) -> io::Result<()> {
        event.apply(&mut self.image);
        self.events.push(event);
        self.count.write_all(b".")
    }
}

impl BlockLog {
    /// Serves a device that begins as the image, at a socket in the directory.
    pub(crate) fn start(directory: &Path, image: Image, len: u64) -> BlockLog {
        let [socket, count] = ["socket", "count"].map(|name| directory.join(name));
        let listener = UnixListener::bind(&socket).unwrap();
        let events = Vec::new();
        let state = State { image, events, count: fs::File::create(&count).unwrap() };
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        // Ends with the connection; or when somebody comes and says nothing, see `Drop`.
        let server = thread::spawn(move || serve(&listener.accept()?.0, len, &served));
        BlockLog { socket, count, state, server: Some(server) }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Gives the file whose length is the number of events.
    pub(crate) fn count(&self) -> &Path {
        &self.count
    }

    /// Gives what was written up to now.
    pub(crate) fn written(&self, first: Image) -> Written {
        Written { first, events: self.state.lock().events.clone() }
    }
}

impl Drop for BlockLog {
    fn drop(&mut self) {
        drop(UnixStream::connect(&self.socket));
        if let Some(server) = self.server.take() {
            drop(server.join());
        }
    }
}

/// The server's half of the protocol, as far as a client needs it that asks for nothing special.
fn serve(mut stream: &UnixStream, len: u64, state: &Mutex<State>) -> io::Result<()> {
    const EXPORT_NAME: u64 = 1;
    const UNSUPPORTED: u32 = 1 << 31 | 1;
    // There are flags, and: flush, forced writes, trim, zeros.
    const FLAGS: u16 = 1 | 4 | 8 | 32 | 64;
    const FORCED: u64 = 1;
    // The new style of shaking hands, without padding. The client says the same.
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    stream.read_exact(&mut [0; 4])?;
    loop {
        let [_magic, option, len] = numbers(stream, [8, 4, 4])?;
        stream.read_exact(&mut vec![0; len as usize])?;
        if option == EXPORT_NAME {
            break;
        }
        stream.write_all(&0x0003_e889_0455_65a9_u64.to_be_bytes())?;
        stream.write_all(&[option as u32, UNSUPPORTED, 0].map(u32::to_be_bytes).concat())?;
    }
    stream.write_all(&len.to_be_bytes())?;
    stream.write_all(&FLAGS.to_be_bytes())?;
    loop {
        let [magic, flags, kind, cookie, position, len] = numbers(stream, [4, 2, 2, 8, 8, 4])?;
        assert_eq!(magic, 0x2560_9513, "this is no request");
        let (is_forced, len) = (flags & FORCED != 0, len as usize);
        let mut reply = 0x6744_6698_u32.to_be_bytes().to_vec();
        reply.extend([0; 4]);
        reply.extend(cookie.to_be_bytes());
        match kind {
            0 => {
                let begin = reply.len();
                reply.resize(begin + len, 0);
                state.lock().image.read(position, &mut reply[begin..]);
            }
            1 => {
                let mut bytes = vec![0; len];
                stream.read_exact(&mut bytes)?;
                state.lock().note(Event::Write(position, bytes.into(), is_forced))?;
            }
            2 => return Ok(()),
            3 => state.lock().note(Event::Flush)?,
            4 | 6 => state.lock().note(Event::Erase(position, len, is_forced))?,
            // An invalid argument.
            _ => reply[4..8].copy_from_slice(&22_u32.to_be_bytes()),
        }
        stream.write_all(&reply)?;
    }
}

/// Reads numbers of so many bytes each.
fn numbers<const N: usize>(mut stream: &UnixStream, lens: [usize; N]) -> io::Result<[u64; N]> {
    let mut all = [0; 32];
    let all = &mut all[..lens.iter().sum()];
    stream.read_exact(all)?;
    let mut rest = &all[..];
    Ok(lens.map(|len| {
        let (number, behind) = rest.split_at(len);
        rest = behind;
        number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }))
}

#[test]
fn a_cut_keeps_what_was_flushed_or_forced_and_of_the_rest_any_choice_in_order() {
    let write = |position, byte, len| Event::Write(position, vec![byte; len].into(), false);
    let events = vec![
        write(4090, 1, 12),
        Event::Flush,
        write(4096, 2, 2 * SECTOR),
        Event::Write(8192, [3; 4][..].into(), true),
        Event::Erase(4090, 8, false),
        write(4096, 4, 1),
    ];
    let written = Written { first: Image::default(), events };
    let after = |count, kept, seed| {
        let mut bytes = vec![0; 3 * PAGE];
        written.cut(count, kept, &mut Chance(seed)).read(0, &mut bytes);
        bytes
    };
    let nothing = after(6, Kept::Nothing, 1);
    assert_eq!(nothing[4089..4103], [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
    assert_eq!(nothing[8191..8197], [0, 3, 3, 3, 3, 0]);
    // Without the flush behind it nothing was durable.
    assert_eq!(after(1, Kept::Nothing, 1), vec![0; 3 * PAGE]);
    let all = after(6, Kept::All, 1);
    assert_eq!(all[4089..4099], [0, 0, 0, 0, 0, 0, 0, 4, 0, 2]);
    // One half of a write may be kept, or the other, and what came later wins wherever it is kept.
    let mut seen = std::collections::BTreeSet::new();
    for seed in 1..200 {
        let torn = after(6, Kept::Torn(SECTOR), seed);
        assert_eq!(torn[8192..8196], [3; 4]);
        let [begin, middle, half] = [torn[4096], torn[4096 + SECTOR - 1], torn[4096 + SECTOR]];
        assert!(middle == half || middle == 0 || half == 0, "{middle} {half}");
        seen.insert((begin, middle, half));
    }
    for (begin, middle, half) in [(1, 0, 0), (2, 2, 0), (1, 0, 2), (0, 2, 2), (4, 0, 2), (0, 0, 2)]
    {
        assert!(seen.contains(&(begin, middle, half)), "{seen:?}");
    }
}
