//! Requests and replies on the command line.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use ottla::Store;

use crate::cli::Shell;
use crate::cli::errors;
use crate::cli::wait_at_most;

const LIMIT: Duration = Duration::from_secs(60);

/// Starts `ottla reply` for the topic `t`.
fn replying(shell: &Shell, options: &[&str], command: &[&str]) -> Child {
    let args = [&["reply", "t", "-g", "g"], options, &["--"], command].concat();
    shell.command(&args).spawn().unwrap()
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Each line's value; asserts that there is a latency in front of it.
fn values(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let value = |line: &str| {
        let (latency, value) = line.split_once('\t').unwrap();
        assert!(latency.parse::<f64>().unwrap() >= 0.0, "{line}");
        value.to_owned()
    };
    text.lines().map(value).collect()
}

#[test]
fn requests_of_one_process_are_answered_by_a_command_of_another_in_order() {
    let shell = Shell::with_topic(3);
    let replying = replying(&shell, &["-j", "3"], &["tr", "a-z", "A-Z"]);
    for round in 0..3 {
        let input: String = (0..20).map(|n| format!("line {round} {n}\n")).collect();
        let output = shell.feed(&["request", "t", "--timeout", "50000"], input.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let expected: Vec<String> = input.to_uppercase().lines().map(str::to_owned).collect();
        assert_eq!(values(&output), expected);
    }
    interrupt(&replying);
    let output = wait_at_most(replying, LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(errors(&output), "60 requests answered, 0 not\n");
    let described = shell.text(&["group", "describe", "g"]);
    let lags = described.lines().skip(1).map(|line| line.split_whitespace().nth(5).unwrap());
    assert!(lags.clone().all(|lag| lag == "0") && lags.count() == 3, "{described}");
}

#[test]
fn who_types_gets_an_answer_to_each_line_before_the_next() {
    let shell = Shell::with_topic(1);
    let replying = replying(&shell, &[], &["cat"]);
    let mut asking = shell
        .command(&["request", "t", "--timeout", "50000"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = asking.stdin.take().unwrap();
    let mut output = BufReader::new(asking.stdout.take().unwrap());
    for line in ["first", "", "third"] {
        writeln!(input, "{line}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        assert_eq!(answer.split_once('\t').unwrap().1, format!("{line}\n"));
    }
    drop(input);
    assert_eq!(wait_at_most(asking, LIMIT).status.code(), Some(0));
    interrupt(&replying);
    wait_at_most(replying, LIMIT);
}

#[test]
fn requests_wait_in_the_log_for_whoever_answers_later() {
    let shell = Shell::with_topic(1);
    let output = shell.feed(&["request", "t", "--timeout", "1"], b"a\nb\n");
    assert_eq!(output.status.code(), Some(1));
    let said = "ottla: line 1: no reply within 1 ms\nottla: line 2: no reply within 1 ms\n\
                ottla: 2 of 2 requests have no reply\n";
    assert_eq!(errors(&output), said);
    assert!(output.stdout.is_empty());
    let output = wait_at_most(replying(&shell, &["--exit"], &["tr", "ab", "xy"]), LIMIT);
    assert_eq!(errors(&output), "2 requests answered, 0 not\n");
    assert_eq!(shell.text(&["consume", "t.replies"]), "x\ny\n");
    // Nothing is left to be answered again.
    let output = wait_at_most(replying(&shell, &["-e"], &["cat"]), LIMIT);
    assert_eq!(errors(&output), "0 requests answered, 0 not\n");
}

#[test]
fn a_command_that_fails_is_an_error_for_the_one_who_asked() {
    let shell = Shell::with_topic(1);
    let script = "read -r word; test \"$word\" = good && printf 'fine\\n\\n'";
    let replying = replying(&shell, &[], &["sh", "-c", script]);
    let input = b"good\nbad\ngood\n";
    let output = shell.feed(&["request", "t", "--timeout", "50000"], input);
    assert_eq!(output.status.code(), Some(1));
    // One last newline goes, others are the reply's.
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("\tfine\n\n").count(), 2);
    let said = "ottla: line 2: the request failed: sh ended with exit status: 1\n\
                ottla: 1 of 3 requests have no reply\n";
    assert_eq!(errors(&output), said);
    interrupt(&replying);
    let output = wait_at_most(replying, LIMIT);
    assert_eq!(
        (output.status.code(), errors(&output)),
        (Some(0), "2 requests answered, 1 not\n".into())
    );
}

#[test]
fn a_request_larger_than_a_pipe_comes_back_whole() {
    let shell = Shell::with_topic(1);
    let line = "x".repeat(500_000);
    let replying = replying(&shell, &[], &["cat"]);
    let output = shell.feed(&["request", "t", "--timeout", "50000"], line.as_bytes());
    assert_eq!(values(&output), [line]);
    interrupt(&replying);
    wait_at_most(replying, LIMIT);
}

#[test]
fn an_interrupt_lets_the_command_finish_what_it_has_begun() {
    let shell = Shell::with_topic(1);
    shell.feed(&["request", "t", "--timeout", "1"], b"a\nb\n");
    let begun = shell.path().join("begun");
    let script = format!("touch {}; sleep 1; cat", begun.display());
    let replying = replying(&shell, &[], &["sh", "-c", &script]);
    while !begun.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&replying);
    let output = wait_at_most(replying, LIMIT);
    assert_eq!(
        (output.status.code(), errors(&output)),
        (Some(0), "1 requests answered, 0 not\n".into())
    );
    assert_eq!(shell.text(&["consume", "t.replies"]), "a\n");
}

#[test]
fn while_an_application_holds_the_directory_both_say_so_and_change_nothing() {
    let shell = Shell::with_topic(1);
    let store = Store::open(shell.path()).unwrap();
    let output = shell.feed(&["request", "t", "--timeout", "50"], b"a\n");
    assert_eq!(output.status.code(), Some(1));
    let said = errors(&output);
    assert!(said.contains("is in use by another writer"), "{said}");
    assert!(said.contains("was so for 50 ms"), "{said}");
    assert!(said.contains("written by one process at a time"), "{said}");
    let output = wait_at_most(replying(&shell, &[], &["cat"]), LIMIT);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("is in use by another writer"), "{}", errors(&output));
    assert_eq!(store.topic("t").unwrap().partition(0).unwrap().watermarks().unwrap(), (0, 0));
}

#[test]
fn what_is_wrong_from_the_start_is_said_before_anything_is_answered() {
    let shell = Shell::with_topic(1);
    shell.feed(&["request", "t", "--timeout", "1"], b"a\n");
    for (args, code, said) in [
        (&["request", "nope"][..], 1, "no topic is named `nope`; create it"),
        (&["request"], 2, "TOPIC"),
        (&["request", "t", "--timeout", "soon"], 2, "--timeout"),
        (&["reply", "t", "--", "cat"], 2, "--group"),
        (&["reply", "t", "-g", "g"], 2, "COMMAND"),
        (&["reply", "t", "-g", "", "--", "cat"], 1, "is not a group id"),
        (&["reply", "nope", "-g", "g", "--", "cat"], 1, "no topic is named `nope`"),
        (&["reply", "t", "-g", "g", "--", "no-such-command"], 1, "there is no command"),
        (&["reply", "t", "-g", "g", "--", "/etc/passwd"], 1, "there is no command"),
    ] {
        let output = shell.feed(args, b"line\n");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", errors(&output));
        assert!(errors(&output).contains(said), "{args:?}: {}", errors(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(shell.text(&["offsets", "t.replies"]), "t.replies:0:0\n");
    let nowhere = Shell::new();
    let output = nowhere.feed(&["request", "t"], b"a\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(!nowhere.path().exists());
}
