//! Six policies at once over 20,000 users, with real mail. Every single user is looked at without the store: rows by SQL,
//! codes and bcrypt by pgcrypto, PINs by MD5, mails as a mail program reads them.
#![cfg(unix)]

use std::collections::{BTreeMap, HashMap};

use md5::{Digest, Md5};

use crate::site::{Mail, Site, is_long};

const KEY: &str = "000102030405060708090a0b0c0d0e0f";
const USERS: i64 = 20_000;

/// What a user is, by id. The rest, beyond the last, nobody asks anything of.
const KINDS: [(Kind, i64); 6] = [
    (Kind::Visitor, 4_000),
    (Kind::Staff, 8_000),
    (Kind::Contractor, 3_000),
    (Kind::CodeOnly, 3_500),
    (Kind::Password, 500),
    (Kind::Everything, 500),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Visitor,
    Staff,
    Contractor,
    CodeOnly,
    Password,
    Everything,
    Nobody,
}

fn kind(id: i64) -> Kind {
    let mut last = 0;
    for (kind, users) in KINDS {
        last += users;
        if id <= last {
            return kind;
        }
    }
    Kind::Nobody
}

/// Of staff and contractors: nothing, a valid PIN, one that has expired, one without an end.
const HAS: [&str; 4] = ["no PIN", "a valid PIN", "an expired PIN", "a PIN without an end"];

fn has(id: i64) -> &'static str {
    HAS[usize::try_from(id % 4).unwrap()]
}

const POLICIES: &str = r"policies:
  - name: visitors
    match: {username: '[^@\s]+@[^@\s]+\.[^@\s]+', cost_center: [Needs PIN]}
    pin: {length: 6, rewrite: never, valid_for: 30d}
    cost_center: {move_to: Has PIN}
    notify: {to: username, template: all}
  - name: everything
    match: {username: 'all\d+', role: [Guest]}
    pin: {length: 7, rewrite: expired, valid_for: 90d}
    card_assignment_code: {length: 8}
    password: {length: 12}
    cost_center: {move_to: Staff}
    remove_role: Guest
    notify: {to: email, template: all}
  - name: passwords
    match: {username: 'pw\d+'}
    password: {length: 10}
    notify: {to: email, template: all}
  - name: codes
    match: {username: 'code\d+'}
    card_assignment_code: {length: 8}
    notify: {to: email, template: all}
  - name: staff
    match: {email: '.*@staff\.example'}
    pin: {length: 6, rewrite: expired, valid_for: 365d}
    notify: {to: email, template: all}
  - name: contractors
    match: {email: '.*@contractor\.example'}
    pin: {length: 6, rewrite: expired, valid_for: 30d, cap_unlimited: true}
    notify: {to: email, template: all}
";

const TEMPLATES: &str = "templates:
  all:
    subject: Your credentials
    parts: ['PIN {{ pin }}', 'CODE {{ card_assignment_code }}', 'PASSWORD {{ password }}']
";

fn configured(yaml: &str) -> String {
    let part = |from: &str, to: &str| {
        let begin = yaml.find(from).unwrap();
        yaml[begin..yaml.find(to).unwrap()].to_owned()
    };
    let head = yaml[..yaml.find("\npolicies:").unwrap() + 1].replace(
        "      cost_centers: {verified: true}\n",
        "      cost_centers: {verified: true}\n      roles: {verified: true}\n      users: {puk: {column: puk, verified: true}}\n",
    );
    let cost = if is_long() { 12 } else { 4 };
    let keys = format!("    cac_cipher: {{algorithm: aes-128-ecb, key: '{KEY}'}}\n    password_encoding: {{bcrypt: {{cost: {cost}}}}}\n");
    let head = head.replace("schedule:", &format!("{keys}schedule:"));
    let journal = &yaml[yaml.find("\njournal:").unwrap() + 1..];
    format!("{head}{POLICIES}{}\n{TEMPLATES}{journal}", part("\nmail:", "\ntemplates:"))
}

