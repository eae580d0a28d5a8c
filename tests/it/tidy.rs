//! The house itself: floors, addresses of foreign crates, where `unsafe` lives, what the pages say.
//!
//! Reads the crate's own sources as text. What is exempt stands here with its reason.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should say where")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The floors of the architecture page, the lowest first, by module.
const FLOORS: &[(&str, &[&str])] = &[
    (
        "words",
        &[
            "error",
            "os_error",
            "error_texts",
            "config",
            "compaction_config",
            "producer_config",
            "client_config",
            "consumer_config",
            "retention_config",
            "record",
            "name",
            "clock",
            "steady_clock",
            "chance",
            "schedules",
            "due",
        ],
    ),
    ("bytes", &["format"]),
    ("files", &["storage"]),
    ("one log", &["partition"]),
    ("topics", &["topic", "topic_state", "topics"]),
    ("coordinator", &["coordinator"]),
    ("maintenance", &["maintenance", "retainer", "sync_workers", "cleaner"]),
    (
        "handles",
        &[
            "store",
            "health",
            "producer",
            "appender",
            "accumulator",
            "per_partition",
            "stage",
            "stage_context",
            "buffer_pool",
            "delivery",
            "partitioner",
            "assignment",
            "consumer_builder",
            "consumer",
            "consumer_group",
            "group_description",
            "handed_out",
            "spin",
            "wakeup",
            "records",
            "point_read",
            "request",
            "inspect",
            "repair",
            "explorer",
            "fuzzed",
        ],
    ),
    ("facade", &["lib"]),
];

/// Which files may name a foreign crate.
const ADDRESSES: &[(&str, &[&str])] = &[
    ("memmap2", &["storage/map.rs", "storage/large_pages.rs"]),
    (
        "crc32c",
        &[
            "format/encode.rs",
            "format/decode.rs",
            "format/rewrite.rs",
            // `ottla.topics` carries a checksum of its own.
            "storage/catalog.rs",
            // A producer snapshot is carried along only if it is whole; here and in a check.
            "partition/producer_snapshot.rs",
            "inspect/producer_snapshot.rs",
        ],
    ),
    // Two error numbers that the standard library has no kind for.
    ("libc", &["os_error.rs", "storage/medium.rs", "storage/lock.rs"]),
    ("rustix", &["clock.rs", "storage/disk.rs", "storage/medium.rs"]),
    ("flate2", &["format/compression/gzip.rs"]),
    ("lz4_flex", &["format/compression/lz4.rs"]),
    ("snap", &["format/compression/snappy.rs"]),
    ("zstd", &["format/compression/zstandard.rs"]),
    ("regex_lite", &["coordinator/subscription.rs"]),
    ("thiserror", &["error.rs"]),
    // Partitions speak to the background thread.
    (
        "crossbeam_channel",
        &[
            "maintenance.rs",
            "retainer.rs",
            "sync_workers.rs",
            "cleaner.rs",
            "partition/mod.rs",
            "topics/mod.rs",
            "store.rs",
        ],
    ),
];

const UNSAFE: &[&str] = &["storage/map.rs", "storage/lock.rs"];

/// Files with more lines than `LINES_MAX`, without their tests, and why.
const LARGE: &[(&str, &str)] = &[];
const LINES_MAX: usize = 600;

/// What a library must not do to its host.
const FORBIDDEN: &[&str] = &[
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "dbg!",
    "todo!",
    "unimplemented!",
    "process::exit",
    "process::abort",
    "set_hook",
];

/// The library's sources: paths within `src`, code without comments and tests, and the tests.
struct Sources {
    code: BTreeMap<String, Vec<String>>,
    tests: BTreeMap<String, Vec<String>>,
}

impl Sources {
    fn read() -> Sources {
        let mut files = BTreeMap::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        collect(&root, "", &mut files);
        files.retain(|path, _| !path.starts_with("bin/") && !path.starts_with("documentation/"));
        assert!(files.len() > 30, "the sources were not found");
        let mut sources = Sources { code: BTreeMap::new(), tests: BTreeMap::new() };
        let mut test_files = BTreeSet::new();
        for (path, text) in &files {
            let (code, tests) = divided(text);
            // A module that is declared for tests only is a file of tests.
            for line in &tests {
                let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
                let line = line.strip_prefix("pub ").unwrap_or(line);
                if let Some(name) = line.strip_prefix("mod ").and_then(|l| l.strip_suffix(';')) {
                    let directory = match path.as_str() {
                        "lib.rs" => String::new(),
                        other => match other.strip_suffix("mod.rs") {
                            Some(directory) => directory.to_owned(),
                            None => format!("{}/", other.strip_suffix(".rs").unwrap()),
                        },
                    };
                    test_files.insert(format!("{directory}{name}.rs"));
                }
            }
            sources.code.insert(path.clone(), code);
            sources.tests.insert(path.clone(), tests);
        }
        for path in test_files {
            // One that lies elsewhere is not the library's.
            let Some(code) = sources.code.remove(&path) else { continue };
            sources.tests.get_mut(&path).unwrap().extend(code);
        }
        sources
    }

