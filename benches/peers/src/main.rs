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
#[path = "../../workloads/raw_many.rs"]
mod raw_many;
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
#[path = "../../workloads/scale.rs"]
mod scale;
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

#[cfg(feature = "commitlog")]
mod commitlog_peer;
#[cfg(feature = "fjall")]
mod fjall_peer;
#[cfg(feature = "kafko")]
mod kafko_peer;
#[cfg(feature = "mrecordlog")]
mod mrecordlog_peer;
#[cfg(feature = "okaywal")]
mod okaywal_peer;
#[cfg(feature = "raft-engine")]
mod raft_engine_peer;
#[cfg(feature = "redb")]
mod redb_peer;
#[cfg(feature = "seglog")]
mod seglog_peer;
#[cfg(feature = "sqlite")]
mod sqlite_peer;
#[cfg(feature = "walrus")]
mod walrus_peer;
#[cfg(feature = "yaque")]
mod yaque_peer;

fn main() -> ExitCode {
    #[cfg(feature = "walrus")]
    walrus_peer::silence();
    let mut subjects: Vec<&dyn Subject> = vec![&ours::Ottla];
    subjects.extend(raw::SUBJECTS);
    let peers: &[&dyn Subject] = &[
        #[cfg(feature = "kafko")]
        &kafko_peer::Kafko,
        #[cfg(feature = "walrus")]
        &walrus_peer::Walrus,
        #[cfg(feature = "commitlog")]
        &commitlog_peer::Commitlog,
        #[cfg(feature = "seglog")]
        &seglog_peer::Seglog,
        #[cfg(feature = "okaywal")]
        &okaywal_peer::Okaywal,
        #[cfg(feature = "yaque")]
        &yaque_peer::Yaque,
        #[cfg(feature = "raft-engine")]
        &raft_engine_peer::RaftEngine,
        #[cfg(feature = "mrecordlog")]
        &mrecordlog_peer::Mrecordlog,
        #[cfg(feature = "fjall")]
        &fjall_peer::Fjall,
        #[cfg(feature = "redb")]
        &redb_peer::Redb,
        #[cfg(feature = "sqlite")]
        &sqlite_peer::Sqlite,
    ];
    subjects.extend(peers);
    suite::main(&subjects)
}
