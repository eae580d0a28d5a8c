//! Groups on the command line: reading as a member of one, looking at them, setting them elsewhere.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ottla::Record;
use ottla::Store;
use ottla::TopicConfig;
use serde_json::Value;
use serde_json::json;

use crate::cli::GOLDEN;
use crate::cli::Shell;
use crate::cli::errors;
use crate::cli::wait_at_most;
use crate::golden::copy_tree;

/// Each line's cells, without the head.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

/// What a group has committed of `t`, by partition.
fn committed(shell: &Shell, group: &str) -> Vec<i64> {
    let printed = shell.text(&["group", "describe", group, "-o", "json"]);
    let described: Value = serde_json::from_str(&printed).unwrap();
    let partitions = described["partitions"].as_array().unwrap().iter();
    partitions.map(|partition| partition["current_offset"].as_i64().unwrap()).collect()
}

/// A directory with a topic of two partitions and so many lines in each, which say where they are.
fn shell_with_lines(count: usize) -> Shell {
    let shell = Shell::with_topic(2);
    for partition in ["0", "1"] {
        let lines: String = (0..count).map(|n| format!("{partition} {n}\n")).collect();
        shell.produce(&["-p", partition], lines.as_bytes());
    }
    shell
}

/// The lines of each of two partitions.
fn parted(text: &str) -> [Vec<&str>; 2] {
    ["0 ", "1 "].map(|front| text.lines().filter(|line| line.starts_with(front)).collect())
}

/// Asserts that two runs printed everything, each partition in order, and no whole line twice.
fn assert_they_join(one: &str, other: &str, all: &str) {
    for (number, all) in parted(all).into_iter().enumerate() {
        let joined = [&parted(one)[number][..], &parted(other)[number][..]].concat();
        assert!(joined == all, "partition {number}: {} lines of {}", joined.len(), all.len());
    }
}

/// A directory that Kafka wrote, with what its consumers committed.
fn kafkas_directory() -> Shell {
    let shell = Shell::new();
    std::fs::create_dir(shell.path()).unwrap();
    copy_tree(&Path::new(GOLDEN).join("clean"), &shell.path());
    shell
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let shell = Shell::with_topic(1);
    shell.produce(&[], b"a\nb\nc\n");
    assert_eq!(shell.text(&["consume", "-g", "g", "t", "-c", "2"]), "a\nb\n");
    assert_eq!(committed(&shell, "g"), [2]);
    assert_eq!(shell.text(&["consume", "-g", "g", "t"]), "c\n");
    assert_eq!(shell.text(&["consume", "-g", "g", "t", "-e"]), "");
    shell.produce(&[], b"d\n");
    assert_eq!(shell.text(&["consume", "-g", "g", "t", "-c", "0"]), "");
    assert_eq!(shell.text(&["consume", "-g", "g", "t", "-f", "%o=%s"]), "3=d");
    assert_eq!(shell.text(&["consume", "-g", "other", "t"]), "a\nb\nc\nd\n");
    assert_eq!(shell.text(&["group", "ls"]), "g\nother\n");
    // Without a group nothing is committed, and nothing of it is noticed.
    assert_eq!(shell.text(&["consume", "t"]), "a\nb\nc\nd\n");
    shell.ok(&["check"]);
}

