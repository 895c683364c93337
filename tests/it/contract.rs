//! What every dialect must do, asked of SQLite and of PostgreSQL in all the shapes that a site may have.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use credkeeper::domain::{CostCenterId, CostCenterRef, Pin, PinFormat, StoredValue, UserId, WallClock};
use credkeeper::inventory::{Membership, Standing};
use credkeeper::store::{AfterImage, Committed, DueFilter, Filter, InCostCenter, Outcome, PinTarget, Pinless, Store, UserChange, Wanted};
use futures_util::StreamExt;

use crate::bench::{
    Bench, LATER, LONG_AGO, NewUser, end_pins, has_pin, ids, moved, named, new_pin, only_move, pin, read, remove_pins, stored, user,
    user_id, with_value,
};

mod back;
mod placement;
#[cfg(unix)]
mod postgres;
mod reads;
mod values;
mod writes;

use back::*;
use reads::*;
use values::*;
use writes::*;

/// Runs every case on a fresh set of users; the name of the case is printed, and shown when it fails.
async fn every_case(bench: &Bench) {
    macro_rules! run {
        ($($case:ident),+ $(,)?) => {$(
            eprintln!("case: {}", stringify!($case));
            bench.reset().await;
            $case(bench).await;
        )+};
    }
    run!(
        a_row_is_read_as_it_stands,
        standing_is_told_apart,
        filters_return_part_of_the_whole_and_the_same_rows,
        a_filter_that_nobody_meets_returns_nobody,
        reads_come_in_chunks,
        sql_and_rust_agree_on_what_a_pin_is,
        figures_and_places,
        figures_tell_forms_lengths_and_who_has_no_pin,
        who_has_no_pin_is_told_only_where_all_are_looked_at,
        a_pin_is_inserted_with_its_expiry_and_defaults,
        whoever_got_a_pin_meanwhile_is_left_alone,
        a_pin_that_stands_in_any_form_is_taken,
        two_users_of_a_batch_never_get_the_same_pin,
        an_expired_pin_is_replaced_in_place_and_what_is_not_mapped_lives,
        two_pins_and_duplicates_become_one,
        a_replacement_compares_all_that_was_named,
        a_new_end_changes_the_chosen_pins_and_nothing_else,
        only_the_chosen_pins_are_removed,
        new_ends_and_removals_compare_all_that_was_named,
        every_value_of_the_card_column_is_read,
        a_move_compares_and_writes_both_halves,
        whoever_is_refused_a_pin_is_not_moved,
        a_move_that_misses_after_the_pin_tears_and_cannot_be_committed,
        dropping_rolls_back_and_frees_the_lock,
        one_batch_of_everything,
        who_is_gone_is_changed_meanwhile,
        what_landed_is_what_stands_whole,
        codes_and_passwords_are_read_only_where_a_policy_asks,
        who_lacks_a_code_or_a_password_is_found,
        codes_and_passwords_are_written_where_the_old_ones_stand,
        a_code_is_one_users,
        a_password_that_misses_after_the_pin_tears,
        a_pin_comes_beside_those_that_are_named,
        an_end_goes_again,
        a_code_and_a_password_go_again,
        hostile_text_goes_in_and_out_unchanged,
        one_leads,
        the_clock_goes,
    );
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    every_case(&Bench::sqlite().await).await;
}

// ---- what each case needs ----

/// One batch from begin to commit.
async fn write(store: &Store, changes: &[UserChange]) -> Vec<Outcome> {
    let batch: Vec<UserId> = changes.iter().map(|c| c.user).collect();
    let (mut transaction, _) = store.begin(&batch).await.expect("begin");
    let outcomes = transaction.write(changes).await.expect("write");
    match transaction.commit().await {
        Committed::Yes => outcomes,
        other => panic!("{other:?} after {outcomes:?}"),
    }
}

fn image(change: &UserChange) -> AfterImage {
    let mut image = AfterImage::of(change.user);
    match change.pin.as_ref().map(|pin| &pin.to) {
        Some(PinTarget::New(new) | PinTarget::Beside(new)) => image.pins.push((new.value.clone(), new.expires)),
        Some(PinTarget::End { pins, at }) => image.pins.extend(pins.iter().map(|pin| (pin.value.clone(), *at))),
        Some(PinTarget::Gone { pins }) => image.gone.extend(pins.iter().map(|pin| pin.value.clone())),
        None => {}
    }
    image.cost_center = change.cost_center.as_ref().map(|m| m.to.clone());
    image.role_gone = change.role.as_ref().map(|change| change.role().id);
    image
}

fn everything_due() -> DueFilter {
    DueFilter {
        without_pin: Some(InCostCenter::Any),
        expired_at: Some(WallClock(LATER - 86_400)),
        to_move: vec![(InCostCenter::Of(BTreeSet::from([11])), has_pin())],
        ..DueFilter::default()
    }
}

fn expiry(at: i64) -> Option<WallClock> {
    Some(WallClock(at))
}
