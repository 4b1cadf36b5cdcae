//! What every broker must do: one function per sentence, run against each implementation.

mod consuming;
mod dead_letters;
mod peeking;
mod publishing;
mod queues;
mod world;

/// Runs each sentence against the embedded broker on a file and against RabbitMQ.
macro_rules! sentences {
    ($($module:ident: $($sentence:ident),+ $(,)?;)+) => {
        mod embedded {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let world = crate::world::World::embedded();
                    crate::$module::$sentence(&world).await;
                }
            )+)+
        }

        mod rabbitmq {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let world = crate::world::World::rabbitmq().await;
                    crate::$module::$sentence(&world).await;
                }
            )+)+
        }
    };
}

sentences! {
    queues:
        declaring_twice_is_the_same_as_once,
        depth_counts_what_is_ready_and_what_is_unacked,
        a_queue_that_holds_a_message_is_not_deleted_when_only_an_empty_one_may_be,
        deleting_a_queue_takes_its_messages_and_dead_letters_along,
        deleting_a_queue_that_is_not_there_succeeds,
        what_is_asked_of_an_unknown_queue_is_an_error_that_names_it,
        names_that_belong_to_the_broker_are_refused,
        the_broker_answers_a_ping;
    publishing:
        a_confirmed_message_is_delivered_as_it_was_sent,
        messages_of_one_publisher_come_in_order,
        a_window_goes_to_many_queues,
        an_unknown_queue_in_a_window_is_named_and_the_rest_is_confirmed,
        an_empty_window_is_confirmed,
        many_publishers_at_once_lose_nothing,
        a_message_of_ten_megabytes_is_carried;
    peeking:
        a_look_shows_what_waits_in_order_and_takes_nothing,
        a_look_does_not_change_the_order_whatever_was_given_back_before,
        what_is_consumed_is_not_shown_as_waiting,
        replays_of_a_message_are_counted;
    consuming:
        an_empty_queue_gives_nothing_after_the_wait,
        a_large_message_on_its_way_is_here_behind_the_fence,
        a_message_that_arrives_wakes_a_waiting_consumer,
        no_more_than_prefetch_messages_are_unsettled,
        two_consumers_share_a_queue,
        acked_messages_never_come_again_in_whatever_order_they_are_acked,
        what_was_acked_before_a_consumer_was_dropped_or_closed_stays_so,
        a_small_prefetch_is_not_taken_up_by_acks_that_wait,
        released_messages_come_again_at_once,
        a_consumer_that_is_dropped_gives_its_messages_back_counted,
        a_consumer_that_is_closed_gives_its_messages_back,
        a_failed_message_comes_again_after_a_delay_and_counts,
        after_the_last_permitted_delivery_a_message_is_a_dead_letter,
        poison_does_not_block_its_neighbours,
        a_delivery_of_another_consumer_cannot_be_settled,
        a_consumer_of_a_deleted_queue_is_lost,
        a_receive_that_is_cancelled_loses_nothing;
    dead_letters:
        a_dead_letter_tells_why_when_and_where_it_died,
        dead_letters_are_listed_oldest_first_by_pages,
        listing_changes_nothing,
        replayed_dead_letters_are_delivered_as_new,
        discarded_dead_letters_are_gone,
        dead_letters_are_counted_by_queue,
        dead_letters_can_be_added_directly;
}
