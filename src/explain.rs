//! `explain LOGIN`: each policy and rule in order, what it saw, and the verdict with its reason code.

use std::fmt::Write;

use crate::domain::time::span;
use crate::domain::{WallClock, printable};
use crate::inventory::{Facts, Now, StoredPin, User};
use crate::journal::HistoryRow;
use crate::plan::{Mismatch, Planner, Skip, Verdict, rules};
use crate::policy::{OnLeave, PinRewrite, Placement, Policy, Rewrite, Selector};

/// The whole answer for one user, as lines of text. Holds no secret: PINs are named by their expiry only.
pub fn explain(policies: &[Policy], planner: &Planner<'_>, user: &User, facts: &Facts) -> String {
    let mut text = String::new();
    let out = &mut text;
    let _ = writeln!(out, "User {} “{}”", user.id, printable(&user.login));
    line(out, "e-mail", if user.email.is_empty() { "none".into() } else { format!("“{}”", printable(&user.email)) });
    line(out, "cost center", format!("id {}, number {}", user.cost_center.id, user.cost_center.number));
    // Where no policy asks, they are not read.
    if policies.iter().any(|policy| !rules::named_roles(policy).is_empty()) {
        let roles: Vec<String> = user.roles.iter().map(|role| format!("id {role}")).collect();
        line(out, "roles", if roles.is_empty() { "none".into() } else { roles.join(", ") });
    }
    line(out, "cards", user.cards.to_string());
    match user.pins.as_slice() {
        [] => line(out, "PINs", "none".into()),
        pins => pins.iter().for_each(|pin| line(out, "PIN", said_of(pin, planner.now()))),
    }
    // Where no policy asks, nobody has looked.
    if policies.iter().any(|policy| policy.code.is_some()) {
        line(out, "code", if user.code.is_some() { "there is one" } else { "none" }.into());
    }
    if policies.iter().any(|policy| policy.password.is_some()) {
        line(out, "password", password(user));
    }
    line(out, "keeper", facts.keeper.as_ref().map_or("none".into(), |k| k.to_string()));
    line(out, "last issue", facts.last_generated.map_or("none known".into(), |at| at.to_string()));
    line(out, "mail", if facts.open { "not accepted yet" } else { "nothing waiting" }.into());
    line(out, "on hold", if facts.held { "yes" } else { "no" }.into());
    if let Some(reached) = planner.pilot_reaches(user) {
        line(out, "pilot", if reached { "yes, named" } else { "no: changes are confined to others" }.into());
    }

    let owner = planner.owner(user, facts).ok().flatten();
    for (index, policy) in policies.iter().enumerate() {
        let _ = writeln!(out, "\nPolicy {} “{}”", index + 1, policy.name);
        match planner.mismatch(&policy.selector, user) {
            Ok(Some(which)) => line(out, "match", format!("no: {} {}", which.as_str(), condition(which, &policy.selector))),
            Ok(None) => line(out, "match", "yes".into()),
            Err(which) => line(out, "match", format!("cannot be decided: {} needs too many steps", which.as_str())),
        }
        if let Some(owner) = owner.filter(|o| o.policy == index) {
            line(out, "owner", if owner.kept { "yes, as keeper (it served the user last)" } else { "yes, the first that matches" }.into());
            asks(out, policy, planner, index, user);
        }
    }
    if owner.is_none()
        && let Some((policy, leave)) = planner.left_policy(facts).and_then(|p| Some((&policies[p], policies[p].pin.as_ref()?.on_leave)))
    {
        let what = match leave {
            OnLeave::Keep => "keeps the PIN that was issued",
            OnLeave::Expire => "ends the PIN that was issued",
            OnLeave::Delete => "removes the PIN that was issued",
        };
        let _ = writeln!(out, "\nLeft “{}”, whose pin.on_leave {what}", policy.name);
    }
    let _ = writeln!(out, "\nVerdict: {}", verdict(policies, planner.verdict(user, facts)));
    text
}

/// One issuance in one line.
pub fn history_line(row: &HistoryRow) -> String {
    let mut text = format!(
        "#{} {} user {} “{}”, policy {}, {}",
        row.issuance,
        row.planned_at,
        row.user,
        printable(&row.login),
        row.policy,
        row.state.as_str()
    );
    if !row.changes.is_empty() {
        let _ = write!(text, ": {}", row.changes.join(", "));
    }
    match row.attempts {
        0 => {}
        1 => text.push_str("; tried once"),
        n => _ = write!(text, "; tried {n} times"),
    }
    if let Some(code) = row.last_reply {
        let _ = write!(text, ", the mail server said {code}");
    }
    if let Some(at) = row.next_attempt {
        let _ = write!(text, ", next try at {at}");
    }
    let _ = write!(text, "; pass {}", row.pass);
    text
}

fn line(out: &mut String, name: &str, value: String) {
    let _ = writeln!(out, "  {name:<12} {value}");
}

fn password(user: &User) -> String {
    match user.password.as_ref().map(|password| password.issued) {
        None => "none".to_owned(),
        Some(Some(at)) => format!("there is one, issued by credkeeper {at}"),
        Some(None) => "there is one, not issued by credkeeper".to_owned(),
    }
}

fn rewritten(rewrite: Rewrite) -> &'static str {
    match rewrite {
        Rewrite::Never => "never rewritten",
        Rewrite::Always => "rewritten at each selection",
    }
}

