//! Roles, and cost centers in each model of the map.
//!
//! The cases are asked of a bench that one of the `*_model` functions has shaped: three cost centers (Default, which nobody needs to be in
//! by a row; 11 number 100 “Needs PIN”; 12 number 200 “Has PIN”) and two roles (31 “Visitor”, 32 “Admin”).

use credkeeper::config::schema_map::{LinkMap, Member, Test};
use credkeeper::domain::{Role, RoleId, RoleRef};
use credkeeper::policy::Needs;
use credkeeper::store::{Move, RoleChange};

use super::*;

const COST_CENTER: i64 = 16_384;
const ROLE: i64 = 32_768;

fn visitor() -> Role {
    Role { id: RoleId(31), name: "Visitor".into() }
}

fn by_name(name: &str) -> Wanted {
    let roles = BTreeSet::from([RoleRef::Name(name.into())]);
    Wanted { cost_centers: BTreeSet::from([CostCenterRef::Name(name.into())]), roles }
}

fn without_role(user: &credkeeper::inventory::User, role: Role) -> UserChange {
    UserChange { role: Some(RoleChange::Remove(role)), ..UserChange::of(user.id) }
}

/// What a test needs of the bench beside its own functions.
impl Bench {
    /// As what the map calls roles and cost centers, in the tables of the model.
    async fn add_places(&self) {
        let map = &self.config.map;
        if map.roles.as_ref().is_some_and(|roles| roles.rows.is_some()) {
            let row = |id, login: &str| NewUser { flag: ROLE, ..NewUser::new(id, login) };
            self.add_users(&[row(31, "Visitor"), row(32, "Admin"), row(33, "Twin"), row(34, "Twin")]).await;
        }
        if map.cost_centers.rows.is_some() {
            let row =
                |id, number, name: &str| NewUser { flag: COST_CENTER, center: (0, number), surname: name.into(), ..NewUser::new(id, "") };
            self.add_users(&[row(11, 100, "Needs PIN"), row(12, 200, "Has PIN")]).await;
        }
    }

    async fn give_role(&self, user: i64, role: i64) {
        let link = &self.config.map.roles.as_ref().expect("roles").link;
        self.sql(&format!("INSERT INTO {} (\"{}\", \"{}\") VALUES ({user}, {role})", self.table(&link.table), link.user, link.to)).await;
    }

    /// The roles that the user has, by SQL.
    async fn roles_of(&self, user: i64) -> Vec<String> {
        let link = &self.config.map.roles.as_ref().expect("roles").link;
        let query = format!("SELECT \"{}\" FROM {} WHERE \"{}\" = {user} ORDER BY 1", link.to, self.table(&link.table), link.user);
        self.rows(&query).await.into_iter().map(|row| row[0].clone().unwrap_or_default()).collect()
    }

    /// Puts the user into a cost center, as the print system would.
    async fn put(&self, user: i64, center: i64) {
        let number = [(0, 0), (11, 100), (12, 200)].iter().find(|(id, _)| *id == center).expect("a cost center").1;
        let users = &self.config.map.users;
        match &self.config.map.cost_centers.member {
            Member::Column { .. } => {
                let [id, other] = self.member_columns();
                let set = format!("\"{id}\" = {center}, \"{other}\" = {number}");
                self.sql(&format!("UPDATE {} SET {set} WHERE \"{}\" = {user}", self.table(&users.table), users.id)).await;
            }
            Member::Link(link) => {
                self.sql(&format!(
                    "INSERT INTO {} (\"{}\", \"{}\") VALUES ({user}, {center})",
                    self.table(&link.table),
                    link.user,
                    link.to
                ))
                .await;
            }
        }
    }

