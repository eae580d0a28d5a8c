//! What was found in this library that could have cost a user a record, an answer or a readable directory.
//!
//! A log that has never been found wrong has not been looked at. Each line tells what could have happened, who found it,
//! and which test or command has looked for it since. Where a commit says that a test was seen failing without the mend, it
//! was; that was not tried again for all of this page. None of it is known to have happened to anybody: no version was
//! released before. What is found from here on goes to the top.
//!
//! # Who looks
//!
//! | | |
//! | --- | --- |
//! | explorer | lives of a whole store on a simulated disk, and what crashes leave of them: `.ci/explore 1000000` |
//! | effects | the n-th effect, open, read or map of a life fails, or the process dies there, for every n |
//! | flips | every byte of a small log is changed |
//! | schedules | threads whose every step a scheduler chooses |
//! | fuzzer | `.ci/fuzz` |
//! | real disks | ext4, XFS and btrfs that are cut off, filled, made unreadable, or put together from a record of writes |
//! | kills | real processes, killed |
//! | mutants | the code changed in one place, to see whether a test notices: `.ci/mutants` |
//! | reading | somebody read the code again |
//! | on the way | whoever built something else beside it |
//!
//! # The library
//!
//! | when | what could have happened | found by | held by |
//! | --- | --- | --- | --- |
//! | 2026-11-27 | a segment without records believed a time index that was not its own, and told of a greatest timestamp that none of its records has | mutants | `an_empty_segment_has_nothing_to_map_read_or_let_go_of` |
//! | 2026-11-26 | `apply_retention` told of a segment that went twice, once with records and once without; nothing went that should not | an example that CI ran | `what_went_is_told_once_however_many_look` |
//! | 2026-11-26 | retention, or room made for an append, put on record that a log begins at an offset that was not durable yet: after a power cut the log ended below, showed its old beginning, and gave offsets out twice | reading, for the page [guarantees](crate::documentation::guarantees) | `retention_lets_go_of_what_is_durable_only` |
//! | 2026-11-26 | records that were deleted came back: a segment's files returned with a power cut, the next open could not remove them, and the close took the log's start off the record | explorer, near the 850,000th recovery | `what_an_open_cannot_remove_stays_deleted` |
//! | 2026-11-26 | a new topic was to begin behind its end, because a start of its predecessor's had been put on record by a call that failed | explorer, near the 780,000th | `a_topic_inherits_no_start_from_one_of_its_name` |
//! | 2026-11-26 | a process that read from a disk with unreadable sectors was ended by SIGBUS | known from the start, and said in the guarantees until it was mended | `a_device_that_cannot_read_for_a_while_is_an_error_and_no_signal`, `whichever_page_of_a_segment_cannot_be_read_every_way_to_read_says_so_and_reads_it_later` |
//! | 2026-11-26 | a segment whose index file could not be read was not readable by offset or time, though all records were | on the way | `an_index_that_cannot_be_read_holds_nobody_up` |
//! | 2026-11-26 | an interrupted system call while space was reserved was told to the caller as a failure | effects | `whichever_write_comes_short_is_finished_or_fails_and_nothing_sent_is_lost` |
//! | 2026-11-26 | a clean shutdown vouched for a segment without a time index, which Kafka would have believed: a compaction's mark hid it from recovery | explorer, near the 440,000th | `the_mark_of_a_compaction_hides_no_segment_without_indexes` |
//! | 2026-11-26 | the same, because the marker of a clean shutdown came back with a power cut: the life that took it away was killed before that was durable | explorer | `a_marker_that_a_killed_life_took_away_does_not_come_back_over_the_next_ones_records` |
//! | 2026-11-26 | records were shown behind a hole: a partition that could not be put in order after a restart of the machine was taken for one of this boot the next time | explorer | `a_partition_that_could_not_be_recovered_after_a_restart_is_recovered_as_after_a_restart` |
//! | 2026-11-26 | a segment whose end recovery could not cut got its indexes all the same, and was never looked at again | explorer | `what_a_recovery_could_not_finish_the_next_one_does` |
//! | 2026-11-26 | a time index that a power cut tore passed for whole: look-ups by time skipped records | explorer | `a_time_index_that_a_power_cut_leaves_is_whole_or_none` |
//! | 2026-11-26 | segments behind one whose indexes could not be written were vouched for | explorer | `a_segment_whose_indexes_could_not_be_written_gets_them_later` |
//! | 2026-11-26 | a segment whose seal was cut short between its two index files kept an empty one, which Kafka takes for records of 1970 | explorer | `a_segment_whose_seal_was_cut_short_between_its_indexes_gets_both` |
//! | 2026-11-26 | an index whose sync had failed was found whole in the page cache by the next attempt and called durable | explorer, after 12,869 | `whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back` |
//! | 2026-11-26 | the recovery point went beyond a segment whose indexes were not durable | explorer | `what_is_on_record_as_durable_never_goes_beyond_a_segment_whose_indexes_are_not_written` |
//! | 2026-11-26 | deleted records came back: a log that could not be opened once lost its start when the store closed; or its files were removed, but not durably | explorer | `a_log_that_could_not_be_opened_once_begins_where_it_did`, `no_power_cut_behind_a_clean_close_brings_back_what_was_deleted` |
//! | 2026-11-26 | a data directory that was killed right behind its creation had no durable name | explorer | `whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back` |
//! | 2026-11-26 | a creation that failed at its last sync, and whose undoing was cut short, left a topic without directories | explorer | the same |
//! | 2026-11-26 | a log whose records were all deleted forgot its leader epoch with the second crash | explorer | `a_log_without_records_does_not_forget_its_epoch` |
//! | 2026-11-26 | damage at the end of a segment hid the beginning of the next one | explorer | `damage_at_the_end_of_a_segment_hides_nothing_of_the_next_one` |
//! | 2026-11-26 | an offset index whose entries lie beyond the greatest offset gave negative offsets, and a panic in a debug build | fuzzer, within seconds | `an_entry_beyond_the_greatest_offset_is_refused` |
//! | 2026-11-26 | three orders of steps in which a repair that is cut short would have given offsets out twice or shown records at wrong ones (before it was let out) | effects | `a_repair_that_dies_anywhere_is_finished_by_the_next_and_gives_no_offset_out_twice` |
//! | 2026-11-26 | a partition whose directory was away for a while began at 0 when it came back, with what had been deleted | on the way | `a_partition_that_cannot_be_opened_for_a_while_begins_afterwards_where_it_began` |
//! | 2026-11-26 | a crash while a segment was sealed left a torn producer snapshot, and with it Kafka would have known no producer | on the way | `whatever_a_crash_leaves_of_a_store_nothing_acknowledged_is_lost_and_nothing_dropped_comes_back` |
//! | 2026-11-26 | a topic that was created anew under its name inherited a start that was not its own | on the way | `a_topic_that_is_created_anew_begins_at_its_beginning` |
//! | 2026-11-26 | a checkpoint that says a log begins behind its end hid all of it | on the way | `nothing_goes_on_the_word_of_a_checkpoint_that_cannot_be_true` |
//! | 2026-11-26 | groups whose partition of `__consumer_offsets` could not be opened began anew, and read everything again or skipped all | effects | `whichever_effect_of_an_open_fails_no_group_forgets_where_it_stopped` |
//! | 2026-11-26 | a deletion of offsets that had failed at its end returned `Ok` when it was tried again, and a power cut brought the offsets back | effects | `whichever_effect_fails_groups_lose_nothing_and_go_on` |
//! | 2026-11-25 | one flipped bit in an offset of `__consumer_offsets`, which no checksum covers, made all groups behind it forgotten without a word | flips | `a_flipped_byte_costs_nobody_but_the_group_whose_paper_it_hits` |
//! | 2026-11-25 | a group was put on record behind the end of a log, and skipped what came next | on the way | `a_new_group_is_never_put_on_record_behind_the_end_of_a_log` |
//! | 2026-11-25 | a partition that was handed over was read by nobody from there on, and ten more in the hand-over of groups | schedules | `in_whatever_order_members_step_nothing_is_read_by_two_and_nobody_sleeps_with_work_to_do` |
//! | 2026-11-25 | an open that died while it undid a compaction left a segment without its indexes | on the way | `wherever_the_recovery_of_a_compaction_dies_the_next_one_finishes` |
//! | 2026-11-24 | records were gone that were appended after a roll had failed half-way: the next open took the empty next segment for the log's end | effects | `whichever_effect_fails_every_staged_record_is_told_the_truth` |
//! | 2026-11-22 | a header that lies about its length or offsets hid other batches | flips | `a_flipped_bit_never_yields_a_wrong_record_and_hides_no_other_batch` |
//!
//! # What looks
//!
//! A test that accuses wrongly costs trust, and one that cannot accuse is worse. Found in these:
//!
//! | when | what was wrong | found by | held by |
//! | --- | --- | --- | --- |
//! | 2026-11-27 | the simulated disk lost what was durable where a change met a sync on another thread: it could accuse, and did, and not hide | a whole run of the tests | `a_sync_beside_a_change_does_not_make_what_is_durable_lost` |
//! | 2026-11-27 | 22 of 82 changes to segments, most of them to what costs time and not answers, were noticed by no test of the library; now all but one, which only makes an index anew that is good | mutants | `.ci/mutants src/storage/segment.rs` |
//! | 2026-11-27 | seven of 93 changes to recovery were noticed by no test of the library; now each is | mutants | `.ci/mutants src/partition/recovery.rs` |
//! | 2026-11-26 | half of what was changed by hand in the sync gate, sealing, checkpoints, look-ups and segments was noticed by no test | mutants, by hand | `.ci/mutants` |
//! | 2026-11-26 | the simulated disk did not know that lengths and bytes from before a cut may stay, as on ext4 | real disks | `what_a_real_power_cut_leaves_is_one_of_the_states_of_the_simulated_one` |
//! | 2026-11-26 | a sync that ext4 lets return while it is being shut down was taken for an acknowledgement | real disks | `a_file_system_that_is_shut_down_under_a_writer_keeps_what_was_acknowledged` |