/// All users, with what they have before.
fn people() -> String {
    let rows = |column: &dyn Fn(i64, Kind) -> String| {
        (1..=USERS).map(|id| format!("({id}, {})", column(id, kind(id)))).collect::<Vec<_>>().join(",")
    };
    let users = rows(&|id, kind| {
        let (login, domain) = match kind {
            Kind::Visitor => (format!("visitor{id}@guests.example"), ""),
            Kind::Staff => (format!("staff{id}"), "staff.example"),
            Kind::Contractor => (format!("contractor{id}"), "contractor.example"),
            Kind::CodeOnly => (format!("code{id}"), "codes.example"),
            Kind::Password => (format!("pw{id}"), "passwords.example"),
            Kind::Everything => (format!("all{id}"), "everything.example"),
            Kind::Nobody => (format!("nobody{id}"), "nowhere.example"),
        };
        let email = if domain.is_empty() { String::new() } else { format!("u{id}@{domain}") };
        let (ou, number) = if kind == Kind::Visitor { (11, 100) } else { (0, 0) };
        format!("'{login}', '{email}', 1, {ou}, {number}")
    });
    let pin = |id: i64, end: &str| format!("({id}, 'PIN' || md5('{id:08}'), 0, 0, {end})");
    let cards: Vec<String> = (1..=USERS)
        .filter(|id| matches!(kind(*id), Kind::Staff | Kind::Contractor))
        .filter_map(|id| match has(id) {
            "a valid PIN" => Some(pin(id, "localtimestamp + interval '90 days'")),
            "an expired PIN" => Some(pin(id, "localtimestamp - interval '1 hour'")),
            "a PIN without an end" => Some(pin(id, "NULL::timestamp")),
            _ => None,
        })
        .collect();
    let guests: Vec<String> =
        (1..=USERS).filter(|id| kind(*id) == Kind::Everything).map(|id| format!("({id}, 30000), ({id}, 30001)")).collect();
    format!(
        "SET search_path = tenant_1;
         INSERT INTO ou (id, number, name) VALUES (13, 300, 'Staff');
         INSERT INTO users (id, login, email, flag, ou_id, ou_number) VALUES {users};
         INSERT INTO users (id, login, flag) VALUES (30000, 'Guest', 163840), (30001, 'Reader', 163840);
         SELECT setval('users_id_seq', 30001);
         INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES {};
         INSERT INTO users_roles (user_id, role_id) VALUES {};
         CREATE EXTENSION pgcrypto SCHEMA public; ANALYZE",
        cards.join(","),
        guests.join(","),
    )
}

/// A user as the tables have him.
#[derive(Clone, PartialEq, Debug)]
struct Found {
    pins: Vec<(String, Option<i64>)>,
    code: String,
    password: String,
    center: i64,
    roles: Vec<i64>,
}

async fn all(site: &Site) -> BTreeMap<i64, Found> {
    let users =
        site.rows("SELECT id::text, concat_ws('|', coalesce(puk, ''), coalesce(pass, ''), ou_number) FROM users WHERE id <= 20000").await;
    let mut found: BTreeMap<i64, Found> = users
        .into_iter()
        .map(|(id, rest)| {
            let parts: Vec<&str> = rest.split('|').collect();
            let (code, password, center) = (parts[0].to_owned(), parts[1].to_owned(), parts[2].parse().unwrap());
            (id.parse().unwrap(), Found { pins: Vec::new(), code, password, center, roles: Vec::new() })
        })
        .collect();
    let days = "round(extract(epoch FROM pin_expiration_date - localtimestamp) / 86400)";
    for (id, rest) in site.rows(&format!("SELECT user_id::text, concat_ws('|', card, {days}) FROM users_cards ORDER BY card")).await {
        let (card, days) =
            rest.split_once('|').map_or((rest.as_str(), None), |(card, days)| (card, Some(days.parse::<f64>().unwrap() as i64)));
        found.get_mut(&id.parse().unwrap()).unwrap().pins.push((card.to_owned(), days));
    }
    for (id, role) in site.rows("SELECT user_id::text, role_id::text FROM users_roles ORDER BY role_id").await {
        found.get_mut(&id.parse().unwrap()).unwrap().roles.push(role.parse().unwrap());
    }
    found
}