    /// The cost centers that the user is in, by SQL.
    async fn centers_of(&self, user: i64) -> Vec<String> {
        match &self.config.map.cost_centers.member {
            Member::Column { .. } => {
                let (id, number) = self.center(user).await;
                vec![format!("{id}/{number}")]
            }
            Member::Link(link) => {
                let query = format!("SELECT \"{}\" FROM {} WHERE \"{}\" = {user} ORDER BY 1", link.to, self.table(&link.table), link.user);
                self.rows(&query).await.into_iter().map(|row| row[0].clone().unwrap_or_default()).collect()
            }
        }
    }

    /// `centers_of` somebody who is in “Has PIN” and nowhere else.
    fn in_has_pin(&self) -> &'static str {
        if matches!(self.config.map.cost_centers.member, Member::Link(_)) { "12" } else { "12/200" }
    }
}

pub async fn every_case_of_places(bench: &mut Bench) {
    bench.config.needs = Needs { cost_centers: true, moves: true, roles: true, role_removals: true, ..Needs::default() };
    macro_rules! run {
        ($($case:ident),+ $(,)?) => {$(
            eprintln!("case: {}", stringify!($case));
            bench.reset().await;
            bench.add_places().await;
            $case(bench).await;
        )+};
    }
    run!(
        cost_centers_and_roles_are_found_by_name_and_number,
        users_are_read_with_their_places_and_roles,
        the_filter_finds_by_role_and_by_cost_center,
        a_move_puts_the_user_there_and_nowhere_else,
        a_role_is_removed_from_who_has_it,
        what_misses_after_something_was_written_tears,
        places_and_roles_land_whole,
        a_batch_of_all_kinds_is_one,
        the_inspection_is_content,
    );
}

async fn cost_centers_and_roles_are_found_by_name_and_number(bench: &Bench) {
    let store = bench.store().await;
    let reader = store.reader();
    let found = reader.places(&by_name("Has PIN")).await.unwrap();
    assert_eq!(found.get(&CostCenterRef::Name("Has PIN".into())), Some(&has_pin()));
    assert_eq!(found.role(&RoleRef::Name("Has PIN".into())), None, "a cost center is no role");
    let found = reader.places(&by_name("Visitor")).await.unwrap();
    assert_eq!(found.role(&RoleRef::Name("Visitor".into())), Some(&visitor()));
    assert_eq!(found.get(&CostCenterRef::Name("Visitor".into())), None, "nor a role a cost center");
    let numbers = Wanted {
        cost_centers: [CostCenterRef::Number(200), CostCenterRef::Number(31)].into(),
        roles: [RoleRef::Id(RoleId(31)), RoleRef::Id(RoleId(12)), RoleRef::Id(RoleId(1))].into(),
    };
    let found = reader.places(&numbers).await.unwrap();
    assert_eq!(found.get(&CostCenterRef::Number(200)), Some(&has_pin()));
    assert_eq!(found.role(&RoleRef::Id(RoleId(31))), Some(&visitor()));
    assert_eq!((found.cost_centers.values().flatten().count(), found.roles.values().flatten().count()), (1, 1));
    let twins = reader.places(&by_name("Twin")).await.unwrap();
    assert_eq!(twins.role(&RoleRef::Name("Twin".into())), None, "of two roles of one name neither is meant");
    let names = reader.role_names().await.unwrap();
    assert_eq!(names, ["Admin", "Twin", "Twin", "Visitor"]);
    assert!(reader.cost_center_names().await.unwrap().contains(&"Needs PIN".to_owned()));
}