fn said_of(pin: &StoredPin, now: Now) -> String {
    let end = match pin.expires {
        None => "never expires".to_owned(),
        Some(at) if at <= now.wall => format!("expired {at}"),
        Some(at) => format!("valid until {at}"),
    };
    let origin = match pin.issued {
        Some(at) => format!("issued by credkeeper {at}"),
        None if pin.foreseen => "not issued by credkeeper, which set its end".to_owned(),
        None => "not issued by credkeeper".to_owned(),
    };
    format!("{end}, {}", origin)
}

fn condition(which: Mismatch, selector: &Selector) -> String {
    let pattern =
        |p: &Option<crate::domain::Pattern>| p.as_ref().map_or(String::new(), |p| format!("does not match {} as a whole", p.source()));
    let list = |items: Vec<String>| items.join(", ");
    match which {
        Mismatch::Username => pattern(&selector.username),
        Mismatch::Email => pattern(&selector.email),
        Mismatch::CostCenter => format!("is none of {}", list(selector.cost_center.iter().map(ToString::to_string).collect())),
        Mismatch::NotCostCenter => format!("is one of {}", list(selector.not_cost_center.iter().map(ToString::to_string).collect())),
        Mismatch::Role => format!("is none of {}", list(selector.role.iter().map(ToString::to_string).collect())),
        Mismatch::NotRole => format!("is one of {}", list(selector.not_role.iter().map(ToString::to_string).collect())),
        Mismatch::HasCard => format!("is not {}", selector.has_card.unwrap_or_default()),
        Mismatch::Source => format!("is none of {}", list(selector.source.clone())),
    }
}

fn asks(out: &mut String, policy: &Policy, planner: &Planner<'_>, index: usize, user: &User) {
    if policy.excludes() {
        line(out, "asks", "nothing: its users are left alone".into());
    }
    if let Some(rule) = &policy.pin {
        let rewrite = match rule.rewrite {
            PinRewrite::Never => "never rewritten",
            PinRewrite::Expired => "rewritten when expired",
            PinRewrite::Extend => "extended when expired",
            PinRewrite::Always => "rewritten at each selection",
        };
        let until = planner.expiry(index, user).map_or("without an end".to_owned(), |at: WallClock| format!("valid until {at}"));
        line(out, "pin", format!("{} digits, {rewrite}, a new one {until}", rule.length.digits()));
        if let Some(every) = rule.rotate_every {
            line(out, "rotated", format!("at the age of {}", span(rule.spread_by(every, user.id))));
        }
        if rule.cap_unlimited {
            line(out, "capped", "a PIN that never expires gets an end".into());
        }
        if rule.send_existing {
            line(out, "told", "a valid PIN that is there, too, with whatever else changes".into());
        }
    }
    if let Some(rule) = &policy.code {
        line(out, "code", format!("{} digits, {}", rule.length.digits(), rewritten(rule.rewrite)));
    }
    if let Some(rule) = &policy.password {
        let every = rule.rotate_every.map_or(String::new(), |every| format!(", rotated at the age of {}", span(every)));
        line(out, "password", format!("{} characters, {}{every}", rule.length.characters(), rewritten(rule.rewrite)));
    }
    if policy.credentials().next().is_some() {
        line(
            out,
            "recipient",
            match rules::recipient(policy, user) {
                Ok(Some(mailbox)) => mailbox.to_string(),
                Ok(None) => "nobody, as configured".into(),
                Err(why) => format!("none: what stands there {why}"),
            },
        );
    }
    if let Some(placement) = &policy.placement {
        let what = if matches!(placement, Placement::ByUsername(_)) { " (by user name)" } else { "" };
        let said = match placement.of(&user.login) {
            Ok(Some(target)) => {
                let found = planner.target(index, user);
                let found = found.map_or("which the database does not have".to_owned(), |p| format!("id {}, number {}", p.id, p.number));
                format!("{target}{what}: {found}")
            }
            Ok(None) => "nowhere: no pattern of by_username matches".to_owned(),
            Err(error) => format!("cannot be decided: {error}"),
        };
        line(out, "move to", said);
    }
    if let Some(role) = &policy.remove_role {
        let found = planner.removed_role(index).map_or("which the database does not have".to_owned(), |found| format!("id {}", found.id));
        line(out, "remove role", format!("{role}: {found}"));
    }
}

fn verdict(policies: &[Policy], verdict: Verdict) -> String {
    match verdict {
        Verdict::Due(step) => {
            let mut asked: Vec<String> = step.reasons().map(|r| format!("{} ({})", r.as_str(), r.sentence())).collect();
            asked.extend(step.pin.map(|pin| format!("so: {}", pin.action.sentence())));
            format!("due under “{}”: {}", policies[step.policy()].name, asked.join("; "))
        }
        Verdict::Skipped { policy, skip } => {
            let more = if skip == Skip::TooSoon { ", see limits.min_interval" } else { "" };
            format!("skipped under “{}”: {} ({}{more})", policies[policy].name, skip.as_str(), skip.sentence())
        }
        Verdict::Failed { policy, failure } => {
            format!("failed under “{}”: {} ({})", policies[policy].name, failure.as_str(), failure.sentence())
        }
        Verdict::Settled { policy } => format!("settled under “{}”: nothing to do", policies[policy].name),
        Verdict::Untouched(why) => format!("untouched: {} ({})", why.as_str(), why.sentence()),
    }
}
