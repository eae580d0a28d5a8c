//! `ottla reply`: a command answers the requests of a topic.
//!
//! A directory has one writer at a time. While there are requests to answer this command is the writer; while there are
//! none it only looks, so that others can send.

use std::env;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ottla::Message;
use ottla::Reply;
use ottla::ResponderStatus;
use ottla::Start;
use ottla::Store;

use crate::args::ReplyArgs;
use crate::failure::Failure;
use crate::request;
use crate::signals::Stop;
use crate::terminal;

pub(crate) fn run(root: &Path, args: &ReplyArgs) -> Result<(), Failure> {
    let command: Arc<[String]> = args.command.clone().into();
    // A command that is not there would answer every request with an error.
    find(&command[0])?;
    // Before the store has threads of its own, which would take the signals.
    let stop = Stop::on_signals()?;
    let (mut answered, mut failed) = (0, 0);
    loop {
        let (status, ends) = answer(root, args, &command, &stop)?;
        answered += status.answered + status.not_asked;
        failed += status.failed + status.malformed + status.undeliverable;
        if args.exit || stop.is_asked() || !wait_for_more(root, &args.topic, &ends, &stop)? {
            terminal::tell(format_args!("{answered} requests answered, {failed} not"));
            return Ok(());
        }
    }
}

/// Answers what there is; gives what became of it, and where each partition ended.
fn answer(
    root: &Path,
    args: &ReplyArgs,
    command: &Arc<[String]>,
    stop: &Stop,
) -> Result<(ResponderStatus, Vec<i64>), Failure> {
    let store = request::open_in_turn(root, OTHERS_MAY_TAKE)?;
    let topic = store.topic(&args.topic);
    let topic = topic.map_err(|error| request::unknown(error, &args.topic))?;
    let command = Arc::clone(command);
    let responder = store
        .responder(&topic, &args.group)
        .threads(args.threads)
        .start(move |message| run_command(&command, message))?;
    let is_over = || stop.is_asked() || responder.status().threads == 0;
    while !responder.wait_idle(LOOK_EVERY)? && !is_over() {}
    let partitions = topic.partitions();
    let ends = partitions.iter().map(|partition| Ok(partition.watermarks()?.1));
    let ends = ends.collect::<ottla::Result<Vec<i64>>>()?;
    // What is being answered is answered, and what was answered is put on record.
    let closed = responder.close();
    drop((partitions, topic));
    store.close()?;
    Ok((closed?, ends))
}

/// Waits until something was appended behind these ends, without holding the directory; `false` if the end was asked
/// for.
fn wait_for_more(root: &Path, topic: &str, ends: &[i64], stop: &Stop) -> Result<bool, Failure> {
    let store = Store::open_read_only(root)?;
    let partitions = store.topic(topic)?.partitions().into_iter().enumerate();
    let starts = partitions.map(|(number, partition)| {
        (partition, ends.get(number).map_or(Start::Earliest, |end| Start::Offset(*end)))
    });
    let mut consumer = store.consumer().max_poll_records(1).assign(starts)?;
    while !stop.is_asked() {
        if !consumer.poll(LOOK_EVERY)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Those who send hold the directory for no longer than it takes.
const OTHERS_MAY_TAKE: Duration = Duration::from_secs(5);

/// Has the command answer: the request's value is its standard input, its standard output is the reply.
fn run_command(command: &[String], message: &Message<'_>) -> Result<Reply, String> {
    let name = &command[0];
    let failed = |error: io::Error| format!("cannot run {name}: {error}");
    let mut child = Command::new(name)
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // An interrupt is for us: what has begun is answered.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take();
    let value = message.value().unwrap_or_default();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A command need not read what it is told; its exit status says whether it has done its work.
            drop(stdin.as_mut().map(|stdin| stdin.write_all(value)));
        });
        child.wait_with_output()
    });
    let output = output.map_err(failed)?;
    if !output.status.success() {
        return Err(format!("{name} ended with {}", output.status));
    }
    let mut reply = output.stdout;
    if reply.last() == Some(&b'\n') {
        reply.pop();
    }
    Ok(Reply::new(reply))
}

/// Finds a command as the system will.
fn find(name: &str) -> Result<(), Failure> {
    let is_executable = |path: PathBuf| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let is_there = match name.contains('/') {
        true => is_executable(PathBuf::from(name)),
        false => {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).any(|directory| is_executable(directory.join(name)))
        }
    };
    match is_there {
        true => Ok(()),
        false => Err(Failure::Other(format!("there is no command `{name}`"))),
    }
}
