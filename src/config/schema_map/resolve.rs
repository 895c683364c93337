//! From a profile and its overrides to a checked [`SchemaMap`].

use super::profile::{Profile, merged};
use super::{
    CardsMap, CostCentersMap, ExpiresKind, ExpiresMap, GuessedColumn, LinkMap, Member, RolesMap, SchemaMap, Test, UsersMap, Value, Zone,
};
use crate::config::read::{Field, Reader, Section, one_of};
use crate::config::yaml::Data;

const NAME_SHAPE: &str = "the name of a table or column: a letter or _, then letters, digits, _ and $, at most 128";

/// `overrides` is the configuration's `schema_map`, `key` its dotted key, for what is missing.
pub(in crate::config) fn resolve(reader: &Reader, profile: Profile, overrides: Option<&Field<'_>>, key: &str) -> Option<SchemaMap> {
    if let Some(field) = overrides {
        field.section("a mapping of users, cards, cost_centers and roles")?;
    }
    let node = overrides.map_or_else(|| profile.map().clone(), |overrides| merged(profile.map(), overrides.node));
    let mut section = Section::new(reader, key, &node);
    let users = section.required("users", "a mapping of tables and columns").and_then(|field| users(&field));
    let cards = section.required("cards", "a mapping of tables and columns").and_then(|field| cards(&field));
    let cost_centers = section.required("cost_centers", "a mapping of tables and columns");
    let roles_field = section.field("roles");
    let cost_centers = cost_centers.and_then(|field| self::cost_centers(&field, users.as_ref()));
    let roles = roles_field.map_or(Some(None), |field| roles(&field, users.as_ref()).map(Some));
    section.later("jobs", "print jobs");
    section.finish();
    Some(SchemaMap { users: users?, cards: cards?, cost_centers: cost_centers?, roles: roles? })
}

/// A name as it may stand in SQL once it is quoted. Nothing else of the configuration ever gets there unbound.
pub(in crate::config) fn name(field: &Field<'_>) -> Option<String> {
    field.scalar().filter(|text| is_name(text)).map(str::to_owned).or_else(|| field.misfit(NAME_SHAPE))
}

fn is_name(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    text.bytes().next().is_some_and(letter) && text.len() <= 128 && text.bytes().all(|b| letter(b) || b.is_ascii_digit() || b == b'$')
}

fn users(field: &Field<'_>) -> Option<UsersMap> {
    let mut section = field.section("a mapping of tables and columns")?;
    let table = required_name(&mut section, "table");
    let id = section.required("id", NAME_SHAPE).and_then(|field| growing_column(&field));
    let [login, email, first_name, surname] = ["login", "email", "name", "surname"].map(|key| required_column(&mut section, key));
    let password = section.field("password").map(|field| column(&field));
    let puk = section.field("puk").map(|field| guessed_column(&field));
    let is_user = section.required("is_user", "a test that tells users from roles and cost centers").and_then(|field| test(&field));
    let is_deleted = section.field("is_deleted").map(|field| test(&field));
    let source = section.field("source").map(|field| column(&field));
    section.finish();
    let (id, id_grows) = id?;
    Some(UsersMap {
        table: table?,
        id,
        id_grows,
        login: login?,
        email: email?,
        name: first_name?,
        surname: surname?,
        // Given but wrong: no map.
        source: source.map_or(Some(None), |column| column.map(Some))?,
        password: password.map_or(Some(None), |column| column.map(Some))?,
        puk: puk.map_or(Some(None), |column| column.map(Some))?,
        is_user: is_user?,
        is_deleted: is_deleted.map_or(Some(None), |test| test.map(Some))?,
    })
}

fn cards(field: &Field<'_>) -> Option<CardsMap> {
    let mut section = field.section("a mapping of tables and columns")?;
    let table = required_name(&mut section, "table");
    let [user, value] = ["user", "value"].map(|key| required_column(&mut section, key));
    let expires = section.required("expires", "{column: NAME, type: timestamp, zone: local}").and_then(|field| expires(&field));
    let insert_defaults = section.field("insert_defaults").map_or(Some(Vec::new()), |field| insert_defaults(&field));
    section.finish();
    Some(CardsMap { table: table?, user: user?, value: value?, expires: expires?, insert_defaults: insert_defaults? })
}

fn expires(field: &Field<'_>) -> Option<ExpiresMap> {
    let kinds = [
        ("timestamp", ExpiresKind::Timestamp),
        ("timestamptz", ExpiresKind::Timestamptz),
        ("date", ExpiresKind::Date),
        ("epoch_s", ExpiresKind::EpochSeconds),
        ("epoch_ms", ExpiresKind::EpochMillis),
    ];
    if field.scalar().is_some() {
        return Some(ExpiresMap { column: name(field)?, kind: ExpiresKind::Timestamp, zone: Zone::Local });
    }
    let mut section = field.section("{column: NAME, type: timestamp, zone: local}")?;
    let column = required_name(&mut section, "column");
    let kind = section.or("type", ExpiresKind::Timestamp, |kind| kind.choice(&kinds));
    let zone = section.or("zone", Zone::Local, |zone| zone.choice(&[("local", Zone::Local), ("utc", Zone::Utc)]));
    section.finish();
    Some(ExpiresMap { column: column?, kind, zone })
}

