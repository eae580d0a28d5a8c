//! Tests only: all that a power cut on the simulated disk may leave, as a set that what a real one has left is sought in.
//!
//! What a simulated disk forbids and a real one does is the one thing that a test on it can never find.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;

use crate::storage::disk;
use crate::storage::faults::Naming;
use crate::storage::faults::SECTOR_LEN;
use crate::storage::faults::Script;
use crate::storage::faults::Unsynced;
use crate::storage::faults::is_swapping;

/// Subsets of more names than this are too many to be gone through; those that end somewhere are not.
const SUBSET_LEN_MAX: usize = 12;

/// What the cache shows of a directory, and what of that is not durable.
pub(crate) struct Outcomes {
    root: PathBuf,
    tree: Tree,
    names: Vec<Naming>,
}

type Tree = BTreeMap<PathBuf, Node>;

#[derive(Clone)]
enum Node {
    Directory,
    File(Rc<Contents>),
}

struct Contents {
    cached: Vec<u8>,
    /// Where the device may hold something else.
    unsynced: Option<Unsynced>,
}

impl Contents {
    /// Tells whether some of the sectors that were changed, one of them torn perhaps, make these bytes.
    fn may_be(&self, found: &[u8]) -> bool {
        let Some(Unsynced { durable, between, lengths, .. }) = &self.unsynced else {
            return self.cached == found;
        };
        let is_length = |len: usize| len == found.len();
        if !is_length(self.cached.len())
            && !is_length(durable.len())
            && !lengths.contains(&found.len())
        {
            return false;
        }
        let byte = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
        (0..found.len()).step_by(SECTOR_LEN).all(|start| {
            let at = start..(start + SECTOR_LEN).min(found.len());
            let count =
                |bytes: &[u8]| at.clone().take_while(|at| byte(bytes, *at) == found[*at]).count();
            let versions = between.iter().chain([&self.cached, durable]);
            let torn_at = start + versions.map(|bytes| count(bytes)).max().unwrap_or(0);
            (torn_at..at.end).all(|at| byte(durable, at) == found[at])
        })
    }
}

impl Script {
    /// Takes down what there is now; nobody may change anything meanwhile.
    pub(crate) fn outcomes(&self, root: &Path) -> Outcomes {
        let mut tree = Tree::new();
        self.take_down(root, &mut tree);
        Outcomes { root: root.to_path_buf(), tree, names: self.names() }
    }

    fn take_down(&self, directory: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(directory).unwrap() {
            let (path, metadata) = entry.map(|e| (e.path(), e.metadata().unwrap())).unwrap();
            if metadata.is_dir() {
                self.take_down(&path, tree);
                tree.insert(path, Node::Directory);
            } else {
                let (cached, unsynced) = (fs::read(&path).unwrap(), self.unsynced(metadata.ino()));
                tree.insert(path, Node::File(Rc::new(Contents { cached, unsynced })));
            }
        }
    }
}

impl Outcomes {
    /// Says what no power cut could have left, if there is something.
    pub(crate) fn contain(&self, found: &Path) -> Result<(), String> {
        if !found.exists() {
            let of_root = |naming: &Naming| naming.paths().contains(&&*self.root);
            let is_lost = self.names.iter().any(of_root);
            return if is_lost { Ok(()) } else { Err("the directory is gone".into()) };
        }
        let mut tree = self.tree.clone();
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            tree = self.matching(&directory, &tree, found)?;
            let below = children(&directory, &tree);
            directories.extend(
                below.filter(|(_, n)| matches!(n, Node::Directory)).map(|(p, _)| p.clone()),
            );
        }
        Ok(())
    }

    /// Finds what was lost of the names in a directory, and gives how the rest looks then.
    fn matching(&self, directory: &Path, tree: &Tree, found: &Path) -> Result<Tree, String> {
        let happened: Vec<&Naming> =
            self.names.iter().filter(|naming| naming.directory() == directory).collect();
        let target = found.join(directory.strip_prefix(&self.root).unwrap());
        let mut wrong = String::new();
        let mut seems = |lost: &[&Naming]| {
            let mut tree = tree.clone();
            lost.iter().rev().for_each(|naming| take_back(&mut tree, naming));
            match compare(directory, &tree, &target) {
                Ok(()) => Some(tree),
                Err(other) => {
                    wrong = other;
                    None
                }
            }
        };
        // The last one tried is that nothing was lost: then it says best what is wrong.
        for kept in 0..=happened.len() {
            if let Some(tree) = seems(&happened[kept..]) {
                return Ok(tree);
            }
        }
        if happened.len() <= SUBSET_LEN_MAX && !is_swapping(&happened) {
            for bits in 0..1_u32 << happened.len() {
                let at = |n: usize| bits & (1 << n) != 0;
                let lost: Vec<&Naming> =
                    (0..happened.len()).filter(|n| at(*n)).map(|n| happened[n]).collect();
                let depends = |naming: &&Naming| {
                    let is_kept = !lost.iter().any(|other| std::ptr::eq(*other, *naming));
                    let before = lost.iter().filter(|other| {
                        let index =
                            |of: &Naming| happened.iter().position(|h| std::ptr::eq(*h, of));
                        index(other) < index(naming)
                    });
                    let is_touched = |other: &&Naming| {
                        other.paths().iter().any(|path| naming.paths().contains(path))
                    };
                    is_kept && before.into_iter().any(is_touched)
                };
                if !happened.iter().any(depends) {
                    if let Some(tree) = seems(&lost) {
                        return Ok(tree);
                    }
                }
            }
        }
        Err(format!("{}: {wrong}; behind {happened:?}", target.display()))
    }
}

