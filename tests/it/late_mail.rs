//! A mail that waited tells only what still stands.
#![cfg(unix)]

use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_since_is_left_out_and_the_rest_is_told() {
    let site = Site::empty().await.with_config(|yaml| {
        yaml.replace("schedule:", "    password_encoding: {bcrypt: {cost: 4}}\nschedule:")
            .replace("min_interval: 0s", "min_interval: 0s\n  pinless_rise: unlimited")
            .replace("      valid_for: 365d\n", "      valid_for: 365d\n    password: {length: 16}\n")
            .replace("      - 'your PIN", "      - 'PASSWORD {{ password }}'\n      - 'your PIN")
    });
    site.sql(
        "INSERT INTO users (login, email, ou_id, ou_number) SELECT 'user' || g, 'user' || g || '@example.com', 0, 0 FROM generate_series(1, 4) g",
    )
    .await;
    site.stop_mail_server();
    assert_eq!(site.once(&[]).code, 4, "everything waits in the journal");
    site.age_journal(120);
    // An administrator sets a password, removes a PIN, and does both.
    site.sql("UPDATE users SET pass = 'set by hand' WHERE login IN ('user2', 'user4')").await;
    site.sql("DELETE FROM users_cards WHERE user_id IN (SELECT id FROM users WHERE login IN ('user3', 'user4'))").await;
    site.start_mail_server();
    let ended = site.once(&[]);
    let told = |user: &str| {
        let mails = site.mails();
        let mail = mails.iter().find(|mail| mail.to == format!("{user}@example.com"))?;
        Some((mail.text.contains("your PIN"), mail.text.contains("PASSWORD")))
    };
    assert_eq!(told("user1"), Some((true, true)), "{}", ended.all());
    assert_eq!(told("user2"), Some((true, false)), "the password that was issued opens nothing any more");
    assert_eq!(told("user3"), Some((false, true)), "nor does the PIN");
    // Of the last one nothing stands: that mail is not sent, and the next pass gives him a new PIN.
    let again = site.once(&[]);
    assert_eq!(told("user4"), Some((true, false)), "{}", again.all());
    assert_eq!(site.mails().len(), 5, "whoever had lost the PIN alone got another one, too");
}
