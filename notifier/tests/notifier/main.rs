//! What the notifier promises, on real brokers, stores and receivers.

mod anything;
mod faults;
mod mail;
mod metrics;
mod ordering;
mod python;
mod receiver;
mod receivers;
mod safety;
mod signatures;
mod telling;
mod world;

/// Runs sentences on the embedded broker and store, and on RabbitMQ and MongoDB.
macro_rules! worlds {
    ($($group:ident: $($sentence:ident)*;)*) => {
        worlds!(@on embedded $($group: $($sentence)*;)*);
        worlds!(@on on_servers $($group: $($sentence)*;)*);
    };
    (@on $world:ident $($group:ident: $($sentence:ident)*;)*) => {
        mod $world {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    super::$group::$sentence(super::world::World::$world().await).await;
                }
            )*)*
        }
    };
}

worlds! {
    telling:
        an_alert_and_its_recovery_reach_every_endpoint_of_the_rule
        events_of_a_grouping_window_go_out_together
        silenced_alerts_are_not_sent_and_nor_are_their_recoveries
        an_alert_that_fires_still_when_its_silence_ends_is_told_once
        within_the_cooldown_the_same_alert_is_not_sent_again
        an_alert_that_fires_still_when_its_cooldown_is_over_is_told_then
        an_alert_that_is_silenced_when_its_cooldown_is_over_is_not_told
        what_ends_the_alert_before_is_told_before_what_a_cooldown_holds_back
        an_alert_that_was_given_up_begins_no_cooldown
        what_has_ended_is_forgotten_in_the_end
        an_event_that_comes_twice_is_told_once
        a_message_that_is_no_event_becomes_a_dead_letter
        what_cannot_be_told_says_why
        a_test_is_sent_at_once_and_marked;
    ordering:
        a_recovery_waits_for_its_alert_however_often_that_fails
        a_recovery_is_withheld_when_its_alert_was_given_up
        a_recovery_is_withheld_however_its_alert_failed
        of_a_group_only_the_recoveries_of_undelivered_alerts_are_left_out
        an_alert_that_is_sent_again_goes_before_its_recovery
        a_recovery_that_comes_first_puts_its_alert_before_it
        several_notifiers_share_the_work_and_keep_the_order;
    faults:
        what_was_sent_and_not_recorded_is_sent_again_with_the_same_id
        what_was_held_back_then_sent_and_not_recorded_is_sent_again_before_its_recovery
        what_was_taken_and_not_acked_is_told_once
        an_orderly_end_waits_for_attempts_under_way;
    receivers:
        what_was_given_up_is_sent_again_on_request
        a_receiver_that_is_gone_is_disabled
        a_receiver_that_asks_to_wait_is_waited_for;
}
