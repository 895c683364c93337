//! Mails in several languages (product rule R30), with the real program.

use crate::site::Site;

const TRANSLATIONS: &str = r"
    translations:
      - {language: de, match: {username: '.*[.]de'}, subject: 'Ihre Dokumente warten', parts: ['Hallo', 'Ihre PIN {{ pin }} in {{ cost_center }}']}
      - {language: fr, match: {cost_center: [5]}, subject: 'Vos documents', parts: ['Votre PIN {{ pin }}']}
  staff:
    translations:
      - {language: cs, match: {email: '.*[.]cs@example[.]com'}, subject: 'Novy PIN', parts: ['Novy PIN {{ pin }}']}
      - {language: fr, match: {cost_center: [Paris]}, subject: 'Votre PIN', parts: ['Votre PIN {{ pin }} a {{ cost_center }}']}
      - {language: de, match: {cost_center: [6, Nowhere]}, subject: 'Ihre PIN', parts: ['Ihre PIN {{ pin }} in {{ cost_center }}']}
";

#[tokio::test]
async fn each_user_is_written_to_in_the_first_language_that_fits() {
    let site = Site::empty().await.with_config(|yaml| yaml.replace("\n  staff:\n", TRANSLATIONS));
    site.sql("INSERT INTO tenant_1.ou (id, number, name) VALUES (5, 5, 'Paris'), (6, 6, 'Wien')").await;
    site.add_visitor("ann@visitors.example").await;
    site.add_visitor("ann@visitors.de").await;
    site.sql(
        "INSERT INTO tenant_1.users (login, email, ou_id, ou_number) VALUES
           ('u1', 'one@example.com', 0, 0), ('u2', 'two.cs@example.com', 5, 5), ('u3', 'three@example.com', 5, 5), ('u4', 'four@example.com', 6, 6)",
    )
    .await;
    let doctor = site.run(&["doctor"]);
    assert!(doctor.all().contains("a translation is for cost center “Nowhere”, which the database does not have"), "{}", doctor.all());

    let passed = site.once(&[]);
    assert_eq!(passed.code, 0, "{}", passed.all());
    let mut mails: Vec<String> = site
        .mails()
        .iter()
        .map(|mail| {
            let subject = mail.headers.iter().find(|(name, _)| name == "Subject").map(|(_, subject)| subject.as_str());
            let text = regex::Regex::new(r"\d{6}").unwrap().replace_all(mail.text.trim(), "######").replace('\n', "/");
            let text = text.split(" until ").next().unwrap_or_default();
            format!("{}: {}: {text}", mail.to, subject.unwrap_or_default())
        })
        .collect();
    mails.sort();
    assert_eq!(
        mails,
        [
            "ann@visitors.de: Ihre Dokumente warten: Hallo//Ihre PIN ###### in Has PIN",
            "ann@visitors.example: Your documents are waiting: Release your documents at any printer with PIN ######.",
            "four@example.com: Ihre PIN: Ihre PIN ###### in Wien",
            "one@example.com: Your new PIN: Hello  ,//your PIN ###### is valid",
            "three@example.com: Votre PIN: Votre PIN ###### a Paris",
            "two.cs@example.com: Novy PIN: Novy PIN ######",
        ]
    );
}
