//! The workloads of `benches/workloads` on the crates one would pick instead, ours and the raw limits in the same
//! process and the same rounds.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- [--only …] [--peers a,b] [--quick] [--json FILE]`

use std::process::ExitCode;

use crate::subject::Subject;

#[path = "../../workloads/append.rs"]
mod append;
#[path = "../../workloads/arguments.rs"]
mod arguments;
#[path = "../../workloads/child.rs"]
mod child;
#[path = "../../workloads/latency.rs"]
mod latency;
#[path = "../../workloads/machine.rs"]
mod machine;
#[path = "../../workloads/ours.rs"]
mod ours;
#[path = "../../workloads/payload.rs"]
mod payload;
#[path = "../../workloads/points.rs"]
mod points;
#[path = "../../workloads/process.rs"]
mod process;
#[path = "../../workloads/raw.rs"]
mod raw;
#[path = "../../workloads/raw_files.rs"]
mod raw_files;
#[path = "../../workloads/raw_futex.rs"]
mod raw_futex;
#[path = "../../workloads/raw_memory.rs"]
mod raw_memory;
#[path = "../../workloads/raw_sync.rs"]
mod raw_sync;
#[path = "../../workloads/reopen.rs"]
mod reopen;
#[path = "../../workloads/report.rs"]
mod report;
#[path = "../../workloads/resources.rs"]
mod resources;
#[path = "../../workloads/runner.rs"]
mod runner;
#[path = "../../workloads/scan.rs"]
mod scan;
#[path = "../../workloads/subject.rs"]
mod subject;
#[path = "../../workloads/suite.rs"]
mod suite;
#[path = "../../workloads/synced.rs"]
mod synced;
#[path = "../../workloads/threads.rs"]
mod threads;

mod commitlog_peer;
mod fjall_peer;
mod kafko_peer;
mod mrecordlog_peer;
mod okaywal_peer;
mod raft_engine_peer;
mod redb_peer;
mod seglog_peer;
mod sqlite_peer;
mod walrus_peer;
mod yaque_peer;

fn main() -> ExitCode {
    walrus_peer::silence();
    let mut subjects: Vec<&dyn Subject> = vec![&ours::Ottla];
    subjects.extend(raw::SUBJECTS);
    let peers: [&dyn Subject; 11] = [
        &kafko_peer::Kafko,
        &walrus_peer::Walrus,
        &commitlog_peer::Commitlog,
        &seglog_peer::Seglog,
        &okaywal_peer::Okaywal,
        &yaque_peer::Yaque,
        &raft_engine_peer::RaftEngine,
        &mrecordlog_peer::Mrecordlog,
        &fjall_peer::Fjall,
        &redb_peer::Redb,
        &sqlite_peer::Sqlite,
    ];
    subjects.extend(peers);
    suite::main(&subjects)
}