#[test]
fn a_count_may_end_in_any_partition_and_batch() {
    let shell = shell_with_lines(10);
    let all: BTreeSet<String> = shell.text(&["consume", "t"]).lines().map(str::to_owned).collect();
    let mut seen = Vec::new();
    for count in ["1", "7", "4", "0", "3", "9"] {
        let printed = shell.text(&["consume", "-g", "g", "t", "-c", count]);
        seen.extend(printed.lines().map(str::to_owned));
        assert_eq!(committed(&shell, "g").iter().sum::<i64>(), seen.len() as i64);
    }
    assert_eq!(seen.len(), 20);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn a_group_may_read_several_topics_and_those_that_match() {
    let shell = Shell::new();
    for (topic, line) in [("log-a", "a"), ("log-b", "b"), ("other", "o")] {
        shell.ok(&["topic", "create", topic]);
        shell.feed(&["produce", topic], line.as_bytes());
    }
    assert_eq!(shell.text(&["consume", "-g", "named", "other", "log-a"]), "a\no\n");
    assert_eq!(shell.text(&["consume", "-g", "fitting", "--pattern", "log-.*"]), "a\nb\n");
    shell.ok(&["topic", "create", "log-c"]);
    shell.feed(&["produce", "log-c"], b"c");
    assert_eq!(shell.text(&["consume", "-g", "fitting", "--pattern", "log-.*"]), "c\n");
    let nothing = shell.run(&["consume", "-g", "g", "--pattern", "log"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(errors(&nothing).contains("no topic matches"), "{}", errors(&nothing));
}

#[test]
fn where_a_group_begins_is_said_once() {
    let shell = Shell::with_topic(1);
    shell.produce(&["-t"], b"10\ta\n20\tb\n30\tc\n");
    for (group, start, printed) in [
        ("beginning", "beginning", "a\nb\nc\n"),
        ("end", "end", ""),
        ("offset", "1", "b\nc\n"),
        ("last", "-1", "c\n"),
        ("time", "@20", "b\nc\n"),
    ] {
        assert_eq!(shell.text(&["consume", "-g", group, "t", "-o", start]), printed, "{start}");
        assert_eq!(committed(&shell, group), [3], "{start}");
        assert_eq!(shell.text(&["consume", "-g", group, "t", "-o", "beginning"]), "", "{start}");
    }
    let beyond = shell.run(&["consume", "-g", "beyond", "t", "-o", "4"]);
    assert_eq!(beyond.status.code(), Some(1));
    assert!(errors(&beyond).contains("offset 4 of t-0 is out of range"), "{}", errors(&beyond));
    assert_eq!(shell.text(&["consume", "-g", "beyond", "t", "-o", "2"]), "c\n");
}

#[test]
fn a_member_may_have_a_name_and_an_assignor() {
    let shell = shell_with_lines(1);
    let args = ["consume", "-g", "g", "t", "--instance-id", "i", "--assignor", "range"];
    assert_eq!(shell.text(&args), "0 0\n1 0\n");
    assert_eq!(
        rows(&shell.text(&["group", "describe", "g", "--state"])),
        [["g", "range", "Empty", "0"]]
    );
}

/// A member that prints more than a pipe holds, and that somebody has begun to read.
fn stalled_member(shell: &Shell) -> (Child, BufReader<ChildStdout>, String) {
    let mut member = shell.command(&["consume", "-g", "g", "t"]).spawn().unwrap();
    let mut printed = BufReader::with_capacity(100, member.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    (member, printed, line)
}

fn send(signal: &str, child: &Child) {
    let line = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
}

/// Waits until the signal that was sent to a process is not waiting for it any more.
fn wait_until_it_has_heard(child: &Child) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mut masks = status
            .lines()
            .filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
        let is_waiting = |mask: &str| u64::from_str_radix(mask.trim(), 16).unwrap() != 0;
        if !masks.any(is_waiting) {
            // It is being taken: one moment until the handler has noted it.
            thread::sleep(Duration::from_millis(20));
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_interrupted_member_has_committed_exactly_what_it_printed() {
    for signal in ["INT", "TERM"] {
        let shell = shell_with_lines(20_000);
        let all = shell.text(&["consume", "t"]);
        let (member, mut printed, mut text) = stalled_member(&shell);
        send(signal, &member);
        wait_until_it_has_heard(&member);
        printed.read_to_string(&mut text).unwrap();
        let output = wait_at_most(member, Duration::from_secs(30));
        assert_eq!(output.status.code(), Some(0), "{signal}: {}", errors(&output));
        assert_eq!(errors(&output), "", "{signal}");
        assert!(text.ends_with('\n') && text.len() < all.len(), "{signal}");
        assert_eq!(committed(&shell, "g").iter().sum::<i64>(), text.lines().count() as i64);
        let rest = shell.text(&["consume", "-g", "g", "t"]);
        assert_they_join(&text, &rest, &all);
        shell.ok(&["check"]);
    }
}

/// Asserts that a member that was killed when it had printed `text` has committed no more than that.
fn assert_nothing_is_skipped(shell: &Shell, text: &str) {
    let rest = shell.text(&["consume", "-g", "g", "t"]);
    let all = shell.text(&["consume", "t"]);
    for (number, all) in parted(&all).into_iter().enumerate() {
        let (printed, rest) = (&parted(text)[number], &parted(&rest)[number]);
        assert!(all.ends_with(rest), "partition {number}: it goes on where a commit was");
        let whole = printed.iter().zip(&all).take_while(|(one, other)| one == other).count();
        // At most the last line was cut off.
        assert!(whole + 1 >= printed.len(), "partition {number}");
        assert!(whole + rest.len() >= all.len(), "partition {number}: {whole} and {}", rest.len());
    }
}

#[test]
fn a_second_interrupt_does_not_wait_for_the_reader() {
    let shell = shell_with_lines(20_000);
    let (member, mut printed, mut text) = stalled_member(&shell);
    send("INT", &member);
    wait_until_it_has_heard(&member);
    send("INT", &member);
    let output = wait_at_most(member, Duration::from_secs(30));
    // The first may have cut the write short that waited for the reader: then it has ended in order.
    let code = output.status.code();
    assert!(matches!(code, None | Some(0)), "{code:?} {}", errors(&output));
    printed.read_to_string(&mut text).unwrap();
    assert_nothing_is_skipped(&shell, &text);
}

#[test]
fn a_member_whose_reader_leaves_has_committed_whole_records_that_it_printed() {
    let shell = shell_with_lines(20_000);
    let all = shell.text(&["consume", "t"]);
    let (member, printed, _) = stalled_member(&shell);
    drop(printed);
    let output = wait_at_most(member, Duration::from_secs(30));
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(errors(&output), "");
    let done = committed(&shell, "g").iter().sum::<i64>();
    // What the pipe took, and not the rest of what was read from the log at a time.
    assert!((1..20_000).contains(&done), "{done}");
    let rest = shell.text(&["consume", "-g", "g", "t"]);
    let taken: String = all.lines().take(done as usize).map(|line| format!("{line}\n")).collect();
    assert_they_join(&taken, &rest, &all);
}

#[test]
fn a_killed_member_skips_nothing() {
    let shell = shell_with_lines(20_000);
    let (mut member, mut printed, mut text) = stalled_member(&shell);
    // Read on, so that the kill comes anywhere: within a write, a commit, or between.
    for _ in 0..10_000 {
        printed.read_line(&mut text).unwrap();
    }
    member.kill().unwrap();
    printed.read_to_string(&mut text).unwrap();
    wait_at_most(member, Duration::from_secs(30));
    assert_nothing_is_skipped(&shell, &text);
    shell.ok(&["check"]);
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure_and_commits_nothing_beyond() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let shell = shell_with_lines(3);
    let file = std::fs::OpenOptions::new().write(true).open(full).unwrap();
    let output = shell.command(&["consume", "-g", "g", "t"]).stdout(file).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(!errors(&output).is_empty());
    assert_eq!(shell.text(&["consume", "-g", "g", "t"]).lines().count(), 6);
}

#[test]
fn a_group_is_described_in_kafkas_columns_and_in_json() {
    let shell = Shell::with_topic(2);
    shell.produce(&["-p", "0", "-t"], b"10\ta\n20\tb\n30\tc\n");
    shell.ok(&["consume", "-g", "g", "t", "-c", "1"]);
    let output = shell.run(&["group", "describe", "g"]);
    assert!(errors(&output).contains("group `g` has no active members"), "{}", errors(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        head,
        [
            "GROUP",
            "TOPIC",
            "PARTITION",
            "CURRENT-OFFSET",
            "LOG-END-OFFSET",
            "LAG",
            "CONSUMER-ID",
            "HOST",
            "CLIENT-ID",
            "TIME-LAG"
        ]
    );
    let rows_now = rows(&table);
    assert_eq!(rows_now.len(), 1);
    assert_eq!(rows_now[0][..9], ["g", "t", "0", "1", "3", "2", "-", "-", "-"]);
    assert!(rows_now[0][9].contains('d') && rows_now[0][9].ends_with('h'), "{table}");

    let printed = shell.text(&["group", "describe", "g", "-o", "json"]);
    let mut described: Value = serde_json::from_str(&printed).unwrap();
    let partition = described["partitions"][0].as_object_mut().unwrap();
    let time_lag = partition.remove("time_lag_ms").unwrap().as_i64().unwrap();
    assert!(time_lag > 1_000_000_000, "{time_lag}");
    assert!(partition.remove("commit_ms").unwrap().as_i64().unwrap() > 1_000_000_000);
    assert!(described.as_object_mut().unwrap().remove("generation").unwrap().is_i64());
    assert_eq!(
        described,
        json!({"group": "g", "state": "Empty", "assignor": null, "members": [], "partitions": [{
            "topic": "t", "partition": 0, "current_offset": 1, "metadata": "",
            "log_start_offset": 0, "log_end_offset": 3, "lag": 2, "deleted_unread": 0, "oldest_unread_ms": 20,
            "member_id": null
        }]})
    );
    shell.ok(&["consume", "-g", "g", "t"]);
    let table = shell.text(&["group", "describe", "g"]);
    assert_eq!(rows(&table)[0][3..], ["3", "3", "0", "-", "-", "-", "0s"]);
    assert_eq!(shell.text(&["group", "ls", "-l"]), "g\tEmpty\t0\t0\n");
    let listed: Value = serde_json::from_str(&shell.text(&["group", "ls", "-o", "json"])).unwrap();
    assert_eq!(listed, json!({"group": "g", "state": "Empty", "members": 0, "lag": 0}));
}

#[test]
fn groups_are_seen_and_planned_for_while_an_application_holds_the_directory() {
    let shell = Shell::new();
    let store = Store::open(shell.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    for n in 0..4 {
        store.producer().send(&topic, Record::new("v").partition(n % 2)).unwrap().wait().unwrap();
    }
    let builder = store.consumer().client_id("worker").instance_id("i");
    let mut member = builder.subscribe("g", &topic).unwrap();
    member.poll(Duration::ZERO).unwrap();
    member.commit_offsets([(topic.partition(0).unwrap(), 1)]).unwrap();
    let id = member.member_id().unwrap().to_owned();

    let table = shell.text(&["group", "describe", "g"]);
    let seen = rows(&table);
    assert_eq!(seen[0][..9], ["g", "t", "0", "1", "2", "1", &id, "/127.0.0.1", "worker"]);
    assert_eq!(seen[1][..9], ["g", "t", "1", "-", "2", "-", &id, "/127.0.0.1", "worker"]);
    assert_eq!(
        rows(&shell.text(&["group", "describe", "g", "--members"])),
        [["g", &id, "i", "/127.0.0.1", "worker", "2", "t(0,1)"]]
    );
    assert_eq!(
        rows(&shell.text(&["group", "describe", "g", "--state"])),
        [["g", "uniform", "Stable", "1"]]
    );
    assert_eq!(shell.text(&["group", "ls", "-l"]), "g\tStable\t1\t1\n");
    let planned =
        shell.text(&["group", "reset-offsets", "g", "--topic", "t", "--to-latest", "--dry-run"]);
    assert_eq!(rows(&planned), [["g", "t", "0", "2", "1"], ["g", "t", "1", "2", "-"]]);

    for args in [
        &["group", "reset-offsets", "g", "--all-topics", "--to-latest"][..],
        &["group", "rm", "g"],
        &["group", "delete-offsets", "g", "--topic", "t"],
        &["consume", "-g", "g", "t"],
    ] {
        let refused = shell.run(args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        let said = errors(&refused);
        assert!(said.contains("group `g` has a member"), "{args:?}: {said}");
        assert!(said.contains("in use by another writer"), "{args:?}: {said}");
        assert!(refused.stdout.is_empty(), "{args:?}");
    }
    drop(member);
    let refused = errors(&shell.run(&["group", "rm", "g"]));
    assert!(!refused.contains("has a member") && refused.contains("in use"), "{refused}");
    drop((topic, store));
    shell.ok(&["group", "rm", "g"]);
}

#[test]
fn a_member_without_partitions_is_seen_too() {
    let shell = Shell::new();
    let store = Store::open(shell.path()).unwrap();
    let topic = store.create_topic("t", TopicConfig::new()).unwrap();
    let join = |name| store.consumer().client_id(name).subscribe("g", &topic).unwrap();
    let mut members = [join("one"), join("two")];
    for _ in 0..2 {
        members.iter_mut().for_each(|member| drop(member.poll(Duration::ZERO).unwrap()));
    }
    let table = shell.text(&["group", "describe", "g"]);
    let seen = rows(&table);
    assert_eq!(seen.len(), 2, "{table}");
    assert_eq!(seen[0][..6], ["g", "t", "0", "-", "0", "-"]);
    assert_eq!(seen[1][..6], ["g", "-", "-", "-", "-", "-"]);
    let table = shell.text(&["group", "describe", "g", "--members"]);
    let ends: BTreeSet<Vec<&str>> = rows(&table).iter().map(|row| row[5..].to_vec()).collect();
    assert_eq!(ends, BTreeSet::from([vec!["0", "-"], vec!["1", "t(0)"]]));
}

#[test]
fn offsets_are_reset_to_wherever_one_wants() {
    let shell = Shell::with_topic(2);
    shell.produce(&["-p", "0", "-t"], b"10\ta\n20\tb\n30\tc\n1000000000000\td\n");
    shell.produce(&["-p", "1", "-t"], b"20\te\n");
    shell.ok(&["consume", "-g", "g", "t", "-c", "2"]);
    let reset = |what: &[&str]| -> Vec<i64> {
        let args = [&["group", "reset-offsets", "g"], what].concat();
        let planned = shell.text(&[&args[..], &["--dry-run"]].concat());
        let before = shell.text(&["group", "describe", "g", "-o", "json"]);
        assert_eq!(shell.text(&args), planned, "{what:?}");
        assert!(before != shell.text(&["group", "describe", "g", "-o", "json"]), "{what:?}");
        let rows = rows(&planned);
        rows.iter().map(|row| row[3].parse().unwrap()).collect()
    };
    assert_eq!(reset(&["--all-topics", "--to-earliest"]), [0]);
    assert_eq!(reset(&["--topic", "t", "--to-latest"]), [4, 1]);
    assert_eq!(reset(&["--topic", "t:0", "--shift-by", "-3"]), [1]);
    assert_eq!(reset(&["--topic", "t:0", "--shift-by", "100"]), [4]);
    assert_eq!(reset(&["--all-topics", "--to-offset", "1"]), [1, 1]);
    assert_eq!(reset(&["--topic", "t:0,1", "--to-datetime", "1970-01-01T00:00:00.021"]), [2, 1]);
    assert_eq!(reset(&["--all-topics", "--to-datetime", "@20"]), [1, 0]);
    assert_eq!(reset(&["--all-topics", "--by-duration", "P3650000D"]), [0, 0]);
    assert_eq!(reset(&["--all-topics", "--by-duration", "1s"]), [4, 1]);
    assert_eq!(committed(&shell, "g"), [4, 1]);
    // A group that is not there yet comes into being; behind the end where it was nowhere.
    let args = ["group", "reset-offsets", "new", "--topic", "t:1", "--to-current"];
    assert_eq!(rows(&shell.text(&args)), [["new", "t", "1", "1", "-"]]);
    let args = ["group", "reset-offsets", "new", "--topic", "t", "--to-current", "-o", "json"];
    let changed: Vec<Value> =
        shell.text(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        changed,
        [
            json!({"group": "new", "topic": "t", "partition": 0, "new_offset": 4, "old_offset": null}),
            json!({"group": "new", "topic": "t", "partition": 1, "new_offset": 1, "old_offset": 1}),
        ]
    );
    assert_eq!(committed(&shell, "new"), [4, 1]);
}

#[test]
fn offsets_and_groups_are_deleted() {
    let shell = shell_with_lines(2);
    shell.ok(&["consume", "-g", "g", "t"]);
    let deleted = shell.text(&["group", "delete-offsets", "g", "--topic", "t:1", "-o", "json"]);
    let deleted: Value = serde_json::from_str(&deleted).unwrap();
    assert_eq!(deleted, json!({"group": "g", "topic": "t", "partition": 1, "old_offset": 2}));
    assert_eq!(shell.text(&["consume", "-g", "g", "t"]), "1 0\n1 1\n");
    let table = shell.text(&["group", "delete-offsets", "g", "--topic", "t"]);
    assert_eq!(rows(&table), [["g", "t", "0", "2"], ["g", "t", "1", "2"]]);
    let again = shell.run(&["group", "delete-offsets", "g", "--topic", "t"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(errors(&again).contains("has committed nothing"), "{}", errors(&again));
    // Of a topic that has vanished, too.
    shell.ok(&["topic", "create", "passing"]);
    shell.ok(&["group", "reset-offsets", "g", "--topic", "passing", "--to-earliest"]);
    std::fs::remove_dir_all(shell.path().join("passing-0")).unwrap();
    std::fs::remove_file(shell.path().join("ottla.topics")).unwrap();
    let table = shell.text(&["group", "delete-offsets", "g", "--topic", "passing"]);
    assert_eq!(rows(&table), [["g", "passing", "0", "0"]]);
    let unknown = shell.run(&["group", "delete-offsets", "g", "--topic", "passing"]);
    assert!(errors(&unknown).contains("passing"), "{}", errors(&unknown));
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(shell.text(&["group", "rm", "g"]), "");
    assert_eq!(shell.text(&["group", "ls"]), "");
    assert_eq!(shell.text(&["consume", "-g", "g", "t"]).lines().count(), 4);
    let removed = shell.text(&["group", "rm", "g", "-o", "json"]);
    assert_eq!(removed, "{\"group\":\"g\",\"deleted\":true}\n");
}

#[test]
fn a_name_with_odd_characters_takes_one_line() {
    let shell = shell_with_lines(1);
    let odd = "two\nlines \u{1b}[31m ü";
    shell.ok(&["consume", "-g", odd, "t"]);
    assert_eq!(shell.text(&["group", "ls"]), "two\\nlines \\u{1b}[31m ü\n");
    let listed: Value = serde_json::from_str(&shell.text(&["group", "ls", "-o", "json"])).unwrap();
    assert_eq!(listed["group"], odd);
    assert_eq!(shell.text(&["group", "describe", odd]).lines().count(), 3);
    let unknown = shell.run(&["group", "describe", &"x".repeat(1024)]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn wrong_calls_exit_with_2_and_change_nothing() {
    let shell = shell_with_lines(1);
    shell.ok(&["consume", "-g", "g", "t"]);
    for args in [
        &["group"][..],
        &["group", "describe"],
        &["group", "describe", "g", "--members", "--state"],
        &["group", "ls", "-o", "xml"],
        &["group", "rm"],
        &["group", "reset-offsets", "g"],
        &["group", "reset-offsets", "g", "--to-latest"],
        &["group", "reset-offsets", "g", "--all-topics"],
        &["group", "reset-offsets", "g", "--all-topics", "--topic", "t", "--to-latest"],
        &["group", "reset-offsets", "g", "--all-topics", "--to-latest", "--to-earliest"],
        &["group", "reset-offsets", "g", "--all-topics", "--to-offset", "many"],
        &["group", "reset-offsets", "g", "--all-topics", "--to-datetime", "yesterday"],
        &["group", "reset-offsets", "g", "--all-topics", "--by-duration", "P1M"],
        &["group", "reset-offsets", "g", "--topic", "t:x", "--to-latest"],
        &["group", "reset-offsets", "g", "--topic", "t:", "--to-latest"],
        &["group", "delete-offsets", "g"],
        &["consume", "-g", "g"],
        &["consume", "-g", "g", "t", "-p", "0"],
        &["consume", "-g", "g", "t", "--follow"],
        &["consume", "-g", "g", "t", "--pattern", "t"],
        &["consume", "-g", "g", "--pattern", "("],
        &["consume", "-g", "g", "t", "--assignor", "fair"],
        &["consume", "t", "--instance-id", "i"],
        &["consume", "--pattern", "t"],
        &["consume", "t", "t"],
    ] {
        let output = shell.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", errors(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!errors(&output).is_empty(), "{args:?}");
    }
    assert_eq!(committed(&shell, "g"), [1, 1]);
}

#[test]
fn failures_exit_with_1_say_what_is_wrong_and_change_nothing() {
    let shell = shell_with_lines(1);
    shell.ok(&["consume", "-g", "g", "t"]);
    shell.ok(&["topic", "create", "empty"]);
    shell.ok(&["group", "reset-offsets", "bare", "--topic", "empty", "--to-latest"]);
    shell.ok(&["group", "delete-offsets", "bare", "--topic", "empty"]);
    for (args, said) in [
        (&["group", "describe", "nope"][..], "there is no group `nope`"),
        (&["group", "rm", "nope"], "there is no group `nope`"),
        (&["group", "delete-offsets", "nope", "--topic", "t"], "there is no group `nope`"),
        (&["group", "delete-offsets", "g", "--topic", "nope"], "no topic is named `nope`"),
        (&["group", "delete-offsets", "g", "--topic", "t:2"], "there is no partition 2"),
        (&["group", "describe", ""], "is not a group id"),
        (&["group", "reset-offsets", "nope", "--all-topics", "--to-latest"], "there is no group"),
        (&["group", "reset-offsets", "nope", "--topic", "t", "--shift-by", "1"], "has no offset"),
        (&["group", "reset-offsets", "g", "--topic", "nope", "--to-latest"], "no topic is named"),
        (&["group", "reset-offsets", "g", "--topic", "t:7", "--to-latest"], "no partition 7"),
        (&["group", "reset-offsets", "g", "--topic", "t", "--to-offset", "2"], "out of range"),
        (&["group", "reset-offsets", "g", "--topic", "t", "--to-offset", "-1"], "out of range"),
        (&["group", "reset-offsets", "g", "--topic", "t:0,0", "--to-latest"], "given twice"),
        (
            &["group", "reset-offsets", "g", "--topic", "t:0,0", "--to-latest", "--dry-run"],
            "given twice",
        ),
        (
            &["group", "reset-offsets", "g", "--topic", "t", "--topic", "t", "--to-current"],
            "given twice",
        ),
        (&["consume", "-g", "g", "t", "nope"], "no topic is named `nope`"),
        (&["consume", "-g", "", "t"], "is not a group id"),
    ] {
        let output = shell.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", errors(&output));
        assert!(errors(&output).contains(said), "{args:?}: {}", errors(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(committed(&shell, "g"), [1, 1]);
    let nowhere = Shell::new();
    for args in [&["group", "ls"][..], &["group", "rm", "g"], &["consume", "-g", "g", "t"]] {
        let output = nowhere.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(errors(&output).contains("it does not exist"), "{args:?}: {}", errors(&output));
        assert!(!nowhere.path().exists(), "{args:?} made the directory");
    }
}

#[test]
fn groups_of_a_real_kafka_are_listed_described_and_go_on() {
    let shell = kafkas_directory();
    assert_eq!(shell.text(&["group", "ls"]), "g1\ng2\n");
    // The last of the commits for plain-0 was made in a transaction, and counts.
    assert_eq!(
        rows(&shell.text(&["group", "describe", "g1"]))
            .iter()
            .map(|row| row[..6].to_vec())
            .collect::<Vec<_>>(),
        [["g1", "plain", "0", "77", "500", "423"], ["g1", "plain", "1", "500", "500", "0"]]
    );
    assert_eq!(
        rows(&shell.text(&["group", "describe", "g2"]))[0][..6],
        ["g2", "plain", "1", "42", "500", "458"]
    );
    // Looking has changed nothing.
    let untouched = kafkas_directory();
    let log = "__consumer_offsets-0/00000000000000000000.log";
    let bytes = |shell: &Shell| std::fs::read(shell.path().join(log)).unwrap();
    assert!(bytes(&shell) == bytes(&untouched));

    let printed = shell.text(&["consume", "-g", "g1", "plain", "-f", "%p %o\\n"]);
    let expected: String = (77..500).map(|offset| format!("0 {offset}\n")).collect();
    assert_eq!(printed, expected);
    let printed = shell.text(&["consume", "-g", "g2", "plain", "-f", "%p %o\\n", "-o", "end"]);
    // Kafka's group never came to partition 0, and `-o` is for topics it never came to.
    let first_of = |partition: &str| {
        let offset = printed.lines().find_map(|line| line.strip_prefix(partition));
        offset.map(str::to_owned)
    };
    assert_eq!((first_of("0 "), first_of("1 ")), (Some("0".into()), Some("42".into())));
    assert_eq!(printed.lines().count(), 500 + 458);
    assert_eq!(shell.text(&["group", "ls", "-l"]), "g1\tEmpty\t0\t0\ng2\tEmpty\t0\t0\n");
    let back = ["group", "reset-offsets", "g1", "--topic", "plain:1", "--shift-by", "-2"];
    assert_eq!(rows(&shell.text(&back)), [["g1", "plain", "1", "498", "500"]]);
    assert_eq!(shell.text(&["consume", "-g", "g1", "plain", "-f", "%p %o\\n"]), "1 498\n1 499\n");
    shell.ok(&["group", "rm", "g1"]);
    assert_eq!(shell.text(&["group", "ls"]), "g2\n");
    shell.ok(&["check"]);
}

#[test]
fn what_cannot_be_read_stops_a_group_in_front_of_it() {
    let shell = kafkas_directory();
    let damaged = shell.path().join("c-gzip-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let output = shell.run(&["consume", "-g", "g", "c-none", "c-gzip", "-f", "%t\\n"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("checksum mismatch"), "{}", errors(&output));
    let lag = |topic: &str| {
        let table = shell.text(&["group", "describe", "g"]);
        let rows = rows(&table);
        let row = rows.iter().find(|row| row[1] == topic);
        row.map(|row| row[5].to_owned())
    };
    let printed = String::from_utf8_lossy(&output.stdout).lines().count();
    let read = if printed == 0 { None } else { Some((50 - printed).to_string()) };
    assert_eq!((lag("c-none"), lag("c-gzip")), (read, None));
}