    /// Every line of code, with its file.
    fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.code
            .iter()
            .flat_map(|(path, code)| code.iter().map(|line| (path.as_str(), without_comment(line))))
    }

    /// Which other files each file uses.
    fn uses(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let facade = self.facade();
        let mut uses: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (path, line) in self.lines().filter(|(path, _)| *path != "lib.rs") {
            for rest in line.split("crate::").skip(1) {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                let mut target = rest[..end.unwrap_or(rest.len())].trim_end_matches(':');
                // `crate::Error` is the facade's name for something of a lower floor.
                target = facade.get(target.split("::").next().unwrap()).map_or(target, |t| t);
                let file = self.file_of(target);
                let file = file.unwrap_or_else(|| panic!("{path}: what is crate::{target}?"));
                if file != path {
                    uses.entry(path).or_default().insert(file);
                }
            }
        }
        uses
    }

    /// What the facade re-exports, with the path it comes from.
    fn facade(&self) -> BTreeMap<&str, &str> {
        let exports = self.code["lib.rs"].iter().filter_map(|line| {
            let target = line.strip_prefix("pub use crate::")?.strip_suffix(';')?;
            Some((target.rsplit("::").next()?, target))
        });
        exports.collect()
    }

    /// The file in which the longest front part of a path lies.
    fn file_of(&self, target: &str) -> Option<String> {
        let parts: Vec<&str> = target.split("::").collect();
        (1..=parts.len()).rev().find_map(|len| {
            let stem = parts[..len].join("/");
            let names = [format!("{stem}.rs"), format!("{stem}/mod.rs")];
            names.into_iter().find(|name| self.code.contains_key(name))
        })
    }
}

