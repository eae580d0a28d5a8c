//! What recovery found, and what has failed since: what a directory's health is told from.

use crate::error::Error;
use crate::partition::finding::Finding;
use crate::topics::Topics;

impl Topics {
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.lock().clone();
        for (_, _, partition) in self.all_open() {
            let path = partition.directory().to_path_buf();
            let is_told = |f: &Finding| matches!(f, Finding::Latched { path: p, .. } if *p == path);
            if let Some(reason) = partition.latch_reason() {
                if !findings.iter().any(is_told) {
                    findings.push(Finding::Latched { path, reason: reason.to_string() });
                }
            }
        }
        findings
    }

    pub(crate) fn note(&self, finding: Finding) {
        self.findings.lock().push(finding);
    }

    pub(crate) fn note_panic(&self) {
        let path = self.root.clone();
        self.note(Finding::Nuisance { path, reason: "a background chore panicked".into() });
    }

    /// Notes a chore's failure, unless the same one is on record.
    pub(crate) fn note_once(&self, what: &str, error: &Error) {
        let reason = format!("{what}: {error}");
        self.note_finding_once(Finding::Nuisance { path: self.root.clone(), reason });
    }

    /// Notes a finding unless it is on record.
    pub(crate) fn note_finding_once(&self, finding: Finding) {
        let mut findings = self.findings.lock();
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
}