fn children<'t>(
    directory: &'t Path,
    tree: &'t Tree,
) -> impl Iterator<Item = (&'t PathBuf, &'t Node)> {
    tree.iter().filter(move |(path, _)| path.parent() == Some(directory))
}

fn compare(directory: &Path, tree: &Tree, target: &Path) -> Result<(), String> {
    let mut seen = 0;
    for entry in fs::read_dir(target).map_err(|error| error.to_string())? {
        let path = entry.unwrap().path();
        seen += 1;
        match tree.get(&directory.join(path.file_name().unwrap())) {
            None => return Err(format!("{} should not be there", path.display())),
            Some(Node::Directory) if path.is_dir() => {}
            Some(Node::File(contents)) if path.is_file() => {
                let found = fs::read(&path).unwrap();
                if !contents.may_be(&found) {
                    let durable = contents.unsynced.as_ref().map(|unsynced| unsynced.durable.len());
                    let (len, cached) = (found.len(), contents.cached.len());
                    return Err(format!(
                        "{}, {len} bytes: neither as in the cache ({cached}) nor as durable ({durable:?})",
                        path.display()
                    ));
                }
            }
            Some(_) => return Err(format!("{} is of another kind", path.display())),
        }
    }
    match children(directory, tree).count() - seen {
        0 => Ok(()),
        missing => Err(format!("{missing} of {} are missing", seen + missing)),
    }
}

/// As the simulated disk takes it back.
fn take_back(tree: &mut Tree, naming: &Naming) {
    match naming {
        Naming::Created(path) => drop(taken(tree, path)),
        Naming::Renamed(from, to, replaced) => {
            for (below, node) in taken(tree, to) {
                tree.insert(from.join(below), node);
            }
            if let Some(bytes) = replaced {
                tree.insert(to.clone(), file(bytes));
            }
        }
        Naming::Exchanged(one, other) => {
            let (of_one, of_other) = (taken(tree, one), taken(tree, other));
            tree.extend(of_one.into_iter().map(|(below, node)| (other.join(below), node)));
            tree.extend(of_other.into_iter().map(|(below, node)| (one.join(below), node)));
        }
        Naming::Removed(path, bytes) => drop(tree.insert(path.clone(), file(bytes))),
        Naming::TreeRemoved(path, files) => {
            tree.insert(path.clone(), Node::Directory);
            for (name, bytes) in files {
                tree.insert(path.join(name), file(bytes));
            }
        }
    }
    // What lies in a directory that is gone is gone, too.
    let is_there = |path: &Path, tree: &Tree| tree.contains_key(disk::parent(path));
    let root = tree.keys().map(|path| path.components().count()).min().unwrap_or(0);
    let lost: Vec<PathBuf> = tree
        .keys()
        .filter(|path| path.components().count() > root && !is_there(path, tree))
        .cloned()
        .collect();
    lost.iter().for_each(|path| drop(tree.remove(path)));
}

fn file(bytes: &[u8]) -> Node {
    Node::File(Rc::new(Contents { cached: bytes.to_vec(), unsynced: None }))
}

/// Takes a name with everything below it, by the paths below it.
fn taken(tree: &mut Tree, path: &Path) -> Vec<(PathBuf, Node)> {
    let below: Vec<PathBuf> = tree.keys().filter(|key| key.starts_with(path)).cloned().collect();
    below
        .into_iter()
        .map(|key| (key.strip_prefix(path).unwrap().to_path_buf(), tree.remove(&key).unwrap()))
        .collect()
}
