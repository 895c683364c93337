use super::*;
use crate::policy::{PinRule, samples};

fn policy(name: &str, length: Option<u8>, allow_dense: bool) -> Policy {
    let rule = |digits| PinRule { allow_dense, ..samples::rule(digits) };
    Policy { pin: length.map(rule), ..samples::policy(name) }
}

/// A database of `pins` whose lengths cannot be told.
fn hidden(pins: u64) -> Counts {
    Counts { pins, ..Counts::default() }
}

/// `pins` of four digits, and ten times as many of six.
fn told(pins: u64) -> Counts {
    let mut by_length = [0; 16];
    (by_length[3], by_length[5]) = (pins, 10 * pins);
    Counts { pins: 11 * pins, by_length: Some(by_length), ..Counts::default() }
}

/// Sentence, policies, figures, what the plan adds for each policy, what is said of each density.
type Row<'a> = (&'a str, Vec<Policy>, Counts, &'a [u64], &'a [Crowding]);

#[test]
fn a_space_is_warned_of_above_one_percent_and_refused_above_ten() {
    use Crowding::{Dense, Fine, TooDense};
    let (four, six) = (policy("four", Some(4), false), policy("six", Some(6), false));
    #[rustfmt::skip]
    let table: &[Row<'_>] = &[
        ("an empty database", vec![four.clone()], hidden(0), &[0], &[Fine]),
        ("one in a hundred is fine", vec![four.clone()], hidden(100), &[0], &[Fine]),
        ("more is dense", vec![four.clone()], hidden(101), &[0], &[Dense]),
        ("one in ten is dense", vec![four.clone()], hidden(1000), &[0], &[Dense]),
        ("more is too dense", vec![four.clone()], hidden(1001), &[0], &[TooDense]),
        ("too dense on purpose", vec![policy("p", Some(4), true)], hidden(9999), &[1], &[Dense]),
        ("what the plan adds counts", vec![four.clone()], hidden(500), &[501], &[TooDense]),
        ("a longer PIN has room", vec![six.clone()], hidden(1001), &[0], &[Fine]),
        ("hidden lengths count for every policy", vec![four.clone(), six.clone()], hidden(600), &[200, 201], &[TooDense, Fine]),
        ("lengths that are told count for their own", vec![four.clone(), six.clone()], told(600), &[400, 4001], &[Dense, Dense]),
        ("the other length fills up alone", vec![four, six], told(600), &[0, 94_001], &[Dense, TooDense]),
        ("a policy without PINs has no density", vec![policy("mover", None, false)], hidden(5000), &[0], &[]),
    ];
    for (sentence, policies, counts, added, expected) in table {
        let crowding: Vec<Crowding> = densities(policies, counts, added).iter().map(Density::crowding).collect();
        assert_eq!(crowding, *expected, "{sentence}");
    }
}

#[test]
fn the_ratio_is_of_what_is_stored_now() {
    let densities = densities(&[policy("p", Some(3), false)], &hidden(50), &[7]);
    assert!((densities[0].ratio() - 0.05).abs() < 1e-12);
    assert_eq!(densities[0].to_string(), "policy p: 57 PINs (7 of them new) of the 1000 that 3 digits give (5.7%)");
}

#[test]
fn a_refusal_has_its_figures_and_says_what_to_do() {
    use crate::plan::limits::{LimitKind, judge_density};
    let of = |pins| densities(&[policy("p", Some(3), false)], &hidden(pins), &[5]).remove(0);
    assert_eq!(judge_density(&of(95), || unreachable!()), None);
    let refusal = judge_density(&of(96), || "abc".into()).unwrap();
    assert_eq!((refusal.limit, refusal.asked, refusal.of, refusal.allowed.as_str()), (LimitKind::PinDensity, 101, Some(1000), "10%"));
    let said = refusal.to_string();
    assert!(said.contains("101 of the 1000 PINs") && said.contains("pin.allow_dense: true"), "{said}");
}