async fn users_are_read_with_their_places_and_roles(bench: &Bench) {
    bench.add_users(&[NewUser::new(101, "a"), NewUser::new(102, "b"), NewUser::new(103, "c")]).await;
    bench.put(101, 11).await;
    bench.put(102, 12).await;
    bench.give_role(101, 32).await;
    bench.give_role(101, 31).await;
    bench.add_card(101, "card-1", None, "").await;
    bench.add_card(101, &pin("1234"), None, "").await;
    let store = bench.store().await;
    let told = |users: &[credkeeper::inventory::User]| -> Vec<(i64, i64, i64, Vec<i64>, usize)> {
        let people = users.iter().filter(|u| u.id.0 > 100);
        people.map(|u| (u.id.0, u.cost_center.id.0, u.cost_center.number, u.roles.iter().map(|r| r.0).collect(), u.pins.len())).collect()
    };
    let expected = [(101, 11, 100, vec![31, 32], 1), (102, 12, 200, vec![], 0), (103, 0, 0, vec![], 0)];
    assert_eq!(told(&read(store.reader(), &Filter::default()).await), expected);
    assert_eq!(told(&read(store.reader(), &Filter { above: Some(user_id(100)), ..Filter::default() }).await), expected);
    assert_eq!(told(&read(store.reader(), &Filter { login: Some("a".into()), ..Filter::default() }).await), expected[..1]);
    let all = DueFilter { everybody: Some(InCostCenter::Any), ..DueFilter::default() };
    assert_eq!(told(&read(store.reader(), &Filter { due: Some(all), ..Filter::default() }).await), expected);
    let (transaction, mut again) = store.begin(&[user_id(101), user_id(102), user_id(103)]).await.unwrap();
    again.sort_by_key(|user| user.id);
    assert_eq!(told(&again), expected);
    drop(transaction);
    let counts = store.reader().counts().await.unwrap();
    assert_eq!(counts.users, 3, "neither roles nor cost centers count as users");
    let mut blind = bench.config.clone();
    blind.needs.roles = false;
    let store = Store::connect(&blind).await.unwrap();
    assert_eq!(user(store.reader(), 101).await.roles, [], "not asked, not read");
}

async fn the_filter_finds_by_role_and_by_cost_center(bench: &Bench) {
    let people: Vec<NewUser> = (101..=106).map(|id| NewUser::new(id, &format!("u{id}"))).collect();
    bench.add_users(&people).await;
    for (user, center) in [(101, 11), (102, 11), (103, 12)] {
        bench.put(user, center).await;
    }
    for (user, role) in [(102, 31), (104, 31), (105, 32)] {
        bench.give_role(user, role).await;
    }
    bench.add_card(104, &pin("1234"), None, "").await;
    let store = bench.store().await;
    let found = async |due: DueFilter| ids(&read(store.reader(), &Filter { due: Some(due), ..Filter::default() }).await);
    let in_11 = || InCostCenter::Of(BTreeSet::from([11]));
    let visitors = |centers: &[i64]| InCostCenter::OrRole { centers: centers.iter().copied().collect(), roles: [RoleId(31)].into() };
    assert_eq!(found(DueFilter { with_role: [RoleId(31)].into(), ..DueFilter::default() }).await, [102, 104].into());
    assert_eq!(found(DueFilter { with_role: [RoleId(31), RoleId(32)].into(), ..DueFilter::default() }).await, [102, 104, 105].into());
    assert_eq!(found(DueFilter { without_pin: Some(in_11()), ..DueFilter::default() }).await, [101, 102].into());
    assert_eq!(found(DueFilter { without_pin: Some(visitors(&[])), ..DueFilter::default() }).await, [102].into());
    assert_eq!(found(DueFilter { without_pin: Some(visitors(&[12])), ..DueFilter::default() }).await, [102, 103].into());
    assert_eq!(found(DueFilter { everybody: Some(visitors(&[])), ..DueFilter::default() }).await, [102, 104].into());
    assert_eq!(found(DueFilter { without_code: Some(visitors(&[12])), ..DueFilter::default() }).await, [102, 103, 104].into());
    assert_eq!(found(DueFilter { to_move: vec![(in_11(), has_pin())], ..DueFilter::default() }).await, [101, 102].into());
    assert_eq!(found(DueFilter { to_move: vec![(visitors(&[]), has_pin())], ..DueFilter::default() }).await, [102, 104].into());
    assert_eq!(
        found(DueFilter { to_move: vec![(InCostCenter::Any, has_pin())], ..DueFilter::default() }).await,
        [101, 102, 104, 105, 106].into()
    );
}

