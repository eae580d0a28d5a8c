//! What an acknowledgement means, and what happens after a crash.
//!
//! # Three moments
//!
//! 1. **`send` has returned.** The record has its offset. Every consumer sees it, and so does a reader in another
//!    process that looks. Its bytes are in the operating system's page cache: it survives the end of the process,
//!    however that comes, as long as the machine runs.
//! 2. **The delivery has completed.** Under [`Durability::Synced`](crate::Durability::Synced) an `fdatasync` that
//!    began after the record was in the file has succeeded; the file's entry in its directory was synced before. The
//!    record survives a power cut. Under the other levels this says no more than moment 1.
//! 3. **Some time has passed**: 10 ms under [`Durability::Synced`](crate::Durability::Synced), its own interval under
//!    [`Durability::Every`](crate::Durability::Every), the checkpoint interval (one second unless set) under
//!    [`Durability::Buffered`](crate::Durability::Buffered), and never more than that. The store has begun to sync by itself, whether or not anybody waits. [`Health`](crate::Health) shows if it failed.
//!
//! Where a producer [stages](crate::ProducerBuilder::linger), moment 1 comes later than the return of `send`; see
//! [below](#what-is-staged).
//!
//! A record whose `send` failed was not appended, with one exception: after [`Error::Latched`](crate::Error::Latched)
//! the record may or may not be there when the store is opened again. If it is, it is at the offset it would have had;
//! if it is not, it never comes back.
//!
//! ```
//! use ottla::{Durability, Record, Store, TopicConfig};
//!
//! # let directory = tempfile::tempdir().map_err(|_| ottla::Error::Closed)?;
//! # let path = directory.path().join("data");
//! let store = Store::open(&path)?;
//! let topic = store.create_topic("orders", TopicConfig::new())?;
//!
//! // Moment 2 for the first record.
//! store.producer().send(&topic, Record::new("first"))?.wait()?;
//! assert_eq!(topic.describe()?.partitions[0].durable_end, 1);
//!
//! // Moment 1 for the second; `sync` brings it to moment 2.
//! let buffered = store.producer_builder().durability(Durability::Buffered).build();
//! let _visible = buffered.send(&topic, Record::new("second"))?;
//! assert_eq!(topic.partition(0)?.watermarks()?, (0, 2));
//! store.sync()?;
//! assert_eq!(topic.describe()?.partitions[0].durable_end, 2);
//! # Ok::<(), ottla::Error>(())
//! ```
//!
//! A consumer that acts on the world outside, and must not act on what a power cut may take back, asks for
//! [`Isolation::Durable`](crate::Isolation::Durable).
//!
//! # What is staged
//!
//! With a linger or a batch size, `send` returns when the record is in its batch, in this process's memory. It has no
//! offset, nobody sees it, and it is lost with the process. Moment 1 comes when its batch was sealed and appended, for
//! all its records at once, at the latest when the linger is over; moments 2 and 3 follow from there. It has come when
//! a delivery of the batch has completed, when [`flush`](crate::Producer::flush), [`Store::sync`](crate::Store::sync)
//! or [`Store::close`](crate::Store::close) has returned, and when the drop of the producer's last clone has.
//!
//! | accident | what becomes of what is staged |
//! | --- | --- |
//! | `kill -9`, an abort, a panic with `panic = "abort"`, `std::process::exit` with handles alive, a power cut | it is lost, all of it. Of each partition that is what was sent last: no record is missing that has one of the same producer behind it |
//! | a panic that unwinds | nothing is lost, as long as the producer is dropped or the store closed. A record whose conversion panicked is not staged, nor any part of it |
//! | the store is closed, or the last clone of the producer dropped | it is appended first |
//! | there is no space for the batch, or the system refuses | none of its records is in the log; later batches may fit |
//! | the batch's write fails | the partition latches; its records may or may not be there after a reopening |
//! | the topic is deleted | it goes with the topic |
//! | a producer is leaked, or held by a static | as for an exit: nobody drops it |
//!
//! A batch that the log refuses is told by each of its deliveries, by the next flush of each clone, and by the close if
//! no flush has told it; and it shows in [`Store::health`](crate::Store::health). What is staged for a deleted topic only
//! its deliveries tell. So, where `flush` returns `Ok`, everything that was sent before it is in the log and as durable
//! as the level promises.
//!
//! ```
//! use std::time::Duration;
//! use ottla::{Durability, Record, Store, TopicConfig};
//!
//! let store = Store::temporary()?;
//! let topic = store.create_topic("clicks", TopicConfig::new())?;
//! let builder = store.producer_builder().durability(Durability::Buffered);
//! let producer = builder.linger(Duration::from_secs(5)).build();
//! let delivery = producer.send(&topic, Record::new("a click"))?;
//! assert_eq!(topic.partition(0)?.watermarks()?, (0, 0)); // a kill would take it
//! assert_eq!(delivery.wait()?.offset(), 0); // waiting does not wait for the linger
//! assert_eq!(topic.partition(0)?.watermarks()?, (0, 1)); // moment 1
//! # Ok::<(), ottla::Error>(())
//! ```
//!
//! Tests: `a_kill_an_abort_or_an_exit_takes_exactly_what_is_staged`,
//! `kills_lose_nothing_of_what_was_staged_and_then_flushed_or_waited_for`,
//! `what_is_staged_survives_the_close`, `what_is_staged_survives_the_drop_of_the_last_clone`,
//! `what_is_staged_survives_the_drop_of_everything`,
//! `a_close_races_with_sends_and_every_record_is_there_or_was_refused`,
//! `whichever_effect_fails_every_staged_record_is_told_the_truth`,
//! `a_batch_that_finds_no_space_fails_every_delivery_and_is_told_by_flush_and_health`,
//! `a_refusal_that_nobody_was_told_of_is_told_by_the_close`, `a_panic_in_one_sending_thread_harms_nobody_else`,
//! `an_append_that_panics_leaves_nobody_waiting`, `what_is_staged_for_a_deleted_topic_goes_with_it`,
//! `many_threads_keep_their_order_and_every_delivery_tells_the_right_offset`.
//!
//! # What a group can rely on
//!
//! Every record of a topic is handed to a group at least once, in the order of its partition, whatever members come,
//! go, panic or are killed; and to one member at a time.
//!
//! * **Never skipped.** A group goes on where it has committed, and a commit never stands for a record that was not
//!   handed out. [`commit`](crate::Consumer::commit) returns when the commit is on stable storage, and it is appended
//!   only after every record below it is: so no power cut leaves a group behind records that are gone, in front of
//!   others that got their offsets. Where nothing was committed yet, the group begins where its subscription fixed
//!   it, not where the log ended when somebody first polled.
//! * **Twice only for a reason.** A record is handed out again if its member ended, was put out or let go of the
//!   partition without having committed it. Between members that commit what they did before they poll again, close,
//!   or return from `on_revoked`, nothing is handed out twice.
//! * **One at a time.** A partition goes to another member only after the one that had it has let go: it has dropped
//!   every record of it, or its `on_revoked` has returned; or it has ended, or was put out because it did not poll for
//!   longer than it had said. One that was put out may still be at work with what it was handed; its commits are refused.
//! * **By itself** ([`auto_commit`](crate::ConsumerBuilder::auto_commit)) only that is committed which the application
//!   has dropped, all copies of it; and what an unwinding thread drops is not counted.
//! * Commits do not expire. Those of a topic go when it is deleted.
//!
//! What is on record in `__consumer_offsets` and cannot be understood, because it is damaged or of a later version, is
//! passed over and shown in [`Store::health`](crate::Store::health); the group then stands where it stood before that
//! record. Where the whole partition cannot be opened, what its groups have on record is not known: they are
//! [`Error::Unavailable`](crate::Error::Unavailable) to who asks, commits or subscribes, and do not begin anew; and no
//! topic is deleted, of which they may have commits. Nobody but groups writes there: a send to an internal topic is
//! [`Error::InternalTopic`](crate::Error::InternalTopic). A subscription that fails leaves no group behind.
//!
//! ```
//! use std::time::Duration;
//! use ottla::{Store, TopicConfig};
//!
//! let store = Store::temporary()?;
//! let topic = store.create_topic("jobs", TopicConfig::new())?;
//! store.producer().send_batch(&topic.partition(0)?, ["a", "b"].map(ottla::Record::new))?;
//! let mut worker = store.consumer().max_poll_records(1).subscribe("workers", &topic)?;
//! assert_eq!(worker.poll(Duration::ZERO)?.count(), 1); // a
//! worker.commit()?;
//! assert_eq!(worker.poll(Duration::ZERO)?.count(), 1); // b, which is not committed
//! drop(worker);
//! let mut other = store.consumer().subscribe("workers", &topic)?;
//! let again = other.poll(Duration::ZERO)?;
//! assert_eq!(again.iter().next().and_then(|message| message.value()), Some(&b"b"[..]));
//! # Ok::<(), ottla::Error>(())
//! ```
//!
//! Tests: `members_share_the_partitions_and_hand_over_only_what_must_move`,
//! `a_panicking_member_is_replaced_and_nothing_it_was_at_is_skipped`,
//! `a_partition_stays_with_its_member_until_its_records_are_dropped`,
//! `listeners_hear_in_kafkas_order_and_may_commit_what_goes`, `nobody_commits_what_is_not_his`,
//! `commits_survive_the_process_and_are_where_the_group_goes_on`,
//! `where_a_new_group_begins_is_fixed_by_the_subscription`, `a_deleted_topics_offsets_go_with_it`,
//! `a_commit_is_never_durable_before_what_lies_below_it`,
//! `what_cannot_be_understood_on_record_is_passed_over_and_shown`,
//! `what_groups_have_on_record_stays_small_however_often_they_commit`,
//! `a_group_delivers_everything_in_order_and_each_partition_to_one_member`,
//! `between_threads_that_hand_over_in_order_everything_comes_exactly_once`,
//! `no_power_cut_takes_a_commit_or_makes_a_group_skip_a_record`,
//! `commits_that_do_not_wait_for_their_records_are_found_out`,
//! `kills_take_no_commit_that_had_returned_and_make_a_group_skip_nothing`,
//! `whichever_effect_fails_groups_lose_nothing_and_go_on`,
//! `nobody_produces_to_an_internal_topic_by_hand`, `a_subscription_that_fails_leaves_no_group`,
//! `whoever_commits_after_the_close_is_told_so`, `a_commit_by_one_that_lost_the_partition_changes_nothing`,
//! `an_added_partition_is_read_from_its_beginning_wherever_the_group_began`,
//! `what_is_on_record_out_of_range_follows_the_reset_policy`,
//! `papers_that_are_compressed_are_read_and_checked_like_others`,
//! `a_reader_sees_no_members_once_the_writer_was_killed`,
//! `a_reader_of_a_damaged_first_batch_sees_the_groups_behind_it`,
//! `whichever_effect_of_a_first_commit_fails_it_can_be_made_again`,
//! `whichever_effect_of_an_open_fails_no_group_forgets_where_it_stopped`.
//!
//! # What a request can rely on
//!
//! A request and its reply are records like others: what is said above of records holds for both legs.
//!
//! * **Every request is dealt with at least once.** Its offset is committed only after its reply was appended and is
//!   durable, at whatever level; so neither a kill nor a power cut loses an answer. What was answered and not committed
//!   before a crash is answered again: at most what came within the responder's `commit_interval`, and what was not
//!   durable. A handler should bear being called twice for the same request.
//!   (`whichever_two_steps_a_kill_comes_between_every_request_is_answered_and_found_by_who_asked`,
//!   `kills_at_any_moment_lose_no_request_and_no_answer`,
//!   `nothing_is_committed_before_its_replies_are_durable_and_then_as_far_as_they_are`,
//!   `a_responder_that_is_dropped_in_the_middle_of_a_batch_commits_what_it_answered_and_no_more`)
//! * **A reply reaches the one who asked, once, and nobody else.** The first counts; what comes later is counted as late.
//!   No reply is missed however soon it comes: where replies begin is settled before anything is sent, and a request is
//!   entered before it is.
//!   (`every_reply_reaches_the_one_who_asked_and_nobody_else_from_many_threads`,
//!   `a_requester_is_ready_before_its_first_request_however_soon_the_reply_comes`,
//!   `in_whatever_order_askers_and_appenders_step_everyone_hears_once_and_nobody_sleeps_for_ever`)
//! * **Under [`Durability::Synced`](crate::Durability::Synced)** a request is handled once it is durable, and a wait for its
//!   reply returns once both are (`synced_requests_and_replies_are_on_stable_storage_when_the_wait_returns`). The
//!   level is the responder's for the first half and the requester's for the second.
//! * **A time-out says nothing** of whether the request was dealt with, or will be. The request stays in the log and is
//!   answered; its reply is counted and dropped (`how_long_to_wait_is_the_callers_and_what_comes_later_is_counted`).
//! * **Nobody waits for what cannot come.** The deletion of either topic, the end of the requester and that of the store
//!   are told to everyone who waits (`whoever_waits_is_told_when_a_topic_is_deleted`,
//!   `whoever_waits_is_told_when_the_requester_or_the_store_ends`). A handler's error or panic is told to the one who
//!   asked, and the responder lives on
//!   (`an_error_or_a_panic_of_the_handler_is_told_to_the_one_who_asked_and_the_responder_lives_on`). A responder that is
//!   gone for good is not told of: its requests wait for the next.
//! * **After a restart** a requester with the same identity is given the replies to its earlier lives, at least once, from
//!   where it last committed on (`what_was_not_answered_is_answered_after_a_restart_and_picked_up_by_who_comes_back`).
//!   Without an identity, or if it does not ask for them, they stay in the log, unread.
//!
//! What ends a responder's thread: a log that is latched or cannot be opened. A full disk does not, it tries again; nor
//! does damage, which it passes over and counts. [`Responder::status`](crate::Responder::status) tells how many threads are
//! at work, [`close`](crate::Responder::close) why one is not.
//!
//! # What is assumed, and what is not
//!
//! Of the medium these are assumed:
//!
//! 1. A sync that succeeded has made the bytes of its file durable, or the names in its directory.
//! 2. A write does not harm bytes beside it.
//! 3. A single byte is old or new.
//! 4. The host's memory is good.
//! 5. While a segment is replaced by a compacted one, or removed, the names in its directory become durable in the order
//!    in which they were changed, as on every file system with a journal. Without that an index may be missing
//!    afterwards, which is built again in memory.
//!
//! These are not, and the simulated disk of the tests (`storage/faults.rs`) breaks each of them:
//!
//! 6. That a sector or page is written whole: any of the 512-byte sectors that were not synced may be missing, and some
//!    are torn at a byte.
//! 7. Any order among writes that were not synced, within a file or between files.
//! 8. That data reaches the disk before the file's length, or behind it.
//! 9. That a file's entry in its directory is durable with the file; that entries become durable in the order in which
//!    they were made, but for 5.
//! 10. That a rename is durable with what was renamed.
//! 11. That unwritten space reads as zeros.
//! 12. That the page cache tells the truth after an error: a sync that fails loses a part of what it was to save, the
//!     next one succeeds, and reads show what was lost until clean pages are dropped.
//! 13. That what the cache shows after the end of a process is durable, or ever will be.
//!
//! What holds all the same is explored by lives that are cut short anywhere, by the thousand
//! (`whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back`), and that this would find
//! a bug is tested with bugs that are planted (`every_bug_that_is_planted_is_found_out`). That the simulated disk forbids
//! nothing that real ones do is looked for by playing the same lives on ext4 and XFS, and cutting their power
//! (`what_a_real_power_cut_leaves_is_one_of_the_states_of_the_simulated_one`). On real file systems it is
//! tested that nothing acknowledged is lost when ext4 or XFS is shut down under a writer
//! (`a_file_system_that_is_shut_down_under_a_writer_keeps_what_was_acknowledged`); when the power of a device below ext4,
//! XFS or btrfs goes after any of its writes, with any of those kept that no flush made durable, whole or torn, also while
//! the cut before is recovered from
//! (`whatever_a_power_cut_leaves_of_a_recorded_ext_four_what_was_acknowledged_is_there`,
//! `whatever_a_power_cut_leaves_of_a_recorded_xfs_what_was_acknowledged_is_there`,
//! `whatever_a_power_cut_leaves_of_a_recorded_btrfs_what_was_acknowledged_is_there`; that this would find a sync that is
//! left out: `syncs_that_do_nothing_are_found_out_on_recorded_disks`); when a call to the system fails
//! (`whichever_call_to_the_system_fails_nothing_acknowledged_is_lost`), and when the disk is full
//! (`a_full_file_system_is_an_error_and_nothing_acknowledged_is_lost`,
//! `a_full_file_system_is_an_error_and_appends_go_on_once_there_is_space`) or files may not grow
//! (`a_limit_on_the_length_of_files_is_an_error`).
//!
//! On macOS the standard library's sync is `F_FULLFSYNC`. There the lock is a POSIX lock with a list of this
//! process's directories, the boot is unknown, and space is not reserved. It is not tested there.
//!
//! # Rules
//!
//! Each names the tests that hold it. Tests in `crash` run on a disk whose n-th effect fails, for every n, or on files
//! cut and flipped everywhere. The explorer's run on a disk that does all that is not assumed above. Those in `killing`
//! and `kill_storm` kill real processes. Those in `real_disks_recorded` put together what a device has after a power cut, from
//! a record of what was written to it. No test cuts the power of a real machine.
//!
//! What reads bytes that somebody else may have written is fuzzed, in memory and through whole directories, and so are
//! histories of a machine, in which a fuzzer chooses what is done, what fails and what a power cut leaves: `.ci/fuzz`.
//! What it thought of before is tried on every run of the tests (`nothing_in_the_corpus_makes_its_target_fail`).
//!
//! | | rule | tests |
//! | --- | --- | --- |
//! | R1 | What was acknowledged is there after any single accident. What is there is a prefix of what was appended, byte for byte, at its offsets. | `whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back`, `whichever_effect_fails_nothing_sent_is_lost_and_the_next_open_is_in_order`, `wherever_the_process_dies_nothing_sent_is_lost_and_the_next_open_is_in_order`, `a_log_cut_at_any_byte_opens_as_a_prefix_and_goes_on`, `a_hundred_kills_lose_nothing_that_send_returned`, `kills_lose_nothing_that_was_acknowledged_as_durable`, `kills_lose_nothing_when_everything_goes_on_at_once`, `the_log_is_what_the_model_says_whatever_is_done_to_it` |
//! | R2 | What one recovery dropped never appears again. | `whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back`, `what_one_recovery_dropped_never_appears_again` |
//! | R3 | Recovery can be cut short anywhere and done again. | `wherever_recovery_dies_the_next_one_finishes` |
//! | R4 | Recovery shows nothing that is not durable: every segment it scans is synced first. | `whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back` |
//! | R5 | Nothing in a segment is called durable before every segment before it is synced, its successor's name is durable, and its indexes on disk say so. Recovery, which finds a segment unlike that torn by a power cut, ends the log there and keeps the rest aside. | `whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back`, `whichever_effect_fails_nothing_sent_is_lost_and_the_next_open_is_in_order` |
//! | R6 | What is derived from the log is never ahead of what is durable: recovery points, the durable end that readers see, what groups committed. | `no_power_cut_takes_a_commit_or_makes_a_group_skip_a_record`, `many_waiters_share_few_syncs_and_none_is_told_too_early`, `a_durable_reader_never_sees_what_a_power_cut_can_take`, `a_careful_reader_sees_only_what_the_writer_made_durable` |
//! | R7 | The marker of a clean shutdown is removed, durably, before anything else is done, and written last, only if everything is in order. | `wherever_the_process_dies_nothing_sent_is_lost_and_the_next_open_is_in_order`, `damage_below_the_recovery_point_is_never_cut_even_at_the_end`, `a_marker_that_a_killed_life_took_away_does_not_come_back_over_the_next_ones_records` |
//! | R8 | A failed sync is not repeated; after a failed write or sync the partition takes nothing more. | `a_failed_sync_latches_for_good_and_tells_everyone`, `a_failure_is_final_and_reaches_everyone`, `a_sync_that_failed_is_told_to_everyone_who_synchronises_the_file` |
//! | R9 | After an unclean end: sync, drop clean pages, then scan; write again what lies above the recovery point. What is shown after that is on the device. | `whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back`, `every_bug_that_is_planted_is_found_out`, `wherever_recovery_dies_the_next_one_finishes` |
//! | R10 | A torn tail is cut, and kept unless it is zeros; damage before durable data is an error with file and byte. | `a_flipped_bit_never_yields_a_wrong_record_and_hides_no_other_batch`, `damage_below_the_recovery_point_is_never_cut_even_at_the_end`, `after_a_restart_of_the_machine_a_reordered_tail_is_cut_and_kept`, `recovery_decides_every_combination_exactly_once` |
//! | R11 | Lengths, counts and offsets from the disk are checked before they are used. | `every_truncation_is_refused`, `hostile_records_under_a_valid_checksum_are_refused`, `a_record_count_bomb_costs_nothing`, `nothing_in_the_corpus_makes_its_target_fail`, `nothing_that_lies_in_a_file_makes_a_check_or_a_dump_panic` |
//! | R12 | The failure of one partition reaches no other, and never the host. | `a_partition_that_cannot_be_opened_holds_up_no_other`, `a_compressed_batch_is_refused_by_name_and_holds_up_no_other_partition`, `a_panicking_leader_does_not_leave_the_others_waiting`, `a_panicking_iterator_appends_nothing_and_breaks_nothing`, `a_sync_that_fails_while_a_log_is_parked_latches_that_log_and_no_other` |
//!
//! The one hole in R12 is SIGBUS, and it is narrow; see [below](#signals).
//!
//! # Recovery
//!
//! Opening for writing does this:
//!
//! 1. Take the lock, and note whether the last writer ran since this machine was started: then its page cache
//!    survived.
//! 2. If there is a marker of a clean shutdown, remove it. Sync the directory in any case: a life before may have removed
//!    it and died.
//! 3. Read the checkpoints; an unreadable one counts as missing, since all of it can be derived. Read `ottla.topics`;
//!    if that is damaged the store does not open, since nothing else has what it says.
//! 4. Remove temporary files, undo creations that had not returned, finish deletions that had begun.
//! 5. For each partition, undo or finish a compaction that was cut short, ours or Kafka's (`.cleaned`, `.swap`,
//!    `.deleted`).
//! 6. After a clean shutdown, find the end of the log behind the last index entry, by headers; nothing else is read.
//!    Checksums are verified when records are read.
//! 7. Otherwise, for every segment from the one that holds the recovery point: sync it, drop its clean pages from the
//!    cache, and walk it with every check. Where something is met that is no batch, decide by the table below.
//! 8. Cut if the decision says so, and sync. Write again, and sync, what lies above the recovery point, up to 4 MiB.
//!    Write the segment's indexes.
//! 9. Put the new recovery points on record, then this boot. Before the first append to a partition that was not closed
//!    cleanly, a new leader epoch is written, durably.
//!
//! | below the recovery point | the segment | only zeros behind | whole batch behind | same boot | so it is |
//! | --- | --- | --- | --- | --- | --- |
//! | yes | | | | | damage: it was durable |
//! | no | the last | yes | | | the end |
//! | no | followed by one that continues | yes | | | the end: reserved space that was not given back |
//! | no | sealed | otherwise | | | damage: it was durable before anything behind it was acknowledged |
//! | no | unsealed or the last | otherwise | yes | yes | damage: no power cut tore this |
//! | no | unsealed or the last | otherwise | otherwise | | a tail that a power cut tore: cut |
//!
//! A segment is *sealed* if another follows and its index files have entries: it was
//! durable before they had. Behind an unsealed one nothing was ever acknowledged, so where it is cut, the log ends,
//! and the segments behind it are set aside; for the table, a segment behind counts as a whole batch behind.
//!
//! What is cut is kept in the partition's directory as `ottla.cut-<offset>-<n>`, and is a
//! [`Finding::Cut`](crate::Finding::Cut). Damage is a [`Finding::Damage`](crate::Finding::Damage) and stays as it is.
//! Where a device refuses writes for a while and the machine goes on, the kernel gives pages up that were never durable,
//! and others behind them may be written later. The sync that fails tells the writer, and the partition takes no more
//! appends. The next opening sees what is on the device: behind the last acknowledged record there may be such a hole,
//! which is damage with whole batches behind it, and they stay readable
//! (`a_device_that_takes_no_writes_any_more_loses_nothing_that_was_acknowledged`, on ext4, XFS and btrfs).
//! A log that is damaged up to its end, or ends before its recovery point, takes no appends: offsets that were given
//! out for good must not be given out again.
//!
//! The recovery point never goes beyond a segment whose indexes are not durable
//! (`what_is_on_record_as_durable_never_goes_beyond_a_segment_whose_indexes_are_not_written`), nor does the mark that a
//! compaction leaves keep recovery from such a segment
//! (`the_mark_of_a_compaction_hides_no_segment_without_indexes`), and a store whose recovery could not write an index
//! leaves no marker of a clean shutdown: what that marker vouches for, indexes included, Kafka believes.
//!
//! # What a crash leaves of each step
//!
//! | operation | steps | commit point | what a crash leaves before it, and what an open makes of it |
//! | --- | --- | --- | --- |
//! | first open | make the directories above, each name synced; sync the name of this one as long as there is no list of topics | the sync | a directory that may be gone: nothing was acknowledged in it |
//! | create a topic, add partitions | list it with the number wanted; directories, first segments, names synced; list it with the number present | the directory's sync behind the second list | the first list: what was made is removed |
//! | undo a creation | list it as not yet made, if the second list is in place; directories renamed and removed; list it no more | | a topic that is there whole, or none |
//! | append, send | bytes behind the end, the first twelve last; the end is shown | the sync of the file, for what the level promises | a torn tail: cut, and kept |
//! | roll | files of the next segment made; later the one before cut to its end, synced; names synced; indexes written, synced | the sync of the segment before, for what is in it; the indexes say it | unsealed segments: the log ends where one is torn |
//! | park | what is before it sealed; cut, synced | the sync | as for an append |
//! | put recovery points on record | temporary file written, synced, renamed; directory synced | the directory's sync | the older record: more is scanned |
//! | delete records, retain | what goes is durable; log starts put on record; segments renamed, removed | the record | the old beginning, or the new one |
//! | compact | see `storage/swap.rs` | the rename of all new files to `.swap`, synced | the old segments, or the new ones |
//! | commit offsets | everything below synced; papers appended, synced | the sync of the papers | the commit before |
//! | delete a topic | listed as being deleted; directories renamed, names synced; removed; listed no more | the first list | the topic whole, or none |
//! | close | each partition sealed; recovery points, log starts, ends put on record; marker written, synced | the directory's sync behind the marker | no marker: the open recovers |
//!
//! All of it is explored by `whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back`,
//! and step by step by `wherever_the_process_dies_nothing_sent_is_lost_and_the_next_open_is_in_order`,
//! `wherever_a_deletion_fails_or_dies_the_topic_is_whole_or_gone_for_good`,
//! `wherever_a_deletion_dies_the_log_is_whole_and_what_was_deleted_stays_so`,
//! `no_power_cut_behind_a_clean_close_brings_back_what_was_deleted`, `a_topic_inherits_no_start_from_one_of_its_name`,
//! `a_log_that_could_not_be_opened_once_begins_where_it_did`,
//! `wherever_a_compaction_dies_nothing_that_counts_is_lost_and_the_next_one_finishes`,
//! `whichever_effect_fails_groups_lose_nothing_and_go_on`.
//!
//! Scanning starts at the recovery point, so damage further in front is met by whoever reads it, or by
//! [`inspect::check`](crate::inspect::check), which reads everything.
//!
//! # Deletion
//!
//! Records go from the beginning of a log, by [`delete_records`](crate::TopicPartition::delete_records), by
//! `retention.ms` and `retention.bytes`, or because the store may not take more
//! ([`bytes_max`](crate::StoreBuilder::bytes_max)). In each case it is put on record first, durably, where the log
//! begins; then readers see it; then whole segments below are removed. What is deleted was durable before, so no offset is
//! given out twice (`retention_lets_go_of_what_is_durable_only`). A failure, a death of the process or a power cut at any
//! effect leaves the log with its old beginning or the new one, and never an older one than somebody has seen
//! (`wherever_a_deletion_dies_the_log_is_whole_and_what_was_deleted_stays_so`,
//! `whichever_effect_of_a_deletion_fails_the_log_goes_on_and_the_next_attempt_finishes`,
//! `no_power_cut_brings_back_what_was_deleted_nor_takes_what_was_not`, `what_an_open_cannot_remove_stays_deleted`,
//! `the_log_is_what_the_model_says_however_it_is_deleted_from`). Where the disk is so full that the record cannot be
//! written, retention makes room without it, the oldest segment first
//! (`a_full_disk_does_not_keep_retention_from_making_room`); segments that cannot be made durable for want of room stay
//! (`on_a_full_disk_retention_lets_go_of_what_is_sealed`).
//!
//! * *Readers.* Whoever stands below the new beginning gets its [`OffsetReset`](crate::OffsetReset) with the next poll; with
//!   [`OffsetReset::Error`](crate::OffsetReset::Error) no record is skipped unawares
//!   (`nobody_skips_what_was_deleted_unawares_while_it_is_being_deleted`). Records in hand stay as they are.
//! * *Space.* The files of a segment have no name any more when the deletion returns, unless `file.delete.delay.ms` is set,
//!   which is 0 by default: then they are kept for so long with `.deleted` behind their names, where a person may copy them
//!   (`files_of_deleted_segments_are_kept_for_as_long_as_the_topic_says`). They count as the store's
//!   ([`PartitionDescription::deleted_len`](crate::PartitionDescription::deleted_len)); the next open removes them, and so
//!   does whoever needs the room before their time is over: an append that would exceed
//!   [`bytes_max`](crate::StoreBuilder::bytes_max), under either policy, and retention on a full disk. No reader
//!   needs them. Space without a name is free unless somebody holds records of them or has them mapped at that moment;
//!   then it comes free with the last of these, for bytes under a mapping can neither be cut nor punched out.
//!   [`PartitionDescription::held_len`](crate::PartitionDescription::held_len) says how many bytes that is
//!   (`the_space_on_the_disk_comes_free_though_a_slow_reader_holds_records`).
//! * *Rules.* Kafka's: whole segments, from the oldest; a partition keeps at least `retention.bytes`, and less than a segment
//!   more; the segment that is appended to ages like the others. One thing differs: the age of a segment is the time since its
//!   greatest timestamp *or* since its file was changed last, whichever is shorter
//!   (`neither_records_of_long_ago_nor_a_file_of_long_ago_alone_make_a_segment_old`). So records with times of long ago are
//!   kept for `retention.ms` from when they were written, and a directory that was copied without its files' dates is
//!   kept for `retention.ms` from then. A record with a time to come keeps its segment, and those behind it, until then;
//!   `message.timestamp.after.max.ms` bounds that.
//! * *Clocks.* A wall clock that leaps ahead by more than an hour while the store is open does not make anything old before
//!   it has been ahead for an hour (`a_leap_ahead_counts_once_it_has_lasted`);
//!   [`Health::clock_ahead_ms`](crate::Health::clock_ahead_ms) tells. One that was wrong already when the store was opened
//!   cannot be told from one that is right.
//! * *Groups.* What a group committed stays on record. How much of what it had yet to read was deleted is told by
//!   [`ConsumerGroup::describe`](crate::ConsumerGroup::describe) and [`Store::health`](crate::Store::health)
//!   (`what_a_group_had_yet_to_read_of_what_was_deleted_is_told`).
//! * *Bound.* With [`bytes_max`](crate::StoreBuilder::bytes_max) space is granted before it is reserved, so batches and
//!   reserved space stay within the bound whatever the number of threads
//!   (`with_drop_oldest_the_oldest_segments_go_and_nobody_is_refused`,
//!   `with_back_pressure_appends_are_refused_until_there_is_room`).
//!
//! # Compaction
//!
//! A topic whose `cleanup.policy` has `compact` in it is compacted in the background, and when
//! [`Topic::compact`](crate::Topic::compact) asks for it. Of every key the latest record stays, whatever happens: a failure, a death of the process or a power cut at any effect leaves each
//! segment as it was or replaced whole, and a compaction that is done again comes to the same
//! (`wherever_a_compaction_dies_nothing_that_counts_is_lost_and_the_next_one_finishes`,
//! `wherever_the_recovery_of_a_compaction_dies_the_next_one_finishes`,
//! `whichever_effect_of_a_compaction_fails_the_log_is_whole_and_goes_on`,
//! `a_swap_that_can_be_neither_finished_nor_undone_loses_nothing`, `no_power_cut_during_a_compaction_takes_what_counts`,
//! `the_log_is_what_the_model_says_however_it_is_compacted`, `appends_reads_and_compactions_get_along`).
//!
//! * A reader that begins at the start sees the last value of every key, and what it sees is in order and at its offsets
//!   (`a_compacted_topic_is_compacted_in_the_background_and_others_are_not`,
//!   `a_view_that_is_rebuilt_after_every_restart_is_what_the_map_says`). Timestamps, headers, producers' sequences,
//!   leader epochs and codecs stay what they were; a batch that loses nothing keeps its bytes
//!   (`compressed_batches_are_compacted_and_keep_their_codec`, `kafkas_input_becomes_kafkas_output_byte_for_byte`).
//! * A reader that gets from anywhere to the end within `delete.retention.ms` of the compaction that first met a
//!   tombstone sees the tombstone (`a_tombstone_stays_for_its_time_and_then_goes_with_all_that_it_stands_for`). It goes
//!   no sooner than everything it stands for.
//! * Records younger than `min.compaction.lag.ms`, and what is behind them, are all there
//!   (`what_is_younger_than_the_least_lag_is_all_there`). With `max.compaction.lag.ms` a record is compacted soon after,
//!   though nothing is sent any more
//!   (`records_that_have_waited_for_too_long_are_compacted_though_nothing_is_sent_any_more`). Ages are by the records'
//!   timestamps and the clock, as in Kafka.
//! * Records of aborted transactions, which only Kafka writes, go at once; a transaction's marker goes when nothing is
//!   left of its transaction and `delete.retention.ms` has passed, the last of a producer without its content only
//!   (`what_was_aborted_supersedes_nothing_and_goes_and_markers_stay`,
//!   `a_marker_goes_once_nothing_is_left_of_its_transaction_and_its_time_has_passed`).
//! * Appends and reads go on (`appends_and_reads_go_on_while_the_background_compacts`); whoever holds records keeps them.
//!   A close does not wait for a compaction to end
//!   (`compaction_is_no_faster_than_it_may_be_and_a_close_does_not_wait_for_it`). Memory is bounded by the key map
//!   (`a_small_key_map_makes_more_passes_and_the_same_log`) and one batch.
//!
//! The segment that is appended to is never compacted, so the log
//! ends where it ended; [`Topic::compact`](crate::Topic::compact) closes it first. Damage ends a compaction: what is behind it is left as it is, and it is found afterwards as it
//! was before (`damage_ends_a_compaction_and_is_found_afterwards_as_before`). A segment with batches whose codec this build does not
//! have is left as it is, and no tombstone behind it goes
//! (`what_is_compressed_is_left_and_no_tombstone_behind_it_goes`). Both show in [`Store::health`](crate::Store::health).
//! What failed, because the disk was full perhaps, is tried again after a minute; Kafka leaves the log alone until it is
//! started anew.
//!
//! A store that is open for reading beside the writer misses nothing of it either
//! (`whoever_follows_a_log_that_is_compacted_misses_nothing`). It waits while files have no names that it knows, which
//! takes the writer a few syncs of a directory. If the writer died just there, a partition is
//! [`Error::Unavailable`](crate::Error::Unavailable) to readers until the directory was opened for writing once
//! (`a_reader_is_told_of_a_compaction_that_was_cut_short`).
//!
//! # Reading what is damaged
//!
//! A batch is verified before any of its records is handed out: checksum, structure, and that offsets continue. Checksum
//! and structure are verified once for each opening of its segment, and not for what this store appended to the segment
//! that is still being written; damage that reaches bytes already checked is found by the next opening, or by
//! [`inspect::check`](crate::inspect::check). A [read of a single record](crate::TopicPartition::read) verifies the batch
//! it lies in, too. A consumer built with `check_crcs(false)` goes without the checksum. A
//! batch that fails is [`Error::Corrupt`](crate::Error::Corrupt) with the file, the byte, and, if a whole batch is found
//! behind it, the offset to [`seek`](crate::Consumer::seek) to. The consumer's position stays in front of the damage; its
//! other partitions are read on. Damage to a record's bytes on the disk therefore never becomes a wrong record. The one
//! field that neither a checksum nor the order of offsets covers is a batch's leader epoch.
//!
//! A partition that cannot be opened is [`Error::Unavailable`](crate::Error::Unavailable), the others open.
//!
//! # Repair
//!
//! [`repair`](crate::repair) does the least that makes [`inspect::check`](crate::inspect::check) find nothing. It is never done
//! unasked.
//!
//! * Whatever single damage there is, the check finds it, and afterwards exactly those records are missing that no checksum
//!   confirms (`a_flipped_bit_anywhere_in_a_batch_costs_that_batch_at_most`,
//!   `a_stretch_of_rubbish_is_set_aside_and_kept`, `a_segment_cut_at_any_batch_or_within_one_keeps_what_is_in_front`,
//!   `segments_that_are_gone_or_nothing_but_rubbish_cost_their_own_records`,
//!   `segments_under_each_others_names_get_their_own`, `indexes_are_made_anew_from_the_log`,
//!   `small_files_are_made_anew_or_go_and_are_kept`, `a_directory_of_kafkas_is_repaired_like_any_other`).
//! * What Kafka keeps of producers and transactions is derived as Kafka does
//!   (`what_kafka_keeps_of_producers_is_made_anew_as_kafka_had_it`).
//! * A log goes on behind every offset that anything speaks of as given out: batches, checkpoints, what groups committed
//!   (`what_is_on_record_behind_the_end_of_a_log_is_never_given_out_again`,
//!   `a_group_never_stands_behind_records_that_a_repair_lets_be_written_anew`,
//!   `a_partition_whose_directory_is_gone_goes_on_behind_what_it_had`).
//! * A list of topics that was damaged lets no record go (`a_list_of_topics_is_made_anew_and_lets_no_record_go`).
//! * A repair that is cut short at any effect, by a death, a failure or a power cut, is finished by the next; and who opens
//!   the directory in between gets no offset twice
//!   (`a_repair_that_dies_anywhere_is_finished_by_the_next_and_gives_no_offset_out_twice`,
//!   `a_repair_whose_disk_fails_once_says_so_and_can_be_started_again`). It changes nothing where nothing is wrong, and
//!   nothing the second time (`a_sound_directory_is_left_as_it_is`). A directory in use is refused
//!   (`a_directory_in_use_is_refused`).
//!
//! Where records are missing, a wrong base offset may pass for a right one: neither checksum nor continuity covers it there,
//! as in a compacted log.
//!
//! # Signals
//!
//! Segments are read through mappings, and with `Every` and `Buffered` producers on ext4 and tmpfs they are written
//! through them, too. Where the disk cannot give a mapped page, or another program has cut the file, a touch of that page
//! is a SIGBUS, and the process ends. So on Linux, from 5.14 on, whatever a segment held when it was opened is brought
//! into memory before it is touched, by a call that can fail: then the read is an [`Error::Io`](crate::Error::Io) with the
//! path of the file, other reads and appends go on, and once the disk has recovered all of it can be read
//! (`a_device_that_cannot_read_for_a_while_is_an_error_and_no_signal`,
//! `whichever_page_of_a_segment_cannot_be_read_every_way_to_read_says_so_and_reads_it_later`,
//! `a_segment_that_somebody_cuts_is_an_error_where_nobody_has_read_yet`).
//!
//! An index that the disk cannot read is made from the log, in memory, like one that is missing
//! (`an_index_that_cannot_be_read_holds_nobody_up`).
//!
//! What is left: a page that was brought, that the system then took away because memory was short, and that the disk cannot
//! give a second time or somebody has cut off meanwhile; a file that is cut while records of it are in somebody's hands;
//! and every failed read on systems that do not know that call. There a SIGBUS still comes, and still ends the process.
//!
//! A full disk never does that: space is reserved before it is touched. Recovery, inspection, compaction and the search for
//! what another process appended read with `pread`, where a failing disk is an error.
//!
//! # Calls that come short
//!
//! A write may take less than it is given, and any call may be interrupted by a signal. What is left is then written,
//! read or reserved by further calls, and nobody is told; where the rest fails, that is as if all had failed
//! (`whichever_write_comes_short_is_finished_or_fails_and_nothing_sent_is_lost`,
//! `whichever_read_of_a_recovery_comes_short_is_finished_or_fails`,
//! `a_repair_whose_reads_and_writes_come_short_is_finished_all_the_same`,
//! `whichever_call_to_the_system_fails_nothing_acknowledged_is_lost`).
//!
//! # A full disk
//!
//! A send that finds no space is [`Error::OutOfSpace`](crate::Error::OutOfSpace). Nothing of it is visible, everything
//! before it is intact, and the partition takes appends again once there is space. Where a file system cannot reserve
//! space and finds out only at the sync, it is the sync that fails, and the partition latches. Checkpoints and the list of
//! topics are replaced whole or stay as they were.
//!
//! # Forks
//!
//! A child of `fork` that does not call `exec` must not use a handle: it has no background thread, and the parent does
//! not know what it appends. Starting another program is no problem.
//!
//! # Time
//!
//! A record without a timestamp gets the wall clock's time at its send. A thread that sent more than a thousand records
//! within the system clock's last tick (1 to 10 ms) reads it for every sixteenth only, so such a record's time may be
//! older by what sixteen sends take, and never by more than a tick.
//!
//! The wall clock is read for timestamps and for the age of segments, never for waiting or ordering. With
//! `LogAppendTime` timestamps do not decrease within a partition, even if the clock is set back. If the clock jumps,
//! a segment may be closed earlier or later. What that means for retention stands [above](#deletion).
//!
//! # Privacy
//!
//! Files are made for the owner alone, unless [`file_mode`](crate::StoreBuilder::file_mode) says otherwise
//! (`files_are_the_owners_alone_unless_told_otherwise`). What is deleted is gone from the directory: segments below the
//! beginning that [`delete_records`](crate::TopicPartition::delete_records) or retention gave a log are removed whole, and so
//! are deleted topics; what a compaction left out is in no file once the segment was replaced
//! (`what_was_deleted_is_in_no_file_any_more`). What file systems and disks keep of removed files is theirs. Of a record's
//! content, key, value and headers, nothing is in any error, finding, report or `Debug` of this library
//! (`nothing_of_a_record_is_in_an_error_or_a_debug_output`); the functions that give it are the only ones.
//!
//! # Files
//!
//! Files are made with mode 0600 and directories with 0700. Symbolic links, pipes and devices in place of files are
//! refused, and so are links in place of partitions' directories
//! (`what_is_no_regular_file_where_one_belongs_is_refused_by_name_at_once`,
//! `a_linked_partition_is_not_followed_and_a_linked_root_is`).
//!
//! Whatever lies in a directory, opening, reading, checking and repairing it costs bounded memory and time: files that are
//! nothing but holes (`a_file_of_holes_costs_neither_memory_nor_time`), lengths, counts and offsets that lie
//! (`fronts_that_lie_about_lengths_counts_and_offsets_cost_nothing`), files that are made to be searched for ever
//! (`a_file_in_which_a_batch_seems_to_begin_everywhere_is_searched_in_bounded_time`), checkpoints that point anywhere
//! (`checkpoints_that_point_anywhere_are_not_followed`), files of others
//! (`segments_and_indexes_of_others_yield_no_wrong_record`,
//! `names_of_other_encodings_and_of_thousands_of_others_are_left_alone`).
