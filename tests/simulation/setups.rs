//! The configurations that schedules run with, and what each promises to a user who can be served. The promises are said
//! here once more, in other words than the planner's, and are asked when all has come to rest.

use crate::database::{Person, Snapshot};

pub struct Setup {
    pub name: &'static str,
    /// Keys of the database's entry.
    pub keys: &'static str,
    pub limits: &'static str,
    pub mail: &'static str,
    pub policies: &'static str,
    /// Whether a user is as the policies promise, who is active, has an address and is not on hold.
    pub is_served: Served,
}

/// Asked with what stands in the database, the user, which PINs are ours, and the time on the wall clock.
pub type Served = fn(&Snapshot, &Person, &dyn Fn(&str) -> bool, i64) -> bool;

const CIPHER: &str = "cac_cipher: {algorithm: aes-128-cbc, key: '07070707070707070707070707070707'}";

pub const SETUPS: [Setup; 8] = [
    Setup {
        name: "issue and move, one user in a batch",
        keys: "",
        limits: "batch_size: 1, min_interval: 0s",
        mail: "connections: 1",
        policies: "
  - name: visitors
    match: {cost_center: [Needs PIN]}
    pin: {length: 6, rewrite: never, valid_for: 30d}
    cost_center: {move_to: Has PIN}
    notify: {to: email, template: t}
",
        is_served: |_, person, _, _| person.center != 11,
    },
    Setup {
        name: "expired PINs are renewed, keepers and reminders",
        keys: "",
        limits: "batch_size: 3, min_interval: 0s",
        mail: "connections: 2, give_up_after: 2h",
        policies: "
  - name: staff
    match: {cost_center: [Staff]}
    pin: {length: 6, rewrite: expired, valid_for: 4d, spread: 1d}
    notify: {to: email, template: t, reminders: [1d]}
  - name: visitors
    match: {cost_center: [Needs PIN]}
    pin: {length: 6, rewrite: expired, valid_for: 10d}
    cost_center: {move_to: Has PIN}
    notify: {to: email, template: t, reminders: [2d, 6h]}
",
        is_served: |db, person, _, now| person.center != 11 && (person.center != 13 || db.has_pins(person, |pin| pin.is_valid(now))),
    },
    Setup {
        name: "PINs are extended and capped",
        keys: "",
        limits: "batch_size: 2, min_interval: 0s",
        mail: "connections: 1",
        policies: "
  - name: staff
    match: {cost_center: [Staff, Needs PIN]}
    pin: {length: 6, rewrite: extend, valid_for: 5d, cap_unlimited: true, send_existing: false}
    notify: {to: email, template: t}
",
        is_served: |db, person, _, now| {
            !matches!(person.center, 11 | 13) || db.has_pins(person, |pin| pin.is_valid(now) && pin.end.is_some())
        },
    },
    Setup {
        name: "PIN, card assignment code and password",
        keys: CIPHER,
        limits: "batch_size: 2, min_interval: 0s",
        mail: "connections: 1, give_up_after: 1d",
        policies: "
  - name: staff
    match: {cost_center: [Staff, Needs PIN]}
    pin: {length: 6, rewrite: expired, valid_for: 20d}
    card_assignment_code: {length: 8, rewrite: never}
    password: {length: 12, rewrite: never}
    notify: {to: email, template: t}
",
        is_served: |db, person, _, now| {
            let whole = !person.code.is_empty() && !person.password.is_empty();
            !matches!(person.center, 11 | 13) || (whole && db.has_pins(person, |pin| pin.is_valid(now)))
        },
    },
    Setup {
        name: "PINs and passwords of ours are renewed by age",
        keys: "",
        limits: "batch_size: 5, min_interval: 0s",
        mail: "connections: 2",
        policies: "
  - name: staff
    match: {cost_center: [Staff]}
    pin: {length: 6, rewrite: always, rotate_every: 7d, spread: 1d}
    password: {length: 10, rewrite: never, rotate_every: 20d}
    notify: {to: email, template: t}
",
        is_served: |db, person, is_ours, _| {
            person.center != 13 || (!person.password.is_empty() && db.has_pins(person, |pin| is_ours(&pin.value)))
        },
    },
    Setup {
        name: "who leaves loses his PIN, and nobody is told of some",
        keys: "",
        limits: "batch_size: 4, min_interval: 0s",
        mail: "connections: 1",
        policies: "
  - name: staff
    match: {cost_center: [Staff]}
    pin: {length: 6, rewrite: expired, valid_for: 30d, on_leave: expire}
    notify: {to: email, template: t}
  - name: machines
    match: {cost_center: [Needs PIN]}
    pin: {length: 6, rewrite: never, on_leave: delete}
    notify: {to: none, unannounced: true}
",
        is_served: |db, person, is_ours, now| match person.center {
            13 => db.has_pins(person, |pin| pin.is_valid(now)),
            11 => db.has_pins(person, |_| true),
            _ => !db.pins(person).any(|pin| is_ours(&pin.value) && pin.is_valid(now)),
        },
    },
    Setup {
        name: "what cannot be delivered is taken back",
        keys: "",
        limits: "batch_size: 3, min_interval: 0s",
        mail: "connections: 1, give_up_after: 2h, on_undeliverable: take_back",
        policies: "
  - name: staff
    match: {cost_center: [Staff]}
    pin: {length: 6, rewrite: expired, valid_for: 3d}
    notify: {to: email, template: t}
  - name: visitors
    match: {cost_center: [Needs PIN]}
    pin: {length: 6, rewrite: expired, valid_for: 3d}
    password: {length: 8}
    cost_center: {move_to: Has PIN}
    notify: {to: email, template: t}
",
        is_served: |db, person, _, now| match person.center {
            11 => false,
            13 => db.has_pins(person, |pin| pin.is_valid(now)),
            _ => true,
        },
    },
    Setup {
        name: "few PINs, a slow pace and patience",
        keys: "",
        limits: "batch_size: 3, min_interval: 5m, mails_per_minute: 4",
        mail: "connections: 1, give_up_after: 1h",
        policies: "
  - name: staff
    match: {cost_center: [Staff, Needs PIN]}
    pin: {length: 2, rewrite: expired, valid_for: 2d, allow_dense: true, quarantine: 0d}
    notify: {to: email, template: t}
",
        is_served: |db, person, _, now| !matches!(person.center, 11 | 13) || db.has_pins(person, |pin| pin.is_valid(now)),
    },
];