async fn a_move_puts_the_user_there_and_nowhere_else(bench: &Bench) {
    let people: Vec<NewUser> = (101..=106).map(|id| NewUser::new(id, &format!("u{id}"))).collect();
    bench.add_users(&people).await;
    for user in [101, 102, 104] {
        bench.put(user, 11).await;
    }
    let linked = matches!(bench.config.map.cost_centers.member, Member::Link(_));
    if linked {
        // In several at once: in none of them, and the smallest counts.
        bench.put(104, 12).await;
        bench.put(105, 12).await;
        bench.put(105, 11).await;
    }
    let store = bench.store().await;
    let users = read(store.reader(), &Filter { above: Some(user_id(100)), ..Filter::default() }).await;
    if linked {
        assert_eq!(users[3].cost_center, Membership { id: CostCenterId(11), number: Membership::SEVERAL });
        let due = DueFilter { to_move: vec![(InCostCenter::Any, has_pin())], ..DueFilter::default() };
        assert!(ids(&read(store.reader(), &Filter { due: Some(due), ..Filter::default() }).await).contains(&105));
    }
    // Somebody else moves this one meanwhile.
    if linked {
        let Member::Link(link) = &bench.config.map.cost_centers.member else { unreachable!() };
        bench.sql(&format!("UPDATE {} SET \"{}\" = 12 WHERE \"{}\" = 102", bench.table(&link.table), link.to, link.user)).await;
    } else {
        bench.put(102, 12).await;
    }
    let changes: Vec<UserChange> = users[..5].iter().map(|u| only_move(u, has_pin())).collect();
    let outcomes = write(&store, &changes).await;
    assert_eq!(outcomes, [Outcome::Applied, Outcome::ChangedMeanwhile, Outcome::Applied, Outcome::Applied, Outcome::Applied]);
    for user in [101, 102, 103, 104, 105] {
        assert_eq!(bench.centers_of(user).await, [bench.in_has_pin()], "user {user}");
    }
    assert_ne!(bench.centers_of(106).await, [bench.in_has_pin()], "nobody else is moved");
    let read_back = read(store.reader(), &Filter { above: Some(user_id(100)), ..Filter::default() }).await;
    assert!(read_back[..5].iter().all(|u| (u.cost_center.id.0, u.cost_center.number) == (12, 200)), "{read_back:?}");
    assert_eq!(write(&store, &[only_move(&users[0], has_pin())]).await, [Outcome::ChangedMeanwhile], "not from there any more");
    let nobody = UserChange {
        cost_center: Some(Move { from: Membership { id: CostCenterId(0), number: 0 }, to: has_pin() }),
        ..UserChange::of(user_id(999))
    };
    assert_eq!(write(&store, &[nobody]).await, [Outcome::ChangedMeanwhile], "who is gone is not put anywhere");
}

async fn a_role_is_removed_from_who_has_it(bench: &Bench) {
    bench.add_users(&[NewUser::new(101, "a"), NewUser::new(102, "b"), NewUser::new(103, "c")]).await;
    for (user, role) in [(101, 31), (101, 32), (102, 32), (103, 31)] {
        bench.give_role(user, role).await;
    }
    let store = bench.store().await;
    let users = read(store.reader(), &Filter { above: Some(user_id(100)), ..Filter::default() }).await;
    let changes = [without_role(&users[0], visitor()), without_role(&users[1], visitor())];
    assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::ChangedMeanwhile]);
    assert_eq!(
        (bench.roles_of(101).await, bench.roles_of(102).await, bench.roles_of(103).await),
        (vec!["32".into()], vec!["32".into()], vec!["31".into()])
    );
    assert_eq!(write(&store, &changes[..1]).await, [Outcome::ChangedMeanwhile], "once");
    let link = bench.table(&bench.config.map.roles.as_ref().expect("roles").link.table);
    bench.on_postgres(&format!("GRANT INSERT ON {link} TO credkeeper")).await;
    let back = |i: usize| UserChange { role: Some(RoleChange::Give(visitor())), ..UserChange::of(users[i].id) };
    assert_eq!(
        write(&store, &[back(0), back(2), UserChange { role: Some(RoleChange::Give(visitor())), ..UserChange::of(user_id(999)) }]).await,
        [Outcome::Applied, Outcome::ChangedMeanwhile, Outcome::ChangedMeanwhile],
        "it is given to who is there and has it not"
    );
    assert_eq!((bench.roles_of(101).await, bench.roles_of(103).await), (vec!["31".into(), "32".into()], vec!["31".into()]));
}

