//! What errors say where something may be known and may be not.

use std::time::Duration;

pub(crate) fn blocked_text(blocked: Duration) -> String {
    match blocked {
        Duration::ZERO => String::new(),
        _ => format!(", and was so for {} ms (max.block.ms)", blocked.as_millis()),
    }
}

pub(crate) fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

pub(crate) fn codec_text(codec: &str) -> String {
    match codec {
        "gzip" | "lz4" | "snappy" | "zstd" => {
            format!(", and this build of ottla does not have the feature `{codec}`")
        }
        _ => ", which ottla does not know".to_owned(),
    }
}

pub(crate) fn resume_text(resume: Option<i64>) -> String {
    resume.map_or_else(String::new, |offset| format!("; reading can go on at offset {offset}"))
}