fn insert_defaults(field: &Field<'_>) -> Option<Vec<(String, Value)>> {
    let section = field.section("a mapping of columns to values")?;
    let pairs = section.all().map(|(column, given)| {
        if !is_name(column) {
            given.problem(format!("the key is to be {NAME_SHAPE}"));
            return None;
        }
        Some((column.to_owned(), value(&given)?))
    });
    // All of them are looked at before one that is wrong ends it.
    pairs.collect::<Vec<_>>().into_iter().collect()
}

/// Where what a user belongs to has its rows.
#[derive(Clone, Copy, PartialEq)]
enum Model {
    Column,
    UsersRows,
    LinkTable,
    Table,
}

impl Model {
    fn as_str(self) -> &'static str {
        match self {
            Model::Column => "column",
            Model::UsersRows => "users_rows",
            Model::LinkTable => "link_table",
            Model::Table => "table",
        }
    }
}

/// A key that another model has: an error where the configuration says it, and nothing where it is the profile's. Nor where
/// the model is not known.
fn idle(section: &mut Section<'_>, key: &'static str, model: Option<Model>) {
    let field = section.field(key).filter(|field| field.node.at.is_some());
    if let (Some(field), Some(model)) = (field, model) {
        field.problem(format!("has no meaning with model: {}; remove the key", model.as_str()));
    }
}

/// A test that tells what rows of `users` are.
fn rows(section: &mut Section<'_>, of: &str) -> Option<Test> {
    let shape = format!("a test that tells the rows of {of} from those of users, such as {{bits_set: {{column: flag, mask: 16384}}}}");
    section.required("where", shape).and_then(|field| test(&field))
}

/// `users`: absent where something is wrong with it.
fn cost_centers(field: &Field<'_>, users: Option<&UsersMap>) -> Option<CostCentersMap> {
    let mut section = field.section("a mapping of tables and columns")?;
    let models = [Model::Column, Model::UsersRows, Model::LinkTable].map(|model| (model.as_str(), model));
    let model = section.field("model").map_or(Some(Model::Column), |model| model.choice(&models));
    let [id, number, center] = ["id", "number", "name"].map(|key| required_column(&mut section, key));
    let (mut table, mut test) = (users.map(|users| users.table.clone()), Some(None));
    if model == Some(Model::UsersRows) {
        idle(&mut section, "table", model);
        test = rows(&mut section, "cost centers").map(Some);
    } else {
        table = required_name(&mut section, "table");
        idle(&mut section, "where", model);
    }
    let member = if model == Some(Model::LinkTable) {
        idle(&mut section, "member", model);
        section
            .required("link", "{table: NAME, user: NAME, cost_center: NAME}")
            .and_then(|field| link(&field, "cost_center"))
            .map(Member::Link)
    } else {
        idle(&mut section, "link", model);
        section.required("member", "{id_column: NAME, number_column: NAME}").and_then(|field| member(&field))
    };
    let verified = section.or("verified", true, Field::boolean);
    section.finish();
    model?;
    Some(CostCentersMap { table: table?, id: id?, number: number?, name: center?, rows: test?, member: member?, verified })
}

fn member(field: &Field<'_>) -> Option<Member> {
    let mut section = field.section("{id_column: NAME, number_column: NAME}")?;
    let id = required_name(&mut section, "id_column");
    let number = section.field("number_column").map(|number| name(&number));
    section.finish();
    // Given and wrong is a problem; absent is a map of its own.
    Some(Member::Column { id: id?, number: number.map_or(Some(None), |named| named.map(Some))? })
}

/// `to` is the key of the column that names what the user is tied to.
fn link(field: &Field<'_>, to: &'static str) -> Option<LinkMap> {
    let mut section = field.section(&format!("{{table: NAME, user: NAME, {to}: NAME}}"))?;
    let table = required_name(&mut section, "table");
    let [user, to] = ["user", to].map(|key| required_column(&mut section, key));
    section.finish();
    Some(LinkMap { table: table?, user: user?, to: to? })
}

/// As of [`cost_centers`].
fn roles(field: &Field<'_>, users: Option<&UsersMap>) -> Option<RolesMap> {
    let mut section = field.section("a mapping of tables and columns")?;
    let models = [Model::UsersRows, Model::Table].map(|model| (model.as_str(), model));
    let model = section.field("model").map_or(Some(Model::UsersRows), |model| model.choice(&models));
    let role = required_column(&mut section, "name");
    let (mut table, mut id, mut test) = (users.map(|users| users.table.clone()), users.map(|users| users.id.clone()), Some(None));
    if model == Some(Model::Table) {
        table = required_name(&mut section, "table");
        id = required_column(&mut section, "id");
        idle(&mut section, "where", model);
    } else {
        idle(&mut section, "table", model);
        idle(&mut section, "id", model);
        test = rows(&mut section, "roles").map(Some);
    }
    let link = section.required("link", "{table: NAME, user: NAME, role: NAME}").and_then(|field| link(&field, "role"));
    let verified = section.or("verified", true, Field::boolean);
    section.finish();
    model?;
    Some(RolesMap { table: table?, id: id?, name: role?, rows: test?, link: link?, verified })
}