async fn what_misses_after_something_was_written_tears(bench: &Bench) {
    bench.add_users(&[NewUser::new(101, "a"), NewUser::new(102, "b")]).await;
    bench.put(101, 11).await;
    bench.give_role(102, 31).await;
    let store = bench.store().await;
    let users = read(store.reader(), &Filter { above: Some(user_id(100)), ..Filter::default() }).await;
    let role = Some(RoleChange::Remove(visitor()));
    let after_pin = UserChange { role: role.clone(), ..new_pin(&users[0], "740218", None) };
    let after_move = UserChange { role: role.clone(), ..only_move(&users[0], has_pin()) };
    let elsewhere = Membership { id: CostCenterId(11), number: 100 };
    let move_after_pin = UserChange { role, ..moved(new_pin(&users[1], "918273", None), elsewhere, has_pin()) };
    for torn in [after_pin, after_move, move_after_pin] {
        let (mut transaction, _) = store.begin(&[torn.user]).await.unwrap();
        assert_eq!(transaction.write(std::slice::from_ref(&torn)).await.unwrap(), [Outcome::Torn]);
        assert!(matches!(transaction.commit().await, Committed::Refused(_)));
    }
    assert_eq!(read(store.reader(), &Filter { above: Some(user_id(100)), ..Filter::default() }).await, users, "all or nothing");
}

async fn places_and_roles_land_whole(bench: &Bench) {
    bench.add_users(&[NewUser::new(101, "a"), NewUser::new(102, "b")]).await;
    bench.give_role(101, 31).await;
    bench.give_role(102, 31).await;
    let store = bench.store().await;
    let users = read(store.reader(), &Filter { above: Some(user_id(100)), ..Filter::default() }).await;
    let change = |i: usize| UserChange { role: Some(RoleChange::Remove(visitor())), ..only_move(&users[i], has_pin()) };
    let changes = [change(0), change(1)];
    let images = [image(&changes[0]), image(&changes[1])];
    assert_eq!(store.landed(&images).await.unwrap(), [false, false]);
    assert_eq!(write(&store, &changes[..1]).await, [Outcome::Applied]);
    assert_eq!(store.landed(&images).await.unwrap(), [true, false]);
    assert_eq!(store.reader().present(&images).await.unwrap(), [true, false]);
    bench.give_role(101, 31).await;
    assert_eq!(store.landed(&images[..1]).await.unwrap(), [false], "the role is back");
    let moved_only = AfterImage { role_gone: None, ..images[0].clone() };
    assert_eq!(store.landed(&[moved_only, images[1].clone()]).await.unwrap(), [true, false]);
    let other_role = AfterImage { role_gone: Some(RoleId(32)), ..AfterImage::of(user_id(101)) };
    assert_eq!(store.landed(&[other_role]).await.unwrap(), [true]);
}

