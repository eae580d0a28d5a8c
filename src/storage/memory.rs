//! Tests only: a place for files in memory, for those who open thousands of directories a second.
//!
//! Most of what such a test takes goes to system calls, on whatever file system. Here a name is an entry of a map and a
//! file a vector. Only what is to be mapped or locked becomes a file of the system's, without a name, when that is asked
//! for; from then on its bytes are there, so that stores into a mapping and reads of the file meet as they always do.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::storage::medium::Access;
use crate::storage::medium::Entry;
use crate::storage::medium::Facts;
use crate::storage::medium::Kind;
use crate::storage::medium::Medium;
use crate::storage::medium::OpenFile;

/// Where everything in memory lies. Nothing else is there at first.
pub(crate) const PLACE: &str = "/memory";

/// Names and what they stand for.
#[derive(Debug)]
pub(crate) struct Memory {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By their whole names, without a slash at the end.
    directories: BTreeMap<String, Directory>,
    /// Numbers are given once: a later file has a greater one.
    last_inode: u64,
}

#[derive(Debug)]
struct Directory {
    inode: u64,
    entries: BTreeMap<String, Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File(Arc<MemoryFile>),
}

/// A file, with a name or without one any more.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    inode: u64,
    contents: Mutex<Contents>,
    /// Where the bytes are once somebody has asked for a descriptor; made with the contents locked.
    descriptor: OnceLock<File>,
}

