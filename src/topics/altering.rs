//! What changes of a topic that is there: its properties, and its number of partitions.

use std::sync::Arc;

use crate::config::LogConfig;
use crate::error::Error;
use crate::error::Result;
use crate::name;
use crate::partition::Attention;
use crate::topic_state::Settings;
use crate::topic_state::TopicState;
use crate::topics::Topics;

impl Topics {
    pub(crate) fn alter(
        &self,
        state: &Arc<TopicState>,
        changes: &[(&str, Option<&str>)],
    ) -> Result<()> {
        let writing = self.writing_for("alter a topic")?;
        let _change = self.changes.lock();
        self.refuse_if_closed()?;
        state.refuse_if_deleted()?;
        let mut overrides = state.settings.read().overrides.clone();
        for (key, value) in changes {
            overrides.alter(key, *value)?;
        }
        let log = Arc::new(LogConfig::resolve(&overrides)?);
        self.change_catalog(writing, |catalog| {
            let entry = catalog.topics.get_mut(&state.name).expect("every open topic is listed");
            entry.overrides = overrides.clone();
        })?;
        state.replace_settings(Settings { overrides, log: Arc::clone(&log) });
        for (_, partition) in state.open_partitions() {
            partition.reconfigure(Arc::clone(&log));
        }
        self.ask(Attention::Clean);
        Ok(())
    }

    pub(crate) fn add_partitions(&self, state: &Arc<TopicState>, count: u32) -> Result<()> {
        let writing = self.writing_for("add partitions")?;
        // Which partition a group's papers are in follows from how many there are.
        name::refuse_internal(state.name.as_str())?;
        let _change = self.changes.lock();
        self.refuse_if_closed()?;
        state.refuse_if_deleted()?;
        let present = state.partition_count();
        if count <= present || count > i32::MAX as u32 {
            let reason = "the number of partitions can only grow";
            let topic = state.name.to_string();
            return Err(Error::InvalidPartitions { topic, requested: count, reason });
        }
        let set = |present: u32, target: u32| {
            self.change_catalog(writing, |catalog| {
                let entry =
                    catalog.topics.get_mut(&state.name).expect("every open topic is listed");
                entry.partition_count = present;
                entry.partition_count_target = target;
            })
        };
        set(present, count)?;
        let fresh = self
            .create_partitions(&state.name, state.id, present..count, &state.log_config())
            .and_then(|slots| set(count, count).map(|()| slots))
            .inspect_err(|_| self.undo_creation(writing, &state.name, present..count))?;
        let present = state.partitions.read().clone();
        state.replace_partitions(present.iter().cloned().chain(fresh).collect());
        self.announce_change();
        Ok(())
    }
}
