//! What every store must keep: each sentence is run against SQLite in memory and in a file, against a standalone MongoDB
//! and against a replica set.

mod alerts;
mod consumption;
mod imports;
mod notifications;
mod operations;
mod queues;
mod readings;
mod registries;
mod statistics;

use galerna_model::{AccountId, QueueName, SourceId, Timestamp};
use galerna_storage::mongo::{self, MongoOptions};
use galerna_storage::{Store, sqlite};
use galerna_test_servers::{Mongo, unique};
use tokio::sync::OnceCell;

fn queue(name: &str) -> QueueName {
    QueueName::new(name).expect("a valid queue name")
}

fn account(name: &str) -> AccountId {
    AccountId::new(name).expect("a valid account id")
}

fn source(name: &str) -> SourceId {
    SourceId::new(name).expect("a valid source id")
}

/// Hours after 2017-01-01T00:00:00Z.
fn hour(hours: i64) -> Timestamp {
    Timestamp(1_483_228_800_000 + hours * 3_600_000)
}

async fn in_memory() -> (Store, ()) {
    (sqlite::in_memory().expect("SQLite opens in memory"), ())
}

async fn in_a_file() -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let store = sqlite::open(folder.path().join("a").join("store.db")).await.expect("the file opens");
    (store, folder)
}

async fn database_of(server: &Mongo) -> Store {
    let options = MongoOptions { database: Some(unique("storage")), ..MongoOptions::new(server.uri()) };
    mongo::connect(options).await.expect("MongoDB answers")
}

async fn on_mongo() -> (Store, ()) {
    (database_of(Mongo::shared().await).await, ())
}

async fn on_a_replica_set() -> (Store, ()) {
    static SHARED: OnceCell<Mongo> = OnceCell::const_new();
    (database_of(SHARED.get_or_init(Mongo::start_replica_set).await).await, ())
}

macro_rules! stores {
    ($cases:tt: $($store:ident),*) => { $(stores!(@one $store $cases);)* };
    (@one $store:ident { $($group:ident: $($sentence:ident)*;)* }) => {
        mod $store {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let (store, _kept) = super::$store().await;
                    super::$group::$sentence(&store).await;
                }
            )*)*
        }
    };
}

stores!({
    queues:
        a_record_comes_back_as_it_was_created
        creating_leaves_existing_records_alone
        a_swap_writes_everything_but_the_counts
        a_lost_swap_writes_nothing_and_gives_what_is_stored
        a_swap_of_an_unknown_queue_conflicts_and_creates_nothing
        the_swaps_of_one_call_stand_alone
        a_swap_that_breaks_the_versions_is_refused
        of_concurrent_swaps_of_one_version_exactly_one_wins
        removal_is_guarded_by_the_version
        a_queue_created_again_goes_on_from_its_epoch
        counts_touch_neither_version_nor_state
        older_counts_and_counts_of_unknown_queues_change_nothing
        changes_are_given_once_they_are_durable
        no_change_is_missed_while_many_write
        an_unknown_cursor_is_answered_with_everything;
    readings:
        a_reading_comes_back_as_it_was_stored
        of_one_identity_the_highest_sqn_counts
        values_of_one_meter_and_time_are_united_by_parameter
        concurrent_writers_of_parts_of_readings_leave_the_union
        values_come_back_to_the_last_bit
        readings_in_any_order_and_number_leave_one_each
        concurrent_writers_of_the_same_readings_agree
        readings_are_found_by_any_filter_newest_first
        identities_are_paged_in_order
        a_source_that_changes_its_account_keeps_its_readings
        an_account_has_only_its_own_readings_of_a_shared_source
        the_newest_are_found_however_they_lie_among_devices
        the_latest_reading_of_each_device_is_found;
    alerts:
        rules_are_put_listed_and_deleted
        deleting_a_rule_deletes_its_states
        states_of_a_deleted_rule_that_fire_stay_until_they_are_cleared
        an_older_state_does_not_replace_a_later_one
        concurrent_states_leave_the_latest
        an_event_is_recorded_once
        events_are_paged_newest_first;
    notifications:
        endpoints_and_silences_are_put_listed_and_deleted
        an_endpoint_is_disabled_unless_it_was_edited
        a_delivery_comes_back_as_it_was_enqueued
        an_endpoint_gets_each_event_once
        concurrent_enqueuing_of_the_same_events_leaves_each_once
        events_join_an_open_delivery
        a_claimed_delivery_is_given_to_nobody_else_until_its_claim_runs_out
        of_concurrent_claims_each_delivery_goes_to_one
        a_claim_keeps_to_its_limits
        a_delivery_waits_for_those_before_it
        deliveries_are_filtered_counted_and_paged
        a_delivery_is_sent_again_unless_a_notifier_is_at_it
        old_deliveries_that_have_ended_are_forgotten
        the_alert_of_a_recovery_is_found
        the_deliveries_of_an_alert_are_found_newest_first
        an_event_is_taken_once_it_is_marked;
    registries:
        rejected_readings_are_stored_once
        rejected_readings_are_paged_and_counted
        accounts_and_sources_are_replaced_by_id
        settings_keep_any_json;
    operations:
        what_operators_did_is_listed_newest_first
        what_operators_did_is_searched_as_text
        samples_are_kept_replaced_and_pruned
        what_fires_is_found_over_all_accounts;
    statistics:
        a_batch_is_added_once_however_often_it_is_tried
        the_last_messages_of_all_writers_are_kept_newest_first
        old_hours_are_forgotten_and_old_months_kept;
    imports:
        chunks_are_kept_by_meter_and_number
        a_chunk_that_others_wrote_in_between_is_left
        no_sequence_number_is_given_twice;
    consumption:
        a_day_comes_back_as_it_was_kept
        a_day_that_others_kept_in_between_is_left
        of_concurrent_keeps_of_one_revision_exactly_one_wins
        days_are_found_with_the_nearest_around_them;
}: in_memory, in_a_file, on_mongo, on_a_replica_set);
