//! Mail to administrators about what is wrong (product rule R34), with the real program.

use crate::site::{Mail, Site, Step};

const ADMIN: &str = "admin: {email: [admin@example.com, boss@example.com], subject: Look at the printers}\njournal:\n";

async fn site(change: impl FnOnce(String) -> String) -> Site {
    Site::empty().await.with_config(|yaml| change(yaml.replace("journal:\n", ADMIN)))
}

fn digests(site: &Site) -> Vec<Mail> {
    site.mails().into_iter().filter(|mail| mail.raw.contains("Look at the printers")).collect()
}

fn header<'a>(mail: &'a Mail, name: &str) -> &'a str {
    mail.headers.iter().find(|(header, _)| header == name).map_or("", |(_, value)| value)
}

#[tokio::test]
async fn a_single_pass_mails_one_digest_of_what_is_wrong() {
    let site =
        site(|yaml| yaml.replace("users_per_pass: unlimited", "users_per_pass: 2").replace("move_to: Has PIN", "move_to: Nowhere")).await;
    for n in 0..5 {
        site.add_visitor(&format!("visitor{n}@visitors.example")).await;
        let staff = format!("INSERT INTO users (login, email, ou_id, ou_number) VALUES ('s{n}', 's{n}@example.com', 0, 0)");
        site.sql(&staff).await;
    }
    let passed = site.once(&[]);
    assert_eq!(passed.code, 3, "{}", passed.all());
    let mails = digests(&site);
    assert_eq!(mails.iter().map(|mail| mail.to.as_str()).collect::<Vec<_>>(), ["admin@example.com", "boss@example.com"]);
    assert_eq!(site.mails().len(), 2, "nobody else was mailed");
    let text = &mails[0].text;
    assert_eq!(text.matches("\n- main, since ").count(), 2, "{text}");
    assert!(text.contains("policy visitors is blocked: the database has no cost center") && text.contains("Nowhere"), "{text}");
    assert!(text.contains("policy staff: refused plan ") && text.contains("which changes 5 users where users_per_pass allows 2"), "{text}");
    assert_eq!(header(&mails[0], "Auto-Submitted"), "auto-generated");
    assert!(header(&mails[0], "Message-ID").starts_with("<digest."), "{}", header(&mails[0], "Message-ID"));
    assert_ne!(header(&mails[0], "Message-ID"), header(&mails[1], "Message-ID"));

    let preview = site.once(&["--dry-run"]);
    assert_eq!(preview.code, 3, "{}", preview.all());
    assert_eq!(digests(&site).len(), 2, "a preview mails nobody");
}

#[tokio::test]
async fn a_pass_that_is_well_mails_no_administrator_and_a_pass_that_cannot_be_mails_why() {
    let site = site(|yaml| yaml).await;
    site.add_visitor("ann@visitors.example").await;
    assert_eq!(site.once(&[]).code, 0);
    assert!(digests(&site).is_empty() && site.mails().len() == 1);

    site.sql("ALTER TABLE users RENAME TO people").await;
    let failed = site.once(&[]);
    assert_eq!(failed.code, 1, "{}", failed.all());
    let mails = digests(&site);
    assert_eq!(mails.len(), 2, "{}", failed.all());
    assert!(mails[0].text.contains("nothing could be done: what the inspection found must be mended first"), "{}", mails[0].text);
}

#[tokio::test]
async fn a_rehearsal_keeps_digests_too_and_one_that_cannot_be_sent_is_told() {
    let site = site(|yaml| {
        let yaml = yaml.replace("move_to: Has PIN", "move_to: Nowhere");
        yaml.replace(
            "from: Print Service <print@example.com>",
            "from: Print Service <print@example.com>\n  redirect_to: rehearsal@example.net",
        )
    })
    .await;
    let passed = site.once(&[]);
    assert_eq!(passed.code, 3, "{}", passed.all());
    let to: Vec<String> = digests(&site).into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, ["rehearsal@example.net", "rehearsal@example.net"]);

    site.stop_mail_server();
    let metrics = site.folder().join("metrics.prom");
    let passed = site.once(&["--metrics-file", metrics.to_str().unwrap()]);
    assert_eq!(passed.code, 3, "{}", passed.all());
    let said = "The digest to the administrator a…@example.com was not sent: the mail server cannot be reached";
    assert!(passed.all().contains(said) && !passed.all().contains("admin@example.com"), "{}", passed.all());
    let told = std::fs::read_to_string(metrics).unwrap();
    assert!(told.contains("credkeeper_mails_total{outcome=\"connect_error\"} 2"), "{told}");
}

/// A real minute: what is to be seen is that a daemon mails by itself, once.
#[tokio::test]
async fn a_daemon_mails_by_itself_a_minute_after_the_first_problem() {
    let site = site(|yaml| yaml.replace("move_to: Has PIN", "move_to: Nowhere")).await;
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    let begun = std::time::Instant::now();
    while digests(&site).len() < 2 {
        assert!(begun.elapsed().as_secs() < 100, "no digest came");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert!(begun.elapsed().as_secs() >= 50, "a burst would have been several mails: {:?}", begun.elapsed());
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(digests(&site).len(), 2, "each administrator had one");
}
