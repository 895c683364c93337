//! Mail, rendered, that waits for room in the courier's queue. At a slow pace, or with a slow mail server, that takes minutes; and
//! what a mail tells may be gone by then. So each has a moment from which on its credential must be looked up again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::domain::template::{Template, Values};
use crate::domain::translation::Reader;
use crate::domain::{IssuanceId, Secret, Timestamp};
use crate::fault::{self, Mistake};
use crate::journal::PendingMail;
use crate::mail::Outgoing;

use super::TRUSTED_FOR;

/// For how much longer a credential is trusted that was known to stand at `known_at`; `None`: it is looked up before its mail.
/// Never no time at all: a mail that may be given, and is stale at once, would be taken again and again until the second is over.
pub(super) fn trusted(known_at: Timestamp, now: Timestamp) -> Option<Duration> {
    if fault::makes(Mistake::NeverLooks) {
        return Some(TRUSTED_FOR);
    }
    TRUSTED_FOR.checked_sub(now.since(known_at)).filter(|left| !left.is_zero())
}

#[derive(Default)]
pub(super) struct Ready(VecDeque<Outgoing>);

impl Ready {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, mail: Outgoing) {
        self.0.push_back(mail);
    }

    /// The next mail to be given, and those before it that lay too long.
    pub(super) fn next(&mut self, now: Instant) -> (Option<Outgoing>, Vec<IssuanceId>) {
        let mut stale = Vec::new();
        while let Some(mail) = self.0.pop_front() {
            if !mail.is_stale(now) {
                return (Some(mail), stale);
            }
            stale.push(mail.id);
        }
        (None, stale)
    }
}

/// The mail as the courier takes it, in its reader's language. `trusted_until`: what it tells was known to stand a minute before.
pub(super) fn rendered(template: &Template, mail: &PendingMail, trusted_until: Instant) -> Outgoing {
    let told = &mail.announcement;
    let reader = Reader {
        username: &told.username,
        email: &told.email,
        cost_center: told.cost_center.as_deref(),
        cost_center_number: told.cost_center_number,
    };
    let rendered = template.read_by(&reader).render(&Values {
        pin: mail.pin.as_ref(),
        code: mail.code.as_ref(),
        password: mail.password.as_ref(),
        username: &told.username,
        name: &told.name,
        surname: &told.surname,
        cost_center: told.cost_center.as_deref().unwrap_or_default(),
        expires: mail.expires.map(|at| at.to_string()),
        policy: &mail.policy.0,
    });
    Outgoing {
        id: mail.id,
        recipient: told.recipient.clone(),
        message_id: told.message_id.clone(),
        subject: rendered.subject,
        text: Secret::new(rendered.text),
        html: rendered.html.map(Secret::new),
        not_after: Some(trusted_until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Mailbox;

    fn mail(id: i64, trusted_until: Instant) -> Outgoing {
        Outgoing {
            id: IssuanceId(id),
            recipient: Mailbox::parse("someone@example.org").unwrap(),
            message_id: format!("m-{id}@example.org"),
            subject: "Your PIN".to_owned(),
            text: Secret::new("PIN 123456".to_owned()),
            html: None,
            not_after: Some(trusted_until),
        }
    }

    #[test]
    fn what_lay_too_long_is_not_given_and_holds_up_no_other() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut ready = Ready::default();
        for (id, until) in [(1, 60), (2, 10), (3, 20), (4, 60), (5, 30)] {
            ready.push(mail(id, after(until)));
        }
        let mut next = |seconds| {
            let (mail, stale) = ready.next(after(seconds));
            (mail.map(|m| m.id.0), stale.iter().map(|id| id.0).collect::<Vec<_>>())
        };
        assert_eq!(next(5), (Some(1), vec![]));
        assert_eq!(next(20), (Some(4), vec![2, 3]), "its moment counts as over");
        assert_eq!(next(30), (None, vec![5]));
        assert_eq!(next(30), (None, vec![]));
        assert!(ready.is_empty());
    }

    #[test]
    fn what_is_trusted_can_be_given_and_what_is_not_is_looked_up() {
        let start = Instant::now();
        for age in 0..=120 {
            let left = trusted(Timestamp(1_000), Timestamp(1_000 + age));
            assert_eq!(left.is_some(), age < 60, "after {age} s");
            let Some(left) = left else { continue };
            let mut ready = Ready::default();
            ready.push(mail(1, start + left));
            assert!(ready.next(start).0.is_some(), "after {age} s it would be taken again and again");
        }
        assert_eq!(trusted(Timestamp(5_000), Timestamp(1_000)), Some(TRUSTED_FOR), "a clock that was set back");
    }
}