impl Setup {
    /// The configuration, for a mail server at this port.
    pub fn yaml(&self, port: u16) -> String {
        let comma = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
        let (keys, limits, mail, policies) = (comma(self.keys), comma(self.limits), comma(self.mail), self.policies);
        let undeliverable = if self.mail.contains("on_undeliverable") { "" } else { ", on_undeliverable: keep" };
        let pace = if self.limits.contains("mails_per_minute") { "" } else { ", mails_per_minute: unlimited" };
        format!(
            "databases: [{{name: main, url: 'sqlite:site.db', profile: sandbox, password_encoding: md5, schema_map: {{cost_centers: {{verified: true}}, \
               users: {{puk: {{column: puk, verified: true}}}}}}{keys}}}]
limits: {{users_per_pass: unlimited, replace_percent: unlimited, users_shrunk: unlimited, pinless_rise: unlimited, \
               unexplained_pins: unlimited{pace}{limits}}}
policies:{policies}
mail: {{transport: smtp, host: 127.0.0.1, port: {port}, tls: none, hello_name: sim.example.com, from: print@example.com{undeliverable}{mail}}}
templates:
  t:
    subject: 'For {{{{ username }}}}'
    parts: ['PIN {{{{ pin }}}}', 'CODE {{{{ card_assignment_code }}}}', 'PASSWORD {{{{ password }}}}', 'USER {{{{ username }}}}']
    reminder: {{subject: Soon, parts: ['REMINDER UNTIL {{{{ expires }}}}', 'USER {{{{ username }}}}']}}
  gone: {{subject: Gone, parts: ['PIN {{{{ pin }}}}', 'USER {{{{ username }}}}']}}
journal: {{path: journal.db, key: {{file: journal.key}}}}
"
        )
    }
}