/// One of a closed set, so that no SQL text is ever configured.
fn test(field: &Field<'_>) -> Option<Test> {
    const TESTS: [&str; 8] = ["bits_set", "bits_clear", "equals", "in", "is_null", "all", "any", "not"];
    let mut section = field.section("a test, such as {bits_set: {column: flag, mask: 1}}")?;
    let given: Vec<Field<'_>> = TESTS.into_iter().filter_map(|name| section.field(name)).collect();
    section.finish();
    let [inner] = &given[..] else {
        field.problem(format!("expected one test: {}", one_of(&TESTS)));
        return None;
    };
    let tests = || inner.list("tests")?.iter().map(test).collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>();
    match inner.key.rsplit('.').next().unwrap_or_default() {
        "all" => tests().map(Test::All),
        "any" => tests().map(Test::Any),
        "not" => test(inner).map(|test| Test::Not(Box::new(test))),
        "is_null" if inner.scalar().is_some() => name(inner).map(|column| Test::IsNull { column }),
        kind => column_test(inner, kind),
    }
}

fn column_test(field: &Field<'_>, kind: &str) -> Option<Test> {
    let mut section = field.section("a mapping with the column and what to compare it with")?;
    let column = required_name(&mut section, "column");
    let built = match kind {
        "bits_set" | "bits_clear" => {
            let mask = section.required("mask", "a whole number with the bits to look at").and_then(|mask| mask.whole(1..=i64::MAX as u64));
            let mask = mask.and_then(|mask| i64::try_from(mask).ok());
            column.zip(mask).map(|(column, mask)| match kind {
                "bits_set" => Test::BitsSet { column, mask },
                _ => Test::BitsClear { column, mask },
            })
        }
        "equals" => {
            let value = section.required("value", "a number or a text; for null there is is_null").and_then(|field| value(&field));
            column.zip(value).map(|(column, value)| Test::Equals { column, value })
        }
        "in" => {
            let items = section.required("values", "a list of numbers or texts").and_then(|field| field.list("numbers or texts"));
            let values = items.and_then(|items| items.iter().map(value).collect::<Vec<_>>().into_iter().collect());
            column.zip(values).map(|(column, values)| Test::In { column, values })
        }
        _ => column.map(|column| Test::IsNull { column }),
    };
    section.finish();
    built
}

fn value(field: &Field<'_>) -> Option<Value> {
    match &field.node.data {
        Data::Null => Some(Value::Null),
        Data::Scalar { text, plain: true } if matches!(text.to_ascii_lowercase().as_str(), "true" | "false") => {
            field.misfit("a number, or a text (a truth value is 1 or 0, or 'true' in quotes)")
        }
        Data::Scalar { text, plain: true } => Some(text.parse().map_or_else(|_| Value::Text(text.clone()), Value::Number)),
        Data::Scalar { text, plain: false } => Some(Value::Text(text.clone())),
        _ => field.misfit("a number, a text or null"),
    }
}

/// `name` or `{column: name}`.
fn column(field: &Field<'_>) -> Option<String> {
    if field.scalar().is_some() {
        return name(field);
    }
    let mut section = field.section("a column's name or {column: NAME}")?;
    let column = required_name(&mut section, "column");
    section.finish();
    column
}

/// With `verified`, for the columns whose shipped name is a guess.
fn guessed_column(field: &Field<'_>) -> Option<GuessedColumn> {
    if field.scalar().is_some() {
        return name(field).map(|column| GuessedColumn { column, verified: true });
    }
    let mut section = field.section("a column's name or {column: NAME, verified: true}")?;
    let column = required_name(&mut section, "column");
    let verified = section.or("verified", true, Field::boolean);
    section.finish();
    Some(GuessedColumn { column: column?, verified })
}

/// With `grows`, for the key of `users`.
fn growing_column(field: &Field<'_>) -> Option<(String, bool)> {
    if field.scalar().is_some() {
        return name(field).map(|column| (column, true));
    }
    let mut section = field.section("a column's name or {column: NAME, grows: false}")?;
    let column = required_name(&mut section, "column");
    let grows = section.or("grows", true, Field::boolean);
    section.finish();
    Some((column?, grows))
}

fn required_name(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    section.required(key, NAME_SHAPE).and_then(|field| name(&field))
}

fn required_column(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    section.required(key, NAME_SHAPE).and_then(|field| column(&field))
}