async fn a_batch_of_all_kinds_is_one(bench: &Bench) {
    let people: Vec<NewUser> = (101..=140).map(|id| NewUser::new(id, &format!("u{id}"))).collect();
    bench.add_users(&people).await;
    for user in 101..=140 {
        bench.give_role(user, 31).await;
        if user % 2 == 0 {
            bench.put(user, 11).await;
        }
    }
    let store = bench.store().await;
    let users = read(store.reader(), &Filter { above: Some(user_id(100)), ..Filter::default() }).await;
    let role = || Some(RoleChange::Remove(visitor()));
    let change = |u: &credkeeper::inventory::User| match u.id.0 % 4 {
        0 => UserChange { role: role(), ..moved(new_pin(u, &format!("{:08}", u.id.0), Some(LATER)), u.cost_center, has_pin()) },
        1 => only_move(u, has_pin()),
        2 => UserChange { role: role(), ..UserChange::of(u.id) },
        _ => UserChange { role: role(), ..only_move(u, has_pin()) },
    };
    let changes: Vec<UserChange> = users.iter().map(change).collect();
    let outcomes = write(&store, &changes).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied), "{outcomes:?}");
    for after in read(store.reader(), &Filter { above: Some(user_id(100)), ..Filter::default() }).await {
        let kind = after.id.0 % 4;
        assert_eq!(after.pins.len(), usize::from(kind == 0), "{after:?}");
        assert_eq!(after.cost_center.id.0, if kind == 2 { 11 } else { 12 }, "{after:?}");
        assert_eq!(after.roles.is_empty(), kind != 1, "{after:?}");
    }
}