/// What the mails told, by recipient: PIN, code, password.
fn told(mails: &[Mail]) -> HashMap<String, [Option<String>; 3]> {
    let patterns = [r"PIN (\d+)", r"CODE (\d+)", r"PASSWORD (\S+)"].map(|pattern| regex::Regex::new(pattern).unwrap());
    let mut told = HashMap::new();
    for mail in mails {
        let values = patterns.each_ref().map(|pattern| pattern.captures(&mail.text).map(|found| found[1].to_owned()));
        assert!(told.insert(mail.to.clone(), values).is_none(), "two mails to {}", mail.to);
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn six_policies_serve_twenty_thousand_users_and_a_second_run_is_silent() {
    let site = Site::empty().await.with_config(|yaml| configured(&yaml));
    site.sql(&people()).await;
    let before = all(&site).await;
    let first = site.once(&["--max-replace", "unlimited"]);
    assert_eq!(first.code, 0, "{}", first.all());
    let after = all(&site).await;
    let told = told(&site.mails());

    let md5 = |text: &str| Md5::digest(text).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let addresses: HashMap<i64, String> = site
        .rows("SELECT id::text, CASE WHEN email = '' THEN login ELSE email END FROM users WHERE id <= 20000")
        .await
        .into_iter()
        .map(|(id, to)| (id.parse().unwrap(), to))
        .collect();
    let codes: HashMap<i64, String> = site
        .rows(&format!("SELECT id::text, convert_from(public.decrypt(decode(puk, 'base64'), '\\x{KEY}', 'aes-ecb/pad:pkcs'), 'utf8') FROM users WHERE puk <> ''"))
        .await
        .into_iter()
        .map(|(id, code)| (id.parse().unwrap(), code))
        .collect();
    let (mut passwords, mut mailed) = (Vec::new(), 0);
    for id in 1..=USERS {
        let (was, is, kind) = (&before[&id], &after[&id], kind(id));
        let [pin, code, password] = told.get(&addresses[&id]).cloned().unwrap_or_default();
        let who = format!("user {id}, {kind:?} with {}", has(id));
        // The PIN: its length and its days, or as it was.
        let new_pin = match kind {
            Kind::Visitor => Some((6, 30)),
            Kind::Everything => Some((7, 90)),
            Kind::Staff if matches!(has(id), "no PIN" | "an expired PIN") => Some((6, 365)),
            Kind::Contractor if matches!(has(id), "no PIN" | "an expired PIN") => Some((6, 30)),
            _ => None,
        };
        match new_pin {
            Some((digits, days)) => {
                let pin = pin.unwrap_or_else(|| panic!("{who}: no PIN was told"));
                assert_eq!(pin.len(), digits, "{who}");
                assert_eq!(is.pins, [(format!("PIN{}", md5(&pin)), Some(days))], "{who}");
            }
            None => {
                assert_eq!(pin, None, "{who}");
                let capped = kind == Kind::Contractor && has(id) == "a PIN without an end";
                let kept: Vec<_> = was.pins.iter().map(|(card, days)| (card.clone(), if capped { Some(30) } else { *days })).collect();
                assert_eq!(is.pins, kept, "{who}");
            }
        }
        // The code.
        if matches!(kind, Kind::CodeOnly | Kind::Everything) {
            let code = code.unwrap_or_else(|| panic!("{who}: no code was told"));
            assert_eq!((code.len(), codes.get(&id)), (8, Some(&code)), "{who}");
        } else {
            assert_eq!((code, is.code.as_str()), (None, ""), "{who}");
        }
        // The password; what it is stored as is checked below, all at once.
        let length = match kind {
            Kind::Password => 10,
            Kind::Everything => 12,
            _ => 0,
        };
        if length > 0 {
            let password = password.unwrap_or_else(|| panic!("{who}: no password was told"));
            assert_eq!((password.len(), &is.password[..4]), (length, "$2a$"), "{who}");
            passwords.push((id, password));
        } else {
            assert_eq!((password, is.password.as_str()), (None, ""), "{who}");
        }
        let center = match kind {
            Kind::Visitor => 200,
            Kind::Everything => 300,
            _ => 0,
        };
        assert_eq!(is.center, center, "{who}");
        let roles: &[i64] = if kind == Kind::Everything { &[30_001] } else { &[] };
        assert_eq!(is.roles, roles, "{who}: only the one role goes");
        mailed += i64::from(told.contains_key(&addresses[&id]));
    }
    assert_eq!(mailed, i64::try_from(told.len()).unwrap(), "every mail went to one of them");
    // Another implementation of bcrypt, over the password as it was told.
    let list: Vec<String> = passwords.iter().map(|(id, password)| format!("({id}, '{}')", password.replace('\'', "''"))).collect();
    let right = site
        .number(&format!(
            "SELECT count(*) FROM users u JOIN (VALUES {}) t(id, told) ON t.id = u.id WHERE public.crypt(t.told, u.pass) = u.pass",
            list.join(",")
        ))
        .await;
    assert_eq!((right, passwords.len()), (1_000, 1_000));
    let distinct = site.number("SELECT count(DISTINCT puk) FROM users WHERE puk <> ''").await;
    assert_eq!(distinct, 4_000, "no code is held by two");
    let shared = site.number("SELECT count(*) - count(DISTINCT card) FROM users_cards").await;
    assert_eq!(shared, 0, "no PIN is held by two");

    let fingerprint = site.fingerprint().await;
    let again = site.once(&[]);
    assert_eq!(again.code, 0, "{}", again.all());
    assert!(again.stdout.contains("Nothing to do"), "{}", again.stdout);
    assert_eq!(site.fingerprint().await, fingerprint, "the second run writes nothing");
    assert_eq!(site.mails().len(), told.len(), "and mails nobody");
}
