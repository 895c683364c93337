//! The maps that ship with the program, and how overrides are laid over them.

use std::sync::LazyLock;

use crate::config::yaml::{self, Data, Entry, Node};

/// `profile`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum Profile {
    SafeQ6,
    SafeQ5,
    Sandbox,
    /// Nothing: the configuration names everything.
    Custom,
}

/// What is `verified: false` is a guess that nobody has seen confirmed; a feature that writes through it is refused.
const SAFEQ6: &str = "
users: {table: users, id: id, login: login, email: email, name: name, surname: surname, password: pass, puk: {column: puk, verified: false},
        is_user: {all: [{bits_set: {column: flag, mask: 1}}, {bits_clear: {column: flag, mask: 49152}}]}, is_deleted: null, source: source}
cards: {table: users_cards, user: user_id, value: card, expires: {column: pin_expiration_date, type: timestamp, zone: local},
        insert_defaults: {replicated_card: 0, replicated_card_flag: 0}}
cost_centers: {model: column, table: ou, id: id, number: number, name: name,
               member: {id_column: ou_id, number_column: ou_number}, verified: false}
roles: {model: users_rows, name: login, where: {bits_set: {column: flag, mask: 32768}},
        link: {table: users_roles, user: user_id, role: role_id}, verified: false}
";

/// The columns that came with version 6 are not there.
const SAFEQ5: &str = "
users: {source: null}
cost_centers: {member: {number_column: null}}
";

/// The sandbox is ours: its names are facts.
const SANDBOX: &str = "
users: {puk: {verified: true}}
cost_centers: {verified: true}
roles: {verified: true}
";

/// Keys whose value is one thing, replaced as a whole: two tests side by side would be no test, and a column that an
/// insert shall not set could otherwise never be taken out.
const WHOLE: [&str; 4] = ["is_user", "is_deleted", "where", "insert_defaults"];

impl Profile {
    /// The schema where the configuration names none.
    pub(in crate::config) fn schema(self) -> Option<&'static str> {
        (self == Profile::SafeQ6).then_some("tenant_1")
    }

    /// The map before any override.
    pub(super) fn map(self) -> &'static Node {
        static SHIPPED: LazyLock<[Node; 3]> = LazyLock::new(|| {
            let safeq6 = built_in(SAFEQ6);
            [merged(&safeq6, &built_in(SAFEQ5)), merged(&safeq6, &built_in(SANDBOX)), safeq6]
        });
        let [safeq5, sandbox, safeq6] = &*SHIPPED;
        match self {
            Profile::SafeQ6 => safeq6,
            Profile::SafeQ5 => safeq5,
            Profile::Sandbox => sandbox,
            Profile::Custom => &yaml::NOTHING,
        }
    }
}

/// `over` laid over `base`, key by key; a null takes away what was there.
pub(super) fn merged(base: &Node, over: &Node) -> Node {
    let Data::Map(changes) = &over.data else { return over.clone() };
    let mut entries = match &base.data {
        Data::Map(entries) => entries.clone(),
        // `id` and `{column: id}` say the same.
        Data::Scalar { .. } => vec![Entry { key: "column".to_owned(), at: base.at, value: base.clone() }],
        _ => Vec::new(),
    };
    for change in changes {
        match entries.iter_mut().find(|entry| entry.key == change.key) {
            Some(entry) if WHOLE.contains(&change.key.as_str()) => *entry = change.clone(),
            Some(entry) => *entry = Entry { value: merged(&entry.value, &change.value), ..change.clone() },
            None => entries.push(change.clone()),
        }
    }
    Node { at: over.at, data: Data::Map(entries) }
}

/// Without places, so that a problem never points into a text that the administrator cannot see.
fn built_in(text: &str) -> Node {
    fn without_places(node: Node) -> Node {
        let data = match node.data {
            Data::List(items) => Data::List(items.into_iter().map(without_places).collect()),
            Data::Map(entries) => {
                let entry = |entry: Entry| Entry { key: entry.key, at: None, value: without_places(entry.value) };
                Data::Map(entries.into_iter().map(entry).collect())
            }
            leaf => leaf,
        };
        Node { at: None, data }
    }
    // A typing error in the constants would leave an empty map, which the tests, and every start, would refuse.
    yaml::parse(text).map_or(Node::null(None), without_places)
}