async fn the_inspection_is_content(bench: &Bench) {
    let store = bench.store().await;
    let checks = store.reader().inspect().await;
    let failed: Vec<_> = checks.iter().filter(|check| check.verdict == credkeeper::store::CheckVerdict::Failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

// ---- the models ----

/// Roles in a table of their own.
async fn roles_table_model(bench: &mut Bench) {
    let (roles, links) = (bench.table("roles"), bench.table("role_members"));
    bench
        .sql(&format!(
            "CREATE TABLE {roles} (id integer PRIMARY KEY, title varchar(100)); CREATE TABLE {links} (member bigint, role integer);
             INSERT INTO {roles} VALUES (31, 'Visitor'), (32, 'Admin'), (33, 'Twin'), (34, 'Twin')"
        ))
        .await;
    bench.on_postgres(&format!("GRANT SELECT ON {roles} TO credkeeper; GRANT SELECT, INSERT, DELETE ON {links} TO credkeeper")).await;
    let roles = bench.config.map.roles.as_mut().expect("roles");
    (roles.table, roles.id, roles.name, roles.rows) = ("roles".into(), "id".into(), "title".into(), None);
    roles.link = LinkMap { table: "role_members".into(), user: "member".into(), to: "role".into() };
}

/// Cost centers that are rows of users. Their numbers stand where a user's do.
async fn users_rows_model(bench: &mut Bench, number: &str, name: &str) {
    let users = &bench.config.map.users;
    let flag = match &users.is_user {
        Test::All(tests) => match &tests[0] {
            Test::BitsSet { column, .. } => column.clone(),
            _ => unreachable!(),
        },
        _ => unreachable!(),
    };
    let centers = &mut bench.config.map.cost_centers;
    (centers.table, centers.id) = (users.table.clone(), users.id.clone());
    (centers.number, centers.name) = (number.into(), name.into());
    centers.rows = Some(Test::BitsSet { column: flag, mask: COST_CENTER });
}

/// Membership as a row of a table.
async fn link_table_model(bench: &mut Bench, keys: &str) {
    let links = bench.table("users_ou");
    bench.sql(&format!("CREATE TABLE {links} (\"user no\" integer NOT NULL, ou bigint{keys})")).await;
    bench.on_postgres(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {links} TO credkeeper")).await;
    bench.config.map.cost_centers.member = Member::Link(LinkMap { table: "users_ou".into(), user: "user no".into(), to: "ou".into() });
}

impl Bench {
    /// Grants, which SQLite has none of.
    async fn on_postgres(&self, sql: &str) {
        #[cfg(unix)]
        if self.is_postgres() {
            self.sql(sql).await;
        }
        let _ = sql;
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract_of_places() {
    let mut bench = Bench::sqlite().await;
    every_case_of_places(&mut bench).await;
    roles_table_model(&mut bench).await;
    every_case_of_places(&mut bench).await;
}

#[tokio::test]
async fn sqlite_keeps_the_contract_of_places_in_rows_of_users() {
    let mut bench = Bench::sqlite().await;
    users_rows_model(&mut bench, "ou_number", "surname").await;
    every_case_of_places(&mut bench).await;
}

#[tokio::test]
async fn sqlite_keeps_the_contract_of_places_in_a_link_table() {
    let mut bench = Bench::sqlite().await;
    link_table_model(&mut bench, ", PRIMARY KEY (\"user no\", ou)").await;
    every_case_of_places(&mut bench).await;
}

#[cfg(unix)]
mod postgres {
    use super::*;
    use crate::contract::postgres::other_names;

    #[tokio::test]
    async fn postgres_keeps_the_contract_of_places() {
        let mut bench = Bench::postgres().await;
        every_case_of_places(&mut bench).await;
        roles_table_model(&mut bench).await;
        every_case_of_places(&mut bench).await;
    }

    #[tokio::test]
    async fn postgres_keeps_the_contract_of_places_in_rows_of_users() {
        let mut bench = Bench::postgres().await;
        users_rows_model(&mut bench, "ou_number", "surname").await;
        every_case_of_places(&mut bench).await;
        // As in SafeQ 5: users hold the id alone, and the number is that of the cost center's row.
        bench.config.map.cost_centers.member = Member::Column { id: "ou_id".into(), number: None };
        bench.sql("ALTER TABLE tenant_1.users ADD center_number integer").await;
        every_case_of_places_with_numbers_in_rows(&mut bench).await;
    }

    /// Only what such a map can get wrong: the number.
    async fn every_case_of_places_with_numbers_in_rows(bench: &mut Bench) {
        bench.reset().await;
        bench.add_places().await;
        bench.sql("UPDATE tenant_1.users SET center_number = ou_number, ou_number = 0 WHERE flag = 16384").await;
        bench.config.map.cost_centers.number = "center_number".into();
        bench.add_users(&[NewUser { center: (11, 7), ..NewUser::new(101, "a") }]).await;
        let store = bench.store().await;
        let seen = user(store.reader(), 101).await;
        assert_eq!(seen.cost_center, Membership { id: CostCenterId(11), number: 100 });
        assert_eq!(write(&store, &[only_move(&seen, has_pin())]).await, [Outcome::Applied]);
        assert_eq!(bench.center(101).await, (12, 7), "the column that the map does not name is left alone");
        assert_eq!(user(store.reader(), 101).await.cost_center.number, 200);
    }

    #[tokio::test]
    async fn postgres_keeps_the_contract_of_places_in_a_link_table() {
        let mut bench = Bench::postgres().await;
        link_table_model(&mut bench, ", PRIMARY KEY (\"user no\", ou)").await;
        every_case_of_places(&mut bench).await;
        // Without any key, and with rows that say nothing or the same twice.
        bench
            .sql("ALTER TABLE tenant_1.users_ou DROP CONSTRAINT users_ou_pkey; ALTER TABLE tenant_1.users_ou ALTER ou DROP NOT NULL")
            .await;
        every_case_of_places(&mut bench).await;
        bench.reset().await;
        bench.add_users(&[NewUser::new(101, "a"), NewUser::new(102, "b")]).await;
        bench.sql("INSERT INTO tenant_1.users_ou VALUES (101, NULL), (102, 12), (102, 12)").await;
        let store = bench.store().await;
        let users = read(store.reader(), &Filter::default()).await;
        assert_eq!(users[0].cost_center, Membership { id: CostCenterId(0), number: 0 });
        let changes: Vec<UserChange> = users.iter().map(|u| only_move(u, has_pin())).collect();
        assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::Applied]);
        assert_eq!((bench.centers_of(101).await, bench.centers_of(102).await), (vec!["12".to_owned()], vec!["12".to_owned()]));
    }

    /// Every name another one, and in all models.
    #[tokio::test]
    async fn postgres_keeps_the_contract_of_places_with_other_names() {
        let mut bench = other_names().await;
        bench
            .sql(
                "SET search_path = \"Tenant 2\"; ALTER TABLE users_roles RENAME TO \"who is what\";
                 ALTER TABLE \"who is what\" RENAME user_id TO \"who\"; ALTER TABLE \"who is what\" RENAME role_id TO \"what\";
                 ALTER TABLE \"who is what\" ALTER \"who\" TYPE integer",
            )
            .await;
        let text = |name: &str| name.to_owned();
        let roles = bench.config.map.roles.as_mut().expect("roles");
        (roles.table, roles.id, roles.name) = (text("people"), text("person"), text("User"));
        roles.rows = Some(Test::BitsSet { column: text("kind"), mask: ROLE });
        roles.link = LinkMap { table: text("who is what"), user: text("who"), to: text("what") };
        every_case_of_places(&mut bench).await;
        let centers = bench.config.map.cost_centers.clone();
        users_rows_model(&mut bench, "center$no", "lastname").await;
        every_case_of_places(&mut bench).await;
        bench.config.map.cost_centers = centers;
        // Where the bench looks for the columns that the map does not name.
        bench.sql("ALTER TABLE people RENAME center TO ou_id; ALTER TABLE people RENAME \"center$no\" TO ou_number").await;
        link_table_model(&mut bench, "").await;
        every_case_of_places(&mut bench).await;
    }

    /// A map of another model needs other rights, and says which.
    #[tokio::test]
    async fn what_is_missing_is_told_as_the_grants_that_help() {
        let mut bench = Bench::postgres().await;
        bench.config.needs = Needs { cost_centers: true, moves: true, roles: true, role_removals: true, ..Needs::default() };
        bench
            .sql("REVOKE DELETE ON tenant_1.users_roles FROM credkeeper; CREATE TABLE tenant_1.users_ou (\"user no\" bigint, ou bigint)")
            .await;
        bench.config.map.cost_centers.member = Member::Link(LinkMap { table: "users_ou".into(), user: "user no".into(), to: "ou".into() });
        let check = async |bench: &Bench, name: &str| {
            let found = bench.store().await.reader().inspect().await;
            found.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no {name} in {found:#?}")).clone()
        };
        let rights = check(&bench, "privileges").await;
        for right in ["DELETE", "INSERT", "SELECT", "UPDATE"] {
            let grant = format!("GRANT {right} ON \"tenant_1\".\"users_ou\" TO \"credkeeper\";");
            assert!(rights.advice.contains(&grant), "{grant} in {}", rights.advice);
        }
        assert!(rights.advice.contains("GRANT DELETE ON \"tenant_1\".\"users_roles\" TO \"credkeeper\";"), "{}", rights.advice);
        bench.sql(&rights.advice).await;
        assert_eq!(check(&bench, "privileges").await.found, "all that the policies need");
        bench.sql("ALTER TABLE tenant_1.users_ou ADD since date NOT NULL; ALTER TABLE tenant_1.users_roles RENAME role_id TO role").await;
        let links = check(&bench, "role links").await;
        assert_eq!(links.found, "users_roles has no column role_id");
        assert_eq!(links.advice, "set `schema_map.roles.link.role` to the column that holds it: perhaps role");
        bench.config.needs.roles = false;
        let found = bench.store().await.reader().inspect().await;
        let unfilled: Vec<_> = found.iter().filter(|check| check.name == "cost center links").map(|check| check.found.as_str()).collect();
        assert_eq!(unfilled[1], "NOT NULL without a default: since");
        bench.sql("DROP TABLE tenant_1.users_ou").await;
        let gone = check(&bench, "cost center links").await;
        assert_eq!(gone.found, "there is no table \"tenant_1\".\"users_ou\"");
        assert!(gone.advice.starts_with("set `schema_map.cost_centers.link.table` to the table that holds them"), "{}", gone.advice);
    }
}
