//! The `ottla` command from end to end: the real binary, real directories, real pipes.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Record;
use ottla::Start;
use ottla::Store;
use ottla::TopicConfig;
use ottla::inspect;
use serde_json::Value;
use tempfile::TempDir;

use crate::golden::copy_tree;

pub(crate) const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/kafka-3.9");

/// A data directory and the command that works on it.
pub(crate) struct Shell {
    root: TempDir,
}

impl Shell {
    pub(crate) fn new() -> Shell {
        Shell { root: tempfile::tempdir().unwrap() }
    }

    /// A directory with one topic, `t`.
    pub(crate) fn with_topic(partitions: u32) -> Shell {
        let shell = Shell::new();
        shell.ok(&["topic", "create", "t", "-p", &partitions.to_string()]);
        shell
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
        command.env_remove("OTTLA_DIR").arg("-d").arg(self.path()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must not fail, and gives what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", errors(&output));
        output.stdout
    }

    pub(crate) fn text(&self, args: &[&str]) -> String {
        String::from_utf8(self.ok(args)).unwrap()
    }

    pub(crate) fn feed(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // A command that refuses may be gone before it is fed; its exit code tells.
        drop(child.stdin.take().unwrap().write_all(input));
        child.wait_with_output().unwrap()
    }

    pub(crate) fn produce(&self, args: &[&str], input: &[u8]) {
        let output = self.feed(&[&["produce", "t"], args].concat(), input);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", errors(&output));
    }

    pub(crate) fn segment(&self) -> PathBuf {
        self.path().join("t-0/00000000000000000000.log")
    }
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn flip(path: &Path, position: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[position] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

pub(crate) fn wait_at_most(mut child: Child, limit: Duration) -> Output {
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still running: {}", errors(&child.wait_with_output().unwrap()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn lines_come_back_as_the_same_bytes() {
    for (input, output) in [
        (&b"a\nb\n"[..], &b"a\nb\n"[..]),
        (b"no newline at the end", b"no newline at the end\n"),
        (b"\n\n", b"\n\n"),
        (b"\xff\xfe\x00\r\n\x80tail", b"\xff\xfe\x00\r\n\x80tail\n"),
        (b"", b""),
    ] {
        let shell = Shell::with_topic(1);
        shell.produce(&[], input);
        assert_eq!(shell.ok(&["consume", "t"]), output, "{input:?}");
    }
}

#[test]
fn a_long_line_and_many_lines_pass() {
    let shell = Shell::with_topic(1);
    let mut input = vec![b'x'; 700_000];
    input.push(b'\n');
    for n in 0..20_000 {
        writeln!(input, "line {n}").unwrap();
    }
    shell.produce(&[], &input);
    assert_eq!(shell.ok(&["consume", "t"]), input);
}

#[test]
fn produce_says_how_many_and_how_fast_on_stderr() {
    let shell = Shell::with_topic(1);
    let output = shell.feed(&["produce", "t"], b"a\nb\n");
    assert!(output.stdout.is_empty());
    let text = errors(&output);
    assert!(text.contains("2 records") && text.contains("records/s"), "{text}");
}

#[test]
fn keys_headers_and_timestamps_are_taken_apart() {
    let shell = Shell::with_topic(1);
    let input = b"1700000000000\tk1::v1::rest\n1700000000001\tno separator\n1700000000002\t::\n";
    shell.produce(&["-K", "::", "-t", "-H", "trace=7f", "-H", "empty=", "-H", "null"], input);
    let printed = shell.text(&["consume", "t", "-f", "%T|%k|%K|%s|%S|%h\\n"]);
    let headers = "trace=7f,empty=,null=";
    assert_eq!(
        printed,
        format!(
            "1700000000000|k1|2|v1::rest|8|{headers}\n\
             1700000000001||-1|no separator|12|{headers}\n\
             1700000000002||0||0|{headers}\n"
        )
    );
    let json = shell.text(&["consume", "t", "-J", "-c", "1"]);
    let record: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        record["headers"],
        serde_json::json!([["trace", "7f"], ["empty", ""], ["null", null]])
    );
}

#[test]
fn a_separator_may_be_an_escape() {
    let shell = Shell::with_topic(1);
    shell.produce(&["-K", "\\t"], b"key\tvalue\n");
    assert_eq!(shell.text(&["consume", "t", "-f", "%k=%s"]), "key=value");
}

#[test]
fn a_line_without_a_timestamp_is_named_and_what_came_before_is_kept() {
    let shell = Shell::with_topic(1);
    let output = shell.feed(&["produce", "t", "-t"], b"5\tgood\nbad\n7\tnever\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("line 2"), "{}", errors(&output));
    assert_eq!(shell.text(&["consume", "t"]), "good\n");
}

#[test]
fn records_go_to_the_partition_that_is_asked_for() {
    let shell = Shell::with_topic(3);
    shell.produce(&["-p", "2"], b"a\nb\n");
    assert_eq!(shell.text(&["offsets", "t"]), "t:0:0\nt:1:0\nt:2:2\n");
    assert_eq!(shell.text(&["consume", "t", "-p", "2"]), "a\nb\n");
    assert_eq!(shell.text(&["consume", "t", "-p", "1"]), "");
    let output = shell.feed(&["produce", "t", "-p", "3"], b"a\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("there is no partition 3"), "{}", errors(&output));
}

#[test]
fn json_holds_every_field_and_what_is_not_text_in_base64() {
    let shell = Shell::new();
    {
        let store = Store::open(shell.path()).unwrap();
        let topic = store.create_topic("t", TopicConfig::new()).unwrap();
        let producer = store.producer();
        let text = Record::new("v\n\"").key("k").timestamp(5);
        let bytes = Record::new(b"\xff").key(b"\xfe").header("h", b"\xfd").timestamp(6);
        for record in [text, bytes, Record::tombstone("gone").timestamp(7)] {
            producer.send(&topic, record).unwrap().wait().unwrap();
        }
    }
    let printed = shell.text(&["consume", "t", "-J"]);
    let records: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        records,
        [
            serde_json::json!({"topic": "t", "partition": 0, "offset": 0, "ts": 5,
                "tstype": "create", "key": "k", "value": "v\n\"", "headers": []}),
            serde_json::json!({"topic": "t", "partition": 0, "offset": 1, "ts": 6,
                "tstype": "create", "key_base64": "/g==", "value_base64": "/w==",
                "headers": [["h", {"base64": "/Q=="}]]}),
            serde_json::json!({"topic": "t", "partition": 0, "offset": 2, "ts": 7,
                "tstype": "create", "key": "gone", "value": null, "headers": []}),
        ]
    );
}

#[test]
fn formats_know_every_field_and_escape() {
    let shell = Shell::with_topic(1);
    shell.produce(&["-K", ":", "-t", "-H", "h=v"], b"42\tkey:value\n");
    for (format, printed) in [
        ("%t %p %o %k %s %T %h %K %S %%", "t 0 0 key value 42 h=v 3 5 %"),
        ("\\x41\\t\\r\\n\\\\é%s", "A\t\r\n\\évalue"),
        ("", ""),
    ] {
        assert_eq!(shell.text(&["consume", "t", "-f", format]), printed, "{format}");
    }
    for format in ["%", "%z", "\\", "\\q", "\\x4", "%é"] {
        let output = shell.run(&["consume", "t", "-f", format]);
        assert_eq!(output.status.code(), Some(2), "{format}: {}", errors(&output));
    }
}

#[test]
fn reading_begins_where_it_is_told_to() {
    let shell = Shell::with_topic(1);
    shell.produce(&["-t"], b"10\ta\n20\tb\n30\tc\n40\td\n");
    for (start, printed) in [
        ("beginning", "a\nb\nc\nd\n"),
        ("end", ""),
        ("2", "c\nd\n"),
        ("4", ""),
        ("-1", "d\n"),
        ("-100", "a\nb\nc\nd\n"),
        ("@20", "b\nc\nd\n"),
        ("@21", "c\nd\n"),
        ("@41", ""),
    ] {
        assert_eq!(shell.text(&["consume", "t", "-o", start]), printed, "{start}");
    }
    assert_eq!(shell.text(&["consume", "t", "-e", "-o", "1", "-c", "2"]), "b\nc\n");
    assert_eq!(shell.text(&["consume", "t", "-c", "0"]), "");
    let beyond = shell.run(&["consume", "t", "-o", "5"]);
    assert_eq!(beyond.status.code(), Some(1));
    assert!(errors(&beyond).contains("out of range"), "{}", errors(&beyond));
}

#[test]
fn offsets_of_times_and_both_ends() {
    let shell = Shell::with_topic(2);
    shell.produce(&["-t", "-p", "1"], b"10\ta\n20\tb\n");
    for (time, printed) in [
        ("latest", "t:0:0\nt:1:2\n"),
        ("earliest", "t:0:0\nt:1:0\n"),
        ("15", "t:0:-1\nt:1:1\n"),
        ("21", "t:0:-1\nt:1:-1\n"),
    ] {
        assert_eq!(shell.text(&["offsets", "t", "--time", time]), printed, "{time}");
    }
}

#[test]
fn follow_sees_what_another_process_appends() {
    let shell = Shell::with_topic(1);
    shell.produce(&[], b"before\n");
    let mut follower = shell.command(&["consume", "t", "--follow", "-c", "3"]).spawn().unwrap();
    let mut printed = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    assert_eq!(line, "before\n");
    // It waits at the end by now, or will soon; either way it must see what another process adds.
    shell.produce(&[], b"one\ntwo\nthree\n");
    let output = wait_at_most(follower, Duration::from_secs(30));
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let mut rest = String::new();
    printed.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "one\ntwo\n");
}

#[test]
fn commands_that_look_work_while_an_application_holds_the_directory() {
    let shell = Shell::new();
    let store = Store::open(shell.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    store.producer().send(&topic, "live").unwrap().wait().unwrap();
    assert_eq!(shell.text(&["topic", "ls"]), "t\n");
    assert!(shell.text(&["topic", "describe", "t"]).contains("id: "));
    assert_eq!(shell.text(&["consume", "t"]), "live\n");
    assert_eq!(shell.text(&["offsets", "t"]), "t:0:1\n");
    let log = shell.segment();
    assert!(shell.text(&["dump", log.to_str().unwrap()]).contains(" payload: live\n"));
    shell.ok(&["check"]);

    let refused = shell.feed(&["produce", "t"], b"x\n");
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("in use by another writer"), "{}", errors(&refused));
    drop((topic, store));
    shell.produce(&[], b"now\n");
}

#[test]
fn check_finds_nothing_while_a_store_is_being_written_to() {
    let shell = Shell::new();
    let store = Store::open(shell.path()).unwrap();
    let config = TopicConfig::new().segment_bytes(20_000).index_interval_bytes(100);
    let topic = store.create_topic("t", config).unwrap();
    let producer = store.producer_builder().durability(ottla::Durability::Buffered).build();
    // However slow a check is, the log does not outgrow it.
    let checks = AtomicUsize::new(0);
    thread::scope(|scope| {
        let checker = scope.spawn(|| {
            for _ in 0..20 {
                let report = inspect::check(shell.path()).unwrap();
                assert!(report.is_good(), "{:?}", report.problems);
                checks.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut n = 0;
        while !checker.is_finished() {
            if n < (checks.load(Ordering::Relaxed) + 1) * 2000 {
                drop(producer.send(&topic, &format!("record {n} of a busy writer")).unwrap());
                n += 1;
            } else {
                thread::yield_now();
            }
        }
        checker.join().unwrap();
    });
}

#[test]
fn a_killed_producer_leaves_what_check_accepts_and_the_next_one_continues() {
    let shell = Shell::with_topic(1);
    let mut producer = shell.command(&["produce", "t"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = producer.stdin.take().unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    input.flush().unwrap();
    let both = wait_at_most(
        shell.command(&["consume", "t", "--follow", "-c", "2"]).spawn().unwrap(),
        Duration::from_secs(30),
    );
    assert_eq!(both.stdout, b"one\ntwo\n");
    producer.kill().unwrap();
    producer.wait().unwrap();

    let checked = shell.run(&["check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", errors(&checked));
    assert!(errors(&checked).contains("bytes of reserved space"), "{}", errors(&checked));
    shell.produce(&[], b"three\n");
    assert_eq!(shell.text(&["consume", "t"]), "one\ntwo\nthree\n");
    shell.ok(&["check"]);
}

#[test]
fn topics_are_created_altered_grown_and_removed() {
    let shell = Shell::new();
    shell.ok(&[
        "topic",
        "create",
        "b",
        "-p",
        "2",
        "-c",
        "segment.bytes=4096",
        "-c",
        "segment.ms=1000",
    ]);
    shell.ok(&["topic", "create", "a"]);
    assert_eq!(shell.text(&["topic", "ls"]), "a\nb\n");
    assert_eq!(shell.text(&["topic", "ls", "-l"]), "a\t1\t0\nb\t2\t0\n");
    shell.ok(&[
        "topic",
        "alter",
        "b",
        "-c",
        "retention.ms=5",
        "-c",
        "flush.messages=7",
        "--unset",
        "segment.ms",
    ]);
    shell.ok(&["topic", "add-partitions", "b", "3"]);
    let description = shell.text(&["topic", "describe", "b"]);
    let settings: Vec<Vec<&str>> = description
        .lines()
        .filter(|line| line.contains('='))
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
        .collect();
    assert_eq!(
        settings,
        [
            ["flush.messages=7", "set", "kept, but not acted upon by this version"],
            ["retention.ms=5", "set", "in force"],
            ["segment.bytes=4096", "set", "in force"],
        ]
    );
    assert_eq!(description.lines().filter(|line| line.starts_with(['0', '1', '2'])).count(), 3);
    assert!(shell.text(&["topic", "describe", "b", "--all"]).contains("segment.ms=604800000"));
    shell.ok(&["topic", "rm", "b"]);
    assert_eq!(shell.text(&["topic", "ls"]), "a\n");
}

#[test]
fn wrong_calls_exit_with_2() {
    let shell = Shell::with_topic(1);
    for args in [
        &["consume"][..],
        &["nonsense"],
        &["consume", "t", "-o", "middle"],
        &["consume", "t", "-J", "-f", "%s"],
        &["consume", "t", "-e", "--follow"],
        &["topic", "create", "x", "-c", "no-equals-sign"],
        &["topic", "alter", "t"],
        &["produce", "t", "-K", ""],
        &["offsets", "t", "--time", "yesterday"],
        &["perf", "produce", "--durability", "perhaps"],
    ] {
        let output = shell.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", errors(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    let without_directory = Command::new(env!("CARGO_BIN_EXE_ottla"))
        .env_remove("OTTLA_DIR")
        .args(["topic", "ls"])
        .output();
    let output = without_directory.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("OTTLA_DIR"), "{}", errors(&output));
    assert_eq!(shell.run(&["--help"]).status.code(), Some(0));
}

#[test]
fn the_directory_may_come_from_the_environment() {
    let shell = Shell::with_topic(1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    let output = command.env("OTTLA_DIR", shell.path()).args(["topic", "ls"]).output().unwrap();
    assert_eq!(output.stdout, b"t\n");
}

#[test]
fn failures_exit_with_1_and_say_what_is_wrong() {
    let shell = Shell::with_topic(1);
    for (args, said) in [
        (&["consume", "nope"][..], "no topic is named `nope`"),
        (&["offsets", "nope"], "no topic is named `nope`"),
        (&["produce", "nope"], "create it with `ottla topic create nope`"),
        (&["topic", "create", "t"], "exists already"),
        (&["topic", "create", "a/b"], "is not a topic name"),
        (&["topic", "create", "x", "-c", "nonsense=1"], "nonsense is not a property"),
        (&["topic", "add-partitions", "t", "1"], "can only grow"),
        (&["consume", "t", "-p", "7"], "there is no partition 7"),
        (&["dump", "/nowhere/00000000000000000000.log"], "/nowhere"),
    ] {
        let output = shell.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", errors(&output));
        assert!(errors(&output).contains(said), "{args:?}: {}", errors(&output));
    }
    let nowhere = Shell::new();
    for args in [&["topic", "ls"][..], &["consume", "t"], &["produce", "t"], &["check"]] {
        let output = nowhere.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(errors(&output).contains("it does not exist"), "{args:?}: {}", errors(&output));
        assert!(!nowhere.path().exists(), "{args:?} made the directory");
    }
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let shell = Shell::with_topic(1);
    let input: Vec<u8> = (0..50_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    shell.produce(&[], &input);
    let log = shell.segment();
    for args in [&["consume", "t"][..], &["consume", "t", "-J"], &["dump", log.to_str().unwrap()]] {
        let mut child = shell.command(args).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        let output = wait_at_most(child, Duration::from_secs(30));
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", errors(&output));
        assert_eq!(errors(&output), "", "{args:?}");
    }
}

#[test]
fn repair_shows_first_and_does_it_when_asked() {
    let shell = Shell::with_topic(1);
    for line in ["a\n", "b\n", "c\n"] {
        shell.produce(&[], line.as_bytes());
    }
    let sound = shell.run(&["repair"]);
    assert_eq!((sound.status.code(), &sound.stdout[..]), (Some(0), &b""[..]));
    let len = std::fs::metadata(shell.segment()).unwrap().len() as usize;
    flip(&shell.segment(), len / 2);
    let damaged = std::fs::read(shell.segment()).unwrap();

    let planned = shell.run(&["repair"]);
    assert_eq!(planned.status.code(), Some(1), "{}", errors(&planned));
    let text = String::from_utf8(planned.stdout.clone()).unwrap();
    assert!(
        text.contains("set aside: checksum mismatch; offsets 1 to 1 are lost; kept in "),
        "{text}"
    );
    assert!(errors(&planned).contains("to do, with --apply"), "{}", errors(&planned));
    assert_eq!(std::fs::read(shell.segment()).unwrap(), damaged);

    let store = Store::open(shell.path()).unwrap();
    let refused = shell.run(&["repair", "--apply"]);
    assert_eq!(refused.status.code(), Some(1), "{}", errors(&refused));
    drop(store);
    let applied = shell.run(&["repair", "--apply"]);
    assert_eq!(applied.status.code(), Some(0), "{}", errors(&applied));
    assert!(errors(&applied).contains("all is well"), "{}", errors(&applied));
    assert_eq!(shell.text(&["consume", "t"]), "a\nc\n");
    shell.ok(&["check"]);
    assert_eq!(shell.run(&["repair", "--aply"]).status.code(), Some(2));
}

#[test]
fn check_names_the_file_and_the_byte_of_one_flipped_bit() {
    let shell = Shell::with_topic(1);
    shell.produce(&[], b"first record\nsecond record\nthird record\n");
    let output = shell.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(output.stdout.is_empty());
    assert!(errors(&output).contains("3 records"), "{}", errors(&output));

    let second = batch_positions(&shell.segment())[1];
    flip(&shell.segment(), second as usize + 70);
    let output = shell.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).unwrap();
    let begins = format!("{}: byte {second}: checksum mismatch", shell.segment().display());
    assert!(printed.starts_with(&begins), "{printed}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
}

fn batch_positions(log: &Path) -> Vec<u64> {
    let mut dump = inspect::dump_log(log).unwrap();
    let mut positions = Vec::new();
    while let Some(batch) = dump.next_batch().unwrap() {
        positions.push(batch.header.position);
    }
    positions
}

#[test]
fn no_flipped_bit_of_a_closed_directory_goes_unnoticed() {
    let shell = closed_directory();
    assert!(inspect::check(shell.path()).unwrap().is_good());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(shell.path().join("t-0")).unwrap() {
        files.push(entry.unwrap().path());
    }
    files.push(shell.path().join("ottla.topics"));
    let mut flipped = 0;
    for file in files {
        let good = std::fs::read(&file).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x40;
            std::fs::write(&file, bad).unwrap();
            let report = inspect::check(shell.path()).unwrap();
            // A time in the middle that is later than it should be is still true: none is later.
            let last = good.len().saturating_sub(12);
            let is_true_all_the_same =
                file.extension().is_some_and(|e| e == "timeindex") && position < last;
            assert!(
                !report.is_good() || is_true_all_the_same,
                "byte {position} of {}",
                file.display()
            );
            flipped += 1;
        }
        std::fs::write(&file, good).unwrap();
    }
    assert!(flipped > 1000);
    assert!(inspect::check(shell.path()).unwrap().is_good());
}

/// A closed directory with one topic of one partition in several segments.
fn closed_directory() -> Shell {
    let shell = Shell::new();
    let store = Store::open(shell.path()).unwrap();
    let config = TopicConfig::new().segment_bytes(1024).index_interval_bytes(100);
    let topic = store.create_topic("t", config).unwrap();
    for n in 0..30 {
        let value = format!("a value of some length {n}");
        store.producer().send(&topic, Record::new(&value)).unwrap().wait().unwrap();
    }
    drop(topic);
    store.close().unwrap();
    shell
}

fn files_of(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

#[test]
fn every_kind_of_damage_is_one_problem_with_its_place() {
    type Injury = fn(&Path);
    fn partition(root: &Path) -> PathBuf {
        root.join("t-0")
    }
    let cases: &[(&str, Injury, &str)] = &[
        (
            "a segment in the middle is gone",
            |root| {
                for kind in ["log", "index", "timeindex"] {
                    std::fs::remove_file(&files_of(&partition(root), kind)[1]).unwrap();
                }
            },
            "should begin at offset",
        ),
        (
            "a segment in the middle is cut off within a batch",
            |root| {
                let log = &files_of(&partition(root), "log")[1];
                let bytes = std::fs::read(log).unwrap();
                std::fs::write(log, &bytes[..bytes.len() - 5]).unwrap();
            },
            "the batch is cut off",
        ),
        (
            "zeros follow the last batch",
            |root| {
                let log = files_of(&partition(root), "log").pop().unwrap();
                let bytes = std::fs::read(&log).unwrap();
                std::fs::write(&log, [bytes, vec![0; 77]].concat()).unwrap();
            },
            "77 bytes of reserved space",
        ),
        (
            "an index is padded",
            |root| {
                let index = files_of(&partition(root), "index").pop().unwrap();
                let bytes = std::fs::read(&index).unwrap();
                std::fs::write(&index, [bytes, vec![0; 16]].concat()).unwrap();
            },
            "16 bytes of padding",
        ),
        (
            "a time index is empty",
            |root| std::fs::write(&files_of(&partition(root), "timeindex")[0], "").unwrap(),
            "not the greatest",
        ),
        (
            "a time index is gone",
            |root| std::fs::remove_file(&files_of(&partition(root), "timeindex")[0]).unwrap(),
            "the file is missing",
        ),
        (
            "a producer snapshot is damaged",
            |root| flip(&files_of(&partition(root), "snapshot")[0], 3),
            "checksum mismatch",
        ),
        (
            "a checkpoint is garbage",
            |root| std::fs::write(root.join("recovery-point-offset-checkpoint"), "x").unwrap(),
            "not version 0",
        ),
        (
            "a checkpoint promises more than there is",
            |root| {
                let path = root.join("replication-offset-checkpoint");
                std::fs::write(path, "0\n1\nt 0 31\n").unwrap();
            },
            "offset 31 of t-0 lies behind the log's end, 30",
        ),
        (
            "the partition is another topic's",
            |root| {
                let path = partition(root).join("partition.metadata");
                std::fs::write(path, "version: 0\ntopic_id: 9fbAfwdaRC2owIKpXX4EoQ").unwrap();
            },
            "the topic's id is 9fbAfwdaRC2owIKpXX4EoQ",
        ),
        (
            "the partition is gone",
            |root| std::fs::remove_dir_all(partition(root)).unwrap(),
            "the partition's directory is missing",
        ),
        (
            "the list of topics is damaged",
            |root| flip(&root.join("ottla.topics"), 20),
            "checksum mismatch",
        ),
    ];
    for (what, injure, said) in cases {
        let shell = closed_directory();
        let good = inspect::check(shell.path()).unwrap();
        assert!(good.is_good() && good.notes.is_empty(), "{what}: {good:?}");
        injure(&shell.path());
        let report = inspect::check(shell.path()).unwrap();
        let lines: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 1, "{what}: {lines:?}");
        assert!(lines[0].contains(said), "{what}: {lines:?}");
    }
}

#[test]
fn nothing_that_lies_in_a_file_makes_a_check_or_a_dump_panic() {
    let seed =
        std::env::var("OTTLA_SEED").map_or(0x2545_f491_4f6c_dd1d, |seed| seed.parse().unwrap());
    println!("OTTLA_SEED={seed}");
    let mut state: u64 = seed;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let copy = tempfile::tempdir().unwrap();
    copy_tree(&Path::new(GOLDEN).join("clean"), copy.path());
    let mut files = Vec::new();
    for directory in ["txn-0", "plain-0", "compact-0", "__consumer_offsets-0"] {
        for kind in ["log", "index", "timeindex", "txnindex", "snapshot"] {
            files.extend(files_of(&copy.path().join(directory), kind));
        }
    }
    for round in 0..300 {
        let file = &files[random(files.len())];
        let good = std::fs::read(file).unwrap();
        let mut bad = good.clone();
        for _ in 0..=random(4) {
            match random(3) {
                0 => bad.truncate(random(good.len() + 1)),
                1 => bad.extend((0..random(200)).map(|n| (n * round) as u8)),
                _ if bad.is_empty() => {}
                _ => {
                    let at = random(bad.len());
                    bad[at] = [0, 0xff, 0x7f, 0x80, 1][random(5)];
                }
            }
        }
        std::fs::write(file, &bad).unwrap();
        drop(inspect::check(copy.path()).unwrap());
        dump_all(file);
        std::fs::write(file, good).unwrap();
    }
    assert!(inspect::check(copy.path()).unwrap().is_good());
}

/// Reads a file whole, whatever is in it.
fn dump_all(file: &Path) {
    drop(inspect::dump_offset_index(file));
    drop(inspect::dump_time_index(file));
    drop(inspect::dump_transaction_index(file));
    drop(inspect::dump_producer_snapshot(file));
    let Ok(mut dump) = inspect::dump_log(file) else { return };
    while let Ok(Some(batch)) = dump.next_batch() {
        if let inspect::DumpedRecords::Plain(records) = batch.records {
            for record in records {
                assert!(record.headers().count() < 1_000_000);
            }
        }
    }
}

#[test]
fn check_is_content_with_what_kafka_wrote_and_with_what_a_crash_left() {
    let clean = Path::new(GOLDEN).join("clean");
    let report = inspect::check(&clean).unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
    assert_eq!((report.counts.partitions, report.counts.segments), (12, 18));

    // A store that is not closed has reserved space and stale indexes: notes, not problems.
    let shell = Shell::new();
    let store = Store::open(shell.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let producer = store.producer_builder().durability(ottla::Durability::Buffered).build();
    drop(producer.send(&topic, "v").unwrap());
    store.sync().unwrap();
    let report = inspect::check(shell.path()).unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
    // The same bytes under a clean-shutdown marker are a trap for Kafka.
    let copy = tempfile::tempdir().unwrap();
    copy_tree(&shell.path(), copy.path());
    std::fs::write(copy.path().join(".kafka_cleanshutdown"), "").unwrap();
    let log = copy.path().join("t-0/00000000000000000000.log");
    let mut padded = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    padded.write_all(&[0; 100]).unwrap();
    let report = inspect::check(copy.path()).unwrap();
    let whats: Vec<_> = report.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert!(whats.iter().any(|what| what.contains("reserved space")), "{whats:?}");
    assert!(whats.iter().any(|what| what.contains("not the greatest")), "{whats:?}");
}

/// Splits a dump into what it says of each file. Kafka's tool was run twice on offset and time indexes;
/// the second time it listed their entries.
fn sections(dump: &[u8]) -> BTreeMap<String, String> {
    let mut sections = BTreeMap::new();
    let text = String::from_utf8_lossy(dump);
    let text = text.trim_end_matches("DUMP OK\n");
    for section in text.split("Dumping clean/").skip(1) {
        let (path, body) = section.split_once('\n').unwrap();
        sections.insert(path.to_owned(), body.to_owned());
    }
    sections
}

#[test]
fn dumps_are_those_of_kafkas_own_tool() {
    let kafka = sections(&std::fs::read(Path::new(GOLDEN).join("clean.dump.txt")).unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    let output = command.current_dir(GOLDEN).args(["dump", "clean"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let ours = sections(&output.stdout);
    let mut compared = BTreeMap::new();
    for (path, expected) in &kafka {
        let printed = &ours[path];
        let topic = path.split('-').next().unwrap();
        assert_eq!(printed, expected, "{path}");
        *compared.entry(topic).or_insert(0) += 1;
    }
    for topic in ["plain", "appendtime", "c", "txn", "compact", "__consumer_offsets"] {
        assert!(compared.contains_key(topic), "{topic}: {compared:?}");
    }
}

#[test]
fn a_dump_of_damage_names_the_byte_and_goes_on_with_the_next_file() {
    let shell = Shell::with_topic(2);
    shell.produce(&["-p", "0"], b"first\nsecond\nthird\n");
    shell.produce(&["-p", "1"], b"elsewhere\n");
    let positions = batch_positions(&shell.segment());
    flip(&shell.segment(), positions[1] as usize + 70);
    let data = shell.path();
    let printed = shell.text(&["dump", data.to_str().unwrap()]);
    assert!(printed.contains("isvalid: false\n| records cannot be shown: checksum mismatch\n"));
    assert!(printed.contains("payload: third"), "{printed}");

    flip(&shell.segment(), positions[2] as usize + 16);
    let output = shell.run(&["dump", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = format!("corrupt data at byte {} of ", positions[2]);
    assert!(errors(&output).contains(&said), "{}", errors(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("payload: elsewhere"));
}

#[test]
fn what_the_command_appends_the_library_reads() {
    let shell = Shell::with_topic(1);
    shell.produce(&["-K", ":"], b"k:v\n");
    let store = Store::open(shell.path()).unwrap();
    let topic = store.topic("t").unwrap();
    let mut consumer = store.consumer().start(Start::Earliest).assign(topic.partitions()).unwrap();
    let records = consumer.poll(Duration::from_secs(5)).unwrap();
    let message = records.iter().next().unwrap();
    assert_eq!((message.key(), message.value()), (Some(&b"k"[..]), Some(&b"v"[..])));
}

/// Measures in a directory that has a topic of its own, and gives the figures.
fn measured(shell: &Shell, args: &[&str]) -> Value {
    let args: Vec<&str> = ["perf"].iter().chain(args).chain(&["--json"]).copied().collect();
    serde_json::from_str(&shell.text(&args)).unwrap()
}

/// Asserts that a figure was measured in each round.
fn assert_series(figures: &Value, name: &str) {
    let number = |name: &str| {
        let number = figures[name].as_f64();
        number.unwrap_or_else(|| panic!("no {name} in {figures}"))
    };
    let (least, greatest) = (number(&format!("{name}_min")), number(&format!("{name}_max")));
    assert!(0.0 < least && least <= greatest, "{name}: {figures}");
    assert!((least..=greatest).contains(&number(name)), "{name}: {figures}");
}

const PERCENTILES: [&str; 5] = ["p50_us", "p95_us", "p99_us", "p99.9_us", "max_us"];

#[test]
fn measured_sends_are_read_back_and_leave_nothing_behind() {
    let shell = Shell::with_topic(1);
    for options in [
        &["--records", "300", "--threads", "3", "--partitions", "2", "--rounds", "3"][..],
        &["--records", "1000", "--threads", "2", "--batch", "70", "--partitions", "3"],
        &["--records", "20", "--durability", "synced", "--wait", "each", "--latencies"],
        &["--records", "500", "--warm-up", "0", "--batch", "9", "--latencies", "--rounds", "2"],
        // What warms up is staged, too, and is not to be read back among what was measured.
        &["--records", "400", "--linger-ms", "1000", "--batch-bytes", "4096", "--threads", "2"],
        &["--records", "200", "--linger-ms", "1000", "--rounds", "2"],
    ] {
        let args: Vec<&str> = ["produce"].iter().chain(options).copied().collect();
        let figures = measured(&shell, &args);
        let count = options[1].parse::<u64>().unwrap();
        assert_eq!(figures["records"], count, "{figures}");
        assert_eq!(figures["bytes"], count * 100, "{figures}");
        assert_eq!(figures["is_verified"], true, "{figures}");
        for name in ["records_per_second", "bytes_per_second", "cpu_seconds_per_million_records"] {
            assert_series(&figures, name);
        }
        // Looking at the clock costs as much as a send: only when asked.
        for name in PERCENTILES {
            let is_asked = options.contains(&"--latencies");
            assert_eq!(figures[name].is_number(), is_asked, "{name}: {figures}");
        }
        if cfg!(target_os = "linux") {
            assert!(figures["anonymous_bytes"].as_u64().unwrap() > 10_000, "{figures}");
        }
    }
    assert_eq!(shell.text(&["topic", "ls"]), "t\n");
    shell.ok(&["check"]);
    for wrong in [["--size", "7"], ["--batch", "0"], ["--threads", "0"], ["--rounds", "0"]] {
        let output = shell.run(&[&["perf", "produce"], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn measured_scans_see_every_byte_of_a_topic_in_each_round() {
    let shell = Shell::with_topic(2);
    let figures = measured(&shell, &["consume", "--records", "5000", "--rounds", "2"]);
    assert_eq!(figures["records"], 5000, "{figures}");
    assert_eq!(figures["is_verified"], true, "{figures}");
    for name in ["records_per_second", "second_records_per_second", "second_seconds"] {
        assert_series(&figures, name);
    }
    assert_eq!(shell.text(&["topic", "ls"]), "t\n");

    shell.produce(&["-K", ":"], b"k:v\nkk:vv\n");
    let figures = measured(&shell, &["consume", "--topic", "t"]);
    let sum = b"kvkkvv".iter().map(|byte| u64::from(*byte)).sum::<u64>();
    assert_eq!((&figures["records"], &figures["bytes"]), (&2.into(), &6.into()), "{figures}");
    assert_eq!(figures["byte_sum"], sum, "{figures}");
    // Somebody else's records can be counted, not compared.
    assert_eq!(figures["is_verified"], false, "{figures}");
}

#[test]
fn measured_point_reads_and_openings_work_on_what_is_there() {
    let shell = Shell::with_topic(3);
    let options = ["--records", "2000", "--partitions", "3", "--rounds", "3", "--size", "8"];
    let read = ["read", "--reads", "500", "--latencies"].iter().chain(&options);
    let figures = measured(&shell, &read.copied().collect::<Vec<_>>());
    assert_eq!((&figures["records"], &figures["bytes"]), (&500.into(), &4000.into()), "{figures}");
    assert_series(&figures, "records_per_second");
    assert!(PERCENTILES.iter().all(|name| figures[name].is_number()), "{figures}");

    let open: Vec<&str> = ["open"].iter().chain(&options).copied().collect();
    let figures = measured(&shell, &open);
    assert_eq!(figures["records"], 2000, "{figures}");
    assert_series(&figures, "open_ms");
    assert_series(&figures, "close_ms");
    assert_eq!(shell.text(&["topic", "ls"]), "t\n");

    // On a topic of one's own: what is there is measured, and stays.
    let read = ["perf", "read", "--topic", "t", "--records", "90", "--reads", "10"];
    for _ in 0..2 {
        shell.ok(&read);
        shell.ok(&["perf", "open", "--topic", "t", "--records", "50"]);
        assert_eq!(shell.text(&["offsets", "t"]), "t:0:30\nt:1:30\nt:2:30\n");
    }
}

#[test]
fn a_measured_latency_comes_at_the_rate_that_was_asked_for() {
    let shell = Shell::with_topic(1);
    for options in [
        &["--durability", "every:50"][..],
        &["--pace", "sleep", "--spin-us", "0"],
        &["--busy", "--rounds", "2"],
        &["--durability", "synced"],
    ] {
        let fixed = ["latency", "--records", "40", "--rate", "200"];
        let args: Vec<&str> = fixed.iter().chain(options).copied().collect();
        let figures = measured(&shell, &args);
        assert_eq!(figures["records"], 40, "{figures}");
        assert_eq!(figures["target_records_per_second"], 200, "{figures}");
        // The last is sent 195 ms after the first.
        assert!(figures["seconds_min"].as_f64().unwrap() >= 0.195, "{figures}");
        assert!(figures["records_per_second"].as_f64().unwrap() < 206.0, "{figures}");
        assert!(figures["pile_up_records_max"].as_u64().unwrap() >= 1, "{figures}");
        assert!(figures["late_records"].is_u64(), "{figures}");
        let percentiles: Vec<f64> =
            PERCENTILES.iter().map(|name| figures[name].as_f64().unwrap()).collect();
        assert!(percentiles.is_sorted() && percentiles[0] > 0.0, "{figures}");
        assert_series(&figures, "p50_us");
    }
    assert_eq!(shell.text(&["topic", "ls"]), "t\n");
}

#[test]
fn measurements_say_the_same_to_people_and_need_no_directory() {
    let temporary = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
        command.env_remove("OTTLA_DIR").env("TMPDIR", temporary.path()).arg("perf").args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for args in [
        &["produce", "--records", "100"][..],
        &["consume", "--records", "100"],
        &["read", "--records", "100", "--reads", "10"],
        &["latency", "--records", "10"],
        &["open", "--records", "100"],
    ] {
        let text = run(args);
        let figures: Value = serde_json::from_str(&run(&[args, &["--json"]].concat())).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        let expected: Vec<&str> = figures.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names[..expected.len()], expected, "{text}");
        if args[0] != "open" {
            assert!(text.contains("C = ") && text.contains("D = "), "{text}");
        }
    }
    let failed = Command::new(env!("CARGO_BIN_EXE_ottla"))
        .env_remove("OTTLA_DIR")
        .env("TMPDIR", temporary.path())
        .args(["perf", "produce", "--topic", "nowhere"])
        .output()
        .unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn du_tells_what_partitions_take_and_what_goes_next() {
    let shell = Shell::new();
    shell.ok(&["topic", "create", "t", "-p", "2", "-c", "segment.bytes=1024"]);
    shell.produce(&["-p", "1"], "a line of twenty byte\n".repeat(100).as_bytes());
    shell.ok(&["topic", "alter", "t", "-c", "retention.bytes=1000"]);
    let text = shell.text(&["du", "-J", "t"]);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["bytes"], &lines[0]["oldest_ms"]), (&0.into(), &serde_json::Value::Null));
    let number = |name: &str| lines[1][name].as_u64().unwrap();
    assert!(number("bytes") > 2000 && number("disk_bytes") > number("bytes"), "{text}");
    assert!(number("segments") > 1 && number("newest_ms") >= number("oldest_ms"), "{text}");
    assert!(number("due_bytes") > 0 && number("due_segments") > 0, "{text}");
    let table = shell.text(&["du"]);
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("PARTITION") && rows[1].starts_with("t-0"), "{table}");
    assert!(rows[3].starts_with("total"), "{table}");
    let unknown = shell.run(&["du", "nothing"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn the_beginning_of_a_partition_is_deleted_by_hand() {
    let shell = Shell::with_topic(1);
    shell.produce(&[], b"a\nb\nc\n");
    assert_eq!(shell.text(&["delete-records", "t", "--before", "2"]), "t:0:2\n");
    assert_eq!(shell.text(&["consume", "t"]), "c\n");
    assert_eq!(shell.text(&["delete-records", "t", "--before", "end"]), "t:0:3\n");
    assert_eq!(shell.text(&["consume", "t"]), "");
    let beyond = shell.run(&["delete-records", "t", "--before", "4"]);
    assert_eq!(beyond.status.code(), Some(1));
    assert_eq!(shell.run(&["delete-records", "t", "--before", "-5"]).status.code(), Some(2));
}
