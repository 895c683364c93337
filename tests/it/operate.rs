//! What an operator does to one user, with the real program.

use crate::site::Site;

#[tokio::test]
async fn a_user_on_hold_is_left_alone_until_released() {
    let site = Site::empty().await;
    site.add_visitor("ann@visitors.example").await;
    site.add_visitor("bob@visitors.example").await;

    let held = site.run(&["hold", "ann@visitors.example"]);
    assert_eq!(held.code, 0, "{}", held.all());
    assert!(held.stdout.contains("is on hold now: no pass changes anything"), "{}", held.all());
    let again = site.run(&["hold", "ann@visitors.example"]);
    assert!(again.code == 0 && again.stdout.contains("was on hold already"), "{}", again.all());

    let passed = site.once(&[]);
    assert_eq!(passed.code, 0, "{}", passed.all());
    assert!(passed.stdout.contains("[held]"), "{}", passed.all());
    assert_eq!(site.mails().iter().map(|mail| mail.to.as_str()).collect::<Vec<_>>(), ["bob@visitors.example"]);
    let explained = site.run(&["explain", "ann@visitors.example"]).stdout;
    assert!(explained.contains("held (the user is on hold until released)") && explained.contains("On hold since 20"), "{explained}");
    let status = site.run(&["status"]).stdout;
    assert!(status.contains("on hold        1\n") && status.contains("“ann@visitors.example” since 20"), "{status}");

    let released = site.run(&["release", "ann@visitors.example"]);
    assert!(released.code == 0 && released.stdout.contains("is released"), "{}", released.all());
    assert!(site.run(&["release", "ann@visitors.example"]).stdout.contains("was not on hold"));
    assert_eq!(site.once(&[]).code, 0);
    assert_eq!(site.mails().len(), 2);
}

#[tokio::test]
async fn a_hold_names_one_real_user_or_nobody() {
    let site = Site::empty().await;
    site.sql("INSERT INTO users (login, flag) VALUES ('twin', 1), ('twin', 1), ('role', 163840)").await;
    for (login, told) in [
        ("nobody", "the user nobody is not in the database"),
        ("role", "role is no user"),
        ("twin", "several users have the login twin, with the ids"),
    ] {
        let ended = site.run(&["hold", login]);
        assert!(ended.code == 4 && ended.stderr.contains(told), "{}", ended.all());
    }
}

#[tokio::test]
async fn a_daemon_does_not_start_with_a_policy_that_has_no_end() {
    let site = Site::empty().await.with_config(|config| config.replacen("rewrite: expired", "rewrite: always", 1));
    let ended = site.run(&[]);
    assert!(
        ended.code == 64 && ended.stderr.contains("policy staff: rewrite: always gives everybody a new credential in each pass"),
        "{}",
        ended.all()
    );
    let checked = site.run(&["check-config"]);
    assert!(checked.code == 0 && checked.stdout.contains("warning: policy staff: rewrite: always"), "{}", checked.all());
    assert_eq!(site.once(&[]).code, 0, "a single pass may");
}
