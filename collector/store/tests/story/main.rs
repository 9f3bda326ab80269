//! The store's story, told to each database: what is true of one is true of the other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod comparing;
mod folding;
mod ingest;
mod judging;
mod large;
mod listing;
mod people;
mod unwatched;
mod world;

/// Each test on both databases.
macro_rules! story {
    ($($chapter:ident :: { $($test:ident),+ $(,)? })+) => {
        mod on_sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let world = crate::world::World::on_sqlite().await;
                    crate::$chapter::$test(&world).await;
                }
            )+)+
        }

        mod on_postgresql {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(world) = crate::world::World::on_postgresql(stringify!($test)).await {
                        crate::$chapter::$test(&world).await;
                    }
                }
            )+)+
        }
    };
}

story! {
    people::{
        a_token_with_one_use_is_spent_once,
        tokens_expire_are_revoked_and_are_told_apart,
        a_key_that_comes_again_with_its_token_is_one_host_until_it_connects,
        of_many_that_enrol_at_once_as_many_are_let_in_as_there_are_uses,
        certificates_speak_for_their_host_until_it_is_revoked,
        a_name_finds_a_host_unless_it_is_ambiguous,
        the_first_value_kept_wins,
        actions_are_listed_to_their_tenant,
        names_with_any_character_are_kept,
    }
    ingest::{
        a_refused_batch_does_not_harm_the_others,
        what_was_taken_before_is_dropped,
        a_new_epoch_begins_anew,
        the_state_of_an_item_is_its_last_change,
        what_an_inventory_does_not_see_is_gone,
        long_and_hostile_keys_come_back_whole,
        a_group_of_many_rows_is_taken_whole,
        concurrent_appends_take_each_record_once,
        migrating_twice_at_once_is_migrating_once,
    }
    judging::{
        drift_opens_moves_and_resolves,
        drift_that_opens_and_resolves_in_one_run_ends_resolved,
        two_judges_have_the_effect_of_one,
        a_captured_baseline_speaks_of_everything_the_host_reports,
        a_scoped_capture_holds_what_its_patterns_match,
        a_written_baseline_is_versioned_and_compared,
        what_was_read_under_another_baseline_is_read_again,
        an_acknowledgement_holds_until_the_drift_moves,
        drift_of_a_host_whose_clock_is_ahead_opens_when_it_was_received,
    }
    comparing::{
        a_baseline_is_read_back_as_it_was_written_or_captured,
        an_item_that_only_the_baseline_knows_gets_drift,
        sessions_and_runs_come_and_go_without_drift_from_what_was_captured,
        the_comparison_pages_cover_everything_once,
        a_comparison_with_what_no_longer_counts_writes_nothing,
        a_host_with_unjudged_changes_is_not_compared,
        a_host_is_compared_and_captured_only_when_its_inventory_is_whole,
        hosts_to_compare_are_listed_beyond_those_that_stay_due,
        a_comparison_is_pending_until_all_that_is_known_is_judged_and_compared,
    }
    folding::{
        parts_of_a_package_are_folded_under_its_drift,
        all_that_is_hidden_is_counted,
        a_part_that_is_changed_by_itself_is_raised,
        a_package_without_drift_folds_nothing,
        what_stood_open_before_its_package_drifted_stays_a_matter_of_its_own,
        packages_cannot_hide_each_other,
        a_file_that_its_package_dropped_is_folded_and_one_that_went_missing_is_not,
        what_one_append_says_of_a_part_is_what_many_say,
        events_tell_what_is_folded,
        a_database_of_the_step_before_keeps_its_drift,
    }
    unwatched::{
        what_is_in_view_no_longer_is_not_listed_counted_or_captured,
        drift_of_what_is_in_view_no_longer_keeps_its_last_value,
        an_item_that_was_never_reported_is_missing_and_one_out_of_view_is_not,
        items_are_counted_once_while_a_later_inventory_is_under_way,
    }
    large::{
        large_changes_are_judged_in_short_runs,
        items_whose_open_drift_is_large_are_judged_in_short_runs,
        pages_of_large_changes_are_short_and_complete,
        hosts_of_large_items_are_compared_in_short_pages,
    }
    listing::{
        pages_are_complete_and_without_repeats_while_rows_are_added,
        changes_are_found_by_what_they_are,
        all_that_a_session_or_a_run_changed_is_found,
        changes_are_found_by_when_they_were_received_whatever_the_hosts_clock_says,
        drift_is_found_by_what_it_is,
        nothing_crosses_a_tenant,
        events_resume_without_loss_or_repeats,
        the_summary_counts_what_was_judged,
        the_measures_say_what_there_is_and_what_waits,
        a_strangers_cursor_is_refused,
    }
}