#[derive(Debug)]
struct Contents {
    /// Of no meaning where there is a descriptor.
    bytes: Vec<u8>,
    len: usize,
    modified: SystemTime,
    is_linked: bool,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        let root = Directory {
            inode: 1,
            entries: BTreeMap::from([(PLACE[1..].to_owned(), Node::Directory)]),
        };
        let place = Directory { inode: 2, entries: BTreeMap::new() };
        let directories = BTreeMap::from([(String::new(), root), (PLACE.into(), place)]);
        Memory { state: Mutex::new(State { directories, last_inode: 2 }) }
    }

    pub(super) fn open(&self, path: &Path, access: Access) -> io::Result<Arc<MemoryFile>> {
        let mut state = self.state.lock().unwrap();
        match state.node(path) {
            Ok(_) if access == Access::CreateNew => Err(io::ErrorKind::AlreadyExists.into()),
            Ok(Node::File(file)) => Ok(file),
            Ok(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            Err(_) if matches!(access, Access::CreateNew | Access::CreateOrKeep) => {
                state.create(path, Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn facts(&self, path: &Path) -> io::Result<Facts> {
        let state = self.state.lock().unwrap();
        if let Some(directory) = state.directories.get(whole(path)) {
            let modified = SystemTime::UNIX_EPOCH;
            return Ok(facts(Kind::Directory, directory.inode, 0, modified, true));
        }
        match state.node(path)? {
            Node::File(file) => Ok(file.facts()),
            Node::Directory => unreachable!("{path:?}"),
        }
    }

    pub(super) fn entries(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.state.lock().unwrap();
        let entries = state.directory(path)?.entries.iter();
        let entry = |(name, node): (&String, &Node)| Entry {
            name: name.clone(),
            is_directory: matches!(node, Node::Directory),
        };
        Ok(entries.map(entry).collect())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let node = state.node(from)?;
        match (&node, state.node(to)) {
            (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            (_, Err(_)) | (Node::File(_), Ok(Node::File(_))) => {}
            (Node::File(_), Ok(Node::Directory)) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::Directory, Ok(Node::File(_))) => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            (Node::Directory, Ok(Node::Directory)) => {
                if from != to && !state.directory(to)?.entries.is_empty() {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
            }
        }
        let is_directory = matches!(node, Node::Directory);
        if from == to {
            return Ok(());
        }
        if let Some(replaced) = state.parent(to)?.entries.insert(name(to), node) {
            replaced.unlink();
        }
        state.parent(from)?.entries.remove(&name(from));
        if is_directory {
            state.move_tree(from, to);
        }
        Ok(())
    }

    pub(super) fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let (first, second) = (state.node(one)?, state.node(other)?);
        if matches!(first, Node::Directory) || matches!(second, Node::Directory) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.parent(one)?.entries.insert(name(one), second);
        state.parent(other)?.entries.insert(name(other), first);
        Ok(())
    }

    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        match state.node(path)? {
            Node::Directory => Err(io::ErrorKind::IsADirectory.into()),
            node @ Node::File(_) => {
                node.unlink();
                state.parent(path)?.entries.remove(&name(path));
                Ok(())
            }
        }
    }

    pub(super) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.directory(path)?;
        state.directories.retain(|at, directory| {
            let is_kept = below(path, at).is_none();
            if !is_kept {
                directory.entries.values().for_each(Node::unlink);
            }
            is_kept
        });
        state.parent(path)?.entries.remove(&name(path));
        Ok(())
    }

    pub(super) fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.node(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.parent(path)?.entries.insert(name(path), Node::Directory);
        state.last_inode += 1;
        let directory = Directory { inode: state.last_inode, entries: BTreeMap::new() };
        state.directories.insert(whole(path).to_owned(), directory);
        Ok(())
    }

    /// Writes a file whole, whatever was there.
    fn write(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        match state.node(path) {
            Ok(Node::File(file)) => {
                file.set_len(0)?;
                file.write_all_at(&bytes, 0)
            }
            Ok(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            Err(_) => state.create(path, bytes).map(drop),
        }
    }
}

impl Node {
    fn unlink(&self) {
        if let Node::File(file) = self {
            file.contents.lock().unwrap().is_linked = false;
        }
    }
}

impl State {
    fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        self.directories.get_mut(whole(path)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn parent(&mut self, path: &Path) -> io::Result<&mut Directory> {
        let above = divided(whole(path)).0;
        self.directories.get_mut(above).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        let (above, name) = divided(whole(path));
        let Some(directory) = self.directories.get(above) else {
            // Below a file there is something else than nothing.
            return Err(match self.node(Path::new(above))? {
                Node::File(_) => io::ErrorKind::NotADirectory.into(),
                Node::Directory => unreachable!("{above:?}"),
            });
        };
        directory.entries.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, path: &Path, bytes: Vec<u8>) -> io::Result<Arc<MemoryFile>> {
        let inode = self.last_inode + 1;
        let modified = SystemTime::now();
        let contents = Contents { len: bytes.len(), bytes, modified, is_linked: true };
        let contents = Mutex::new(contents);
        let file = Arc::new(MemoryFile { inode, contents, descriptor: OnceLock::new() });
        self.parent(path)?.entries.insert(name(path), Node::File(Arc::clone(&file)));
        self.last_inode = inode;
        Ok(file)
    }

    fn move_tree(&mut self, from: &Path, to: &Path) {
        let moved = |at: &String| below(from, at).map(|rest| format!("{}{rest}", whole(to)));
        let moves = self.directories.keys().filter_map(|at| Some((at.clone(), moved(at)?)));
        for (at, moved) in moves.collect::<Vec<_>>() {
            let directory = self.directories.remove(&at).unwrap();
            self.directories.insert(moved, directory);
        }
    }
}

impl MemoryFile {
    pub(super) fn facts(&self) -> Facts {
        let contents = self.contents.lock().unwrap();
        let Contents { len, modified, is_linked, .. } = *contents;
        facts(Kind::File, self.inode, len as u64, modified, is_linked)
    }

    /// Moves the bytes to where the system sees them, if they are not there yet.
    pub(super) fn descriptor(&self) -> &File {
        let mut contents = self.contents.lock().unwrap();
        self.descriptor.get_or_init(|| {
            let file = nameless_file().unwrap();
            file.write_all_at(&std::mem::take(&mut contents.bytes), 0).unwrap();
            file
        })
    }

    pub(super) fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        let contents = self.contents.lock().unwrap();
        if let Some(file) = self.descriptor.get() {
            return file.read_at(bytes, position);
        }
        let start = (position as usize).min(contents.len);
        let count = bytes.len().min(contents.len - start);
        bytes[..count].copy_from_slice(&contents.bytes[start..start + count]);
        Ok(count)
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut contents = self.contents.lock().unwrap();
        let (start, end) = (position as usize, position as usize + bytes.len());
        contents.modified = SystemTime::now();
        if let Some(file) = self.descriptor.get() {
            file.write_all_at(bytes, position)?;
            contents.len = contents.len.max(if bytes.is_empty() { 0 } else { end });
            return Ok(());
        }
        if !bytes.is_empty() {
            contents.lengthen(end);
            contents.bytes[start..end].copy_from_slice(bytes);
        }
        Ok(())
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        let mut contents = self.contents.lock().unwrap();
        contents.modified = SystemTime::now();
        contents.len = len as usize;
        match self.descriptor.get() {
            Some(file) => file.set_len(len),
            None => {
                contents.bytes.resize(len as usize, 0);
                Ok(())
            }
        }
    }

    pub(super) fn lengthen(&self, end: u64) -> io::Result<()> {
        let len = self.contents.lock().unwrap().len;
        if len < end as usize { self.set_len(end) } else { Ok(()) }
    }

    pub(super) fn set_modified(&self, time: SystemTime) {
        self.contents.lock().unwrap().modified = time;
    }

    fn bytes(&self) -> Vec<u8> {
        let contents = self.contents.lock().unwrap();
        let Some(file) = self.descriptor.get() else { return contents.bytes.clone() };
        let mut bytes = vec![0; contents.len];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

impl Contents {
    fn lengthen(&mut self, end: usize) {
        if end > self.len {
            self.bytes.resize(end, 0);
            self.len = end;
        }
    }
}

fn facts(kind: Kind, inode: u64, len: u64, modified: SystemTime, is_linked: bool) -> Facts {
    Facts { kind, device: 0, inode, len, allocated_len: len, modified, is_linked }
}

fn whole(path: &Path) -> &str {
    path.to_str().unwrap().trim_end_matches('/')
}

/// Gives the directory that a name is in, and the name.
fn divided(whole: &str) -> (&str, &str) {
    whole.rsplit_once('/').unwrap_or_default()
}

fn name(path: &Path) -> String {
    divided(whole(path)).1.to_owned()
}

/// Gives what follows on a directory's name in that of something within it, or of itself.
fn below<'a>(directory: &Path, at: &'a str) -> Option<&'a str> {
    at.strip_prefix(whole(directory)).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(target_os = "linux")]
fn nameless_file() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("ottla", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn nameless_file() -> io::Result<File> {
    tempfile::tempfile()
}

/// What tests do to files behind the back of whoever uses them.
impl Medium {
    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.facts(path).is_ok()
    }

    pub(crate) fn is_directory(&self, path: &Path) -> bool {
        self.facts(path).is_ok_and(|facts| facts.kind == Kind::Directory)
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let Medium::Memory(memory) = self else { return fs::read(path) };
        match memory.state.lock().unwrap().node(path)? {
            Node::File(file) => Ok(file.bytes()),
            Node::Directory => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(crate) fn write(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Medium::System => fs::write(path, bytes),
            Medium::Memory(memory) => memory.write(path, bytes),
        }
    }

    /// Copies a file that nobody writes to meanwhile.
    pub(crate) fn copy_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Medium::System => fs::copy(from, to).map(drop),
            Medium::Memory(memory) => memory.write(to, self.read(from)?),
        }
    }

    /// Copies a directory with everything in it, for a look that must change nothing. Files may come and go meanwhile:
    /// then it begins anew, for neither name of one that was renamed would be in the copy.
    pub(crate) fn copy_tree(&self, from: &Path, to: &Path) {
        while let Err(error) = self.try_copy_tree(from, to) {
            let has_gone = error.kind() == io::ErrorKind::NotFound && self.exists(from);
            assert!(has_gone, "{}: {error}", from.display());
            self.remove_tree(to).unwrap();
        }
    }

    fn try_copy_tree(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.create_directories(to);
        for entry in self.entries(from)? {
            let (from, to) = (from.join(&entry.name), to.join(&entry.name));
            if entry.is_directory {
                self.try_copy_tree(&from, &to)?;
            } else {
                self.copy_file(&from, &to)?;
            }
        }
        Ok(())
    }

    pub(crate) fn create_directories(&self, path: &Path) {
        match self {
            Medium::System => fs::create_dir_all(path).unwrap(),
            Medium::Memory(_) if self.is_directory(path) => {}
            Medium::Memory(memory) => {
                self.create_directories(path.parent().unwrap());
                memory.create_directory(path).unwrap();
            }
        }
    }

    /// Copies a directory beside itself, in place of what was there under that name.
    pub(crate) fn fresh_copy(&self, from: &Path, name: &str) -> PathBuf {
        let to = from.parent().unwrap().join(name);
        match self.remove_tree(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                panic!("{}: {error}", to.display())
            }
            _ => {}
        }
        self.copy_tree(from, &to);
        to
    }

    /// Gives a number that two directories hardly ever have in common unless they hold the same.
    pub(crate) fn digest(&self, directory: &Path) -> u64 {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut digest = 0_u64;
        let mut take = |word: u64| digest = (digest.rotate_left(29) ^ word).wrapping_mul(FACTOR);
        let mut all = Vec::new();
        self.find_files(directory, &mut |path, _| {
            let below = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            all.push((below, self.read(path).unwrap()));
        });
        all.sort();
        for (name, bytes) in all {
            for text in [name.as_bytes(), &bytes] {
                take(text.len() as u64);
                for chunk in text.chunks(8) {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    take(u64::from_le_bytes(word));
                }
            }
        }
        digest
    }

    /// Tells a visitor of every file below a directory, with its inode.
    pub(crate) fn find_files(&self, directory: &Path, found: &mut impl FnMut(&Path, u64)) {
        for entry in self.entries(directory).unwrap() {
            let path = directory.join(entry.name);
            if entry.is_directory {
                self.find_files(&path, found);
            } else {
                found(&path, self.facts(&path).unwrap().inode);
            }
        }
    }
}

impl OpenFile {
    pub(crate) fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        match self {
            OpenFile::System(file) => file.read_exact_at(bytes, position),
            OpenFile::Memory(file) => match file.read_at(bytes, position)? {
                read if read == bytes.len() => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        match self {
            OpenFile::System(file) => file.write_all_at(bytes, position),
            OpenFile::Memory(file) => file.write_all_at(bytes, position),
        }
    }

    /// Gives everything that is in the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.facts().unwrap().len as usize];
        self.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

/// What is seen of a file system by doing something to it.
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chance::Chance;

    const NAMES: [&str; 4] = ["a", "b", "d", "d/c"];

    /// Does something, and gives what whoever did it is told.
    fn act(medium: &Medium, root: &Path, open: &mut Vec<OpenFile>, chance: &mut Chance) -> String {
        let path = root.join(NAMES[chance.index(NAMES.len())]);
        let other = root.join(NAMES[chance.index(NAMES.len())]);
        let access = [Access::Read, Access::Write, Access::CreateNew, Access::CreateOrKeep];
        let access = access[chance.index(4)];
        let (position, len) = (chance.below(50), chance.index(50));
        let bytes = vec![chance.below(256) as u8; len];
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(chance.below(1000));
        let told = |done: io::Result<()>| format!("{:?}", done.map_err(|error| error.kind()));
        let what = chance.below(20);
        if let (10.., Some(_)) = (what, open.first()) {
            let file = &open[chance.index(open.len())];
            return match what {
                10 | 11 => told(file.write_all_at(&bytes, position)),
                12 => told(file.set_len(position)),
                13 => told(file.allocate(position, len as u64 + 1)),
                14 => {
                    let mut read = bytes.clone();
                    let count = file.read_at(&mut read, position).unwrap();
                    let whole = file.read_exact_at(&mut read, position);
                    let is_whole = whole.is_ok();
                    format!("{count} {:?} {is_whole}", &read[..count])
                }
                15 => {
                    file.set_modified(time).unwrap();
                    let Facts { kind, len, modified, .. } = file.facts().unwrap();
                    format!("{kind:?} {len} {modified:?}")
                }
                16 => format!("{:?}", file.facts().map(|facts| facts.is_linked)),
                // From here on its bytes are seen by the system, too.
                17 => told(file.descriptor().write_all_at(&bytes, 0).and_then(|()| {
                    // Behind what is there, it would not be noticed; no mapping does that.
                    file.write_all_at(&bytes, 0)
                })),
                18 => format!("{:?}", file.bytes()),
                _ => {
                    drop(open.swap_remove(chance.index(open.len())));
                    String::new()
                }
            };
        }
        match what {
            // What is above or below itself is refused by systems in many ways.
            0 if path.starts_with(&other) || other.starts_with(&path) => String::new(),
            0 => told(medium.rename(&path, &other)),
            1 => told(medium.remove_file(&path)),
            2 if !medium.is_directory(&path) && medium.exists(&path) => String::new(),
            2 => told(medium.remove_tree(&path)),
            3 => told(medium.create_directory(&root.join("d"), 0o700)),
            4 if medium.is_directory(&path) || medium.is_directory(&other) => String::new(),
            4 => told(medium.exchange(&path, &other)),
            5 if access != Access::Read => told(medium.write(&path, bytes)),
            6 => format!("{:?}", medium.read(&path).map_err(|error| error.kind())),
            _ if medium.is_directory(&path) => told(medium.open_directory(&path).map(drop)),
            _ => told(medium.open(&path, access, 0o600).map(|file| open.push(file))),
        }
    }

    /// Gives what lies there, in no order of the file system's.
    fn seen(medium: &Medium, root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        medium.find_files(root, &mut |path, inode| {
            assert_eq!(medium.facts(path).unwrap().inode, inode);
            let below = path.strip_prefix(root).unwrap().to_path_buf();
            all.push((below, medium.read(path).unwrap()));
        });
        all.sort();
        all
    }

    #[test]
    fn what_is_done_in_memory_is_seen_as_on_a_file_system() {
        for seed in 1..200_u64 {
            let directory = tempfile::tempdir().unwrap();
            let memory = Medium::Memory(Arc::new(Memory::new()));
            let place = Path::new(PLACE).join("root");
            memory.create_directories(&place);
            let (mut there, mut here) = (Vec::new(), Vec::new());
            for step in 0..100 {
                let chance = || Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step << 32 | 1);
                let is = act(&memory, &place, &mut here, &mut chance());
                let should = act(&Medium::System, directory.path(), &mut there, &mut chance());
                assert_eq!(is, should, "seed {seed}, step {step}");
                let (is, should) = (seen(&memory, &place), seen(&Medium::System, directory.path()));
                assert_eq!(is, should, "seed {seed}, step {step}");
            }
            // A copy is another file.
            let copy = memory.fresh_copy(&place, "copy");
            assert_eq!(seen(&memory, &copy), seen(&memory, &place));
            here.iter().for_each(|file| file.set_len(0).unwrap());
            assert_eq!(seen(&memory, &copy), seen(&Medium::System, directory.path()));
        }
    }
}
