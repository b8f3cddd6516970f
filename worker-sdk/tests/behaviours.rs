//! What a user may rely on: one suite, run over memory (under paused time) and over a
//! real etcd.

mod behaviours {
    pub(crate) mod failing;
    pub(crate) mod fleet;
    pub(crate) mod publishing;
    pub(crate) mod world;
}

use behaviours::{failing, fleet, publishing};

/// Each behaviour as a test of its own on each backend.
macro_rules! suite {
    ($($room:ident: $($name:ident),+ $(,)?;)+) => {
        mod memory {
            $(pub(crate) mod $room {$(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    crate::$room::$name(crate::behaviours::world::World::memory()).await;
                }
            )+})+
        }
        mod etcd {
            $(pub(crate) mod $room {$(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::$room::$name(crate::behaviours::world::World::etcd(stringify!($name))).await;
                }
            )+})+
        }
    };
}

suite! {
    publishing:
        a_published_task_gives_its_typed_result,
        a_saved_ref_is_awaited_by_another_client,
        a_publisher_awaits_all_its_tasks_by_one_watch,
        a_delayed_task_is_not_run_before_its_time,
        headers_and_a_large_payload_arrive,
        publishing_again_under_the_same_id_is_the_same_task,
        a_publish_whose_answer_is_lost_is_one_task,
        an_unknown_definition_is_refused_and_nothing_is_written,
        a_payload_over_the_limit_is_refused_before_it_is_sent,
        a_task_that_never_existed_is_not_found,
        a_definition_on_hold_and_drain_takes_no_tasks,
        an_unknown_outcome_is_settled_by_publishing_again_from_elsewhere,
        a_parked_task_is_known_for_longer_than_its_record,
        a_result_is_not_there_before_the_task_has_ended;
    failing:
        a_failed_attempt_is_tried_again_and_counted,
        a_task_is_parked_after_its_last_attempt_with_the_errors,
        a_parked_verdict_is_final,
        a_cancelled_verdict_is_final,
        snoozing_costs_no_attempt,
        a_panic_is_a_failed_attempt_and_harms_nobody_else,
        a_handler_that_takes_too_long_is_cancelled_and_its_attempt_fails,
        a_payload_that_does_not_decode_is_parked_and_blocks_nobody,
        a_result_over_the_limit_is_a_typed_failure;
    fleet:
        no_more_handlers_run_than_there_are_slots,
        a_cordoned_worker_says_so_and_takes_nothing,
        a_worker_whose_live_key_is_gone_begins_anew,
        a_draining_worker_hands_back_what_it_has_not_seen_yet,
        a_verdict_on_the_way_out_counts,
        a_drain_ends_in_time_though_nobody_answers,
        a_drained_worker_hands_back_and_no_attempt_is_charged,
        a_drained_worker_finishes_what_it_can,
        a_killed_workers_tasks_run_elsewhere_and_no_attempt_is_charged,
        a_worker_cut_off_from_the_registry_cannot_settle_late,
        a_singleton_runs_on_one_worker_at_a_time_and_is_taken_over;
}

/// What takes minutes by the clock on the wall.
#[tokio::test(start_paused = true)]
async fn a_result_whose_signal_was_lost_is_found_by_the_slow_look() {
    publishing::a_result_whose_signal_was_lost_is_found(behaviours::world::World::memory()).await;
}