fn collect(directory: &Path, front: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{front}{name}");
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if name.ends_with(".rs") {
            files.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// Divides a file into its code and what is compiled for tests only. Relies on the formatter: an item ends
/// with the first line as far in as its own that closes it.
fn divided(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut code, mut tests) = (Vec::new(), Vec::new());
    let mut item_indent = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match item_indent {
            None if line.trim() == "#[cfg(test)]" => item_indent = Some(indent),
            None => code.push(line.to_owned()),
            Some(begun) => {
                tests.push(line.to_owned());
                let closes = line.ends_with([';', ',', '}']) && !line.trim().is_empty();
                if indent == begun && closes {
                    item_indent = None;
                }
            }
        }
    }
    (code, tests)
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.split_once(" // ").map_or(line, |(code, _)| code)
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

fn floor_of(path: &str) -> usize {
    let module = path.split(['/', '.']).next().unwrap();
    let floor = FLOORS.iter().position(|(_, modules)| modules.contains(&module));
    floor.unwrap_or_else(|| panic!("src/{path} stands on no floor"))
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_use_points_to_the_same_floor_or_a_lower_one() {
    let sources = Sources::read();
    let uses = sources.uses();
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 100, "uses were not understood");
    for (path, targets) in uses {
        for target in targets {
            let (from, to) = (floor_of(path), floor_of(&target));
            let (from_name, to_name) = (FLOORS[from].0, FLOORS[to].0);
            assert!(to <= from, "src/{path} ({from_name}) uses src/{target} ({to_name})");
        }
    }
}

#[test]
fn there_are_no_circles() {
    let sources = Sources::read();
    let mut left = sources.uses();
    // Whoever uses nothing that is left is in no circle.
    loop {
        let remaining: BTreeSet<&str> = left.keys().copied().collect();
        let before = left.len();
        left.retain(|_, targets| targets.iter().any(|t| remaining.contains(t.as_str())));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "in circles, or above one: {:?}", left.keys());
}

#[test]
fn unsafe_code_lives_in_two_files() {
    for (path, line) in Sources::read().lines() {
        let is_unsafe = words(line).any(|word| word == "unsafe" || word == "unsafe_code");
        assert!(!is_unsafe || UNSAFE.contains(&path), "src/{path}: {line}");
    }
}

#[test]
fn a_foreign_crate_is_named_only_at_its_address() {
    for (path, line) in Sources::read().lines() {
        for (name, places) in ADDRESSES {
            let is_named = line.contains(&format!("{name}::"));
            assert!(!is_named || places.contains(&path), "src/{path} names {name}: {line}");
        }
    }
}

#[test]
fn the_library_prints_nothing_and_never_ends_its_host() {
    for (path, line) in Sources::read().lines() {
        for forbidden in FORBIDDEN {
            assert!(!line.contains(forbidden), "src/{path}: {line}");
        }
    }
}

#[test]
fn a_file_stays_within_its_length_or_says_why_not() {
    let sources = Sources::read();
    for (path, code) in &sources.code {
        let is_large = code.len() > LINES_MAX;
        let reason = LARGE.iter().find(|(large, _)| large == path);
        let len = code.len();
        assert!(!is_large || reason.is_some(), "src/{path} has {len} lines without its tests");
        assert!(is_large || reason.is_none(), "src/{path} need not be listed any more");
    }
}

#[test]
fn the_architecture_page_names_every_file_and_no_other() {
    let page = read("src/documentation/architecture.rs");
    let rows = page.lines().filter_map(|line| {
        let cell = line.strip_prefix("//! | `")?.split_once('`')?.0;
        cell.ends_with(".rs").then_some(cell)
    });
    let named: Vec<&str> = rows.collect();
    let sources = Sources::read();
    for path in sources.tests.keys() {
        let times = named.iter().filter(|name| *name == path).count();
        assert_eq!(times, 1, "the architecture page names src/{path} {times} times");
    }
    for name in named {
        assert!(sources.tests.contains_key(name), "there is no src/{name}");
    }
}

#[test]
fn the_architecture_page_has_every_file_on_its_floor() {
    let page = read("src/documentation/architecture.rs");
    let mut floor = FLOORS.len() - 1;
    for line in page.lines() {
        if let Some((name, _)) = line.strip_prefix("//! **").and_then(|l| l.split_once("**")) {
            let found = FLOORS.iter().position(|(floor, _)| name.eq_ignore_ascii_case(floor));
            floor = found.unwrap_or_else(|| panic!("the page has a floor {name}"));
        }
        let cell = line.strip_prefix("//! | `").and_then(|l| Some(l.split_once('`')?.0));
        if let Some(path) = cell.filter(|cell| cell.ends_with(".rs")) {
            assert_eq!(floor_of(path), floor, "{path}: the page has it elsewhere");
        }
    }
}

#[test]
fn every_test_that_a_page_names_exists() {
    let mut tests = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"), "", &mut tests);
    let sources = Sources::read();
    let within = sources.tests.values().map(|lines| lines.join("\n"));
    let all: Vec<String> = tests.into_values().chain(within).collect();
    for page in ["guarantees", "found"] {
        let text = read(&format!("src/documentation/{page}.rs"));
        let mut count = 0;
        for quoted in text.split('`').skip(1).step_by(2) {
            // Internal topics begin with underscores.
            let is_test_name = quoted.matches('_').count() >= 3
                && !quoted.starts_with('_')
                && quoted.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_test_name {
                count += 1;
                let declared = format!("fn {quoted}()");
                let is_declared = all.iter().any(|text| text.contains(&declared));
                assert!(is_declared, "{page}: no test is named {quoted}");
            }
        }
        assert!(count > 20, "{page} names only {count} tests");
    }
}

#[test]
fn every_error_is_produced_by_a_test() {
    let sources = Sources::read();
    let source = &sources.code["error.rs"];
    let begin = source.iter().position(|line| line == "pub enum Error {").unwrap();
    let variants = source[begin + 1..].iter().take_while(|line| *line != "}").filter_map(|line| {
        let name = line.strip_prefix("    ")?.trim_end_matches([',', '{', ' ']);
        let is_name = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(char::is_alphanumeric);
        is_name.then_some(name)
    });
    let variants: Vec<&str> = variants.collect();
    assert!(variants.len() > 20, "{variants:?}");
    let mut tests = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"), "", &mut tests);
    let within = sources.tests.values().map(|lines| lines.join("\n"));
    let all: Vec<String> = tests.into_values().chain(within).collect();
    for variant in variants {
        let name = format!("Error::{variant}");
        let named = |text: &String| {
            let mut behind = text.split(&name).skip(1);
            behind.any(|rest| !rest.starts_with(char::is_alphanumeric))
        };
        assert!(all.iter().any(named), "no test produces Error::{variant}");
    }
}
