//! Whatever the texts are, the mail has exactly the headers that it should have, and the text arrives.

use proptest::prelude::*;

use super::*;

/// Header lines unfolded, and the body.
fn split(mail: &[u8]) -> (Vec<(String, String)>, String) {
    let mail = std::str::from_utf8(mail).unwrap();
    let (head, body) = mail.split_once("\r\n\r\n").unwrap();
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in head.split("\r\n") {
        if let Some(rest) = line.strip_prefix([' ', '\t']) {
            let value = &mut headers.last_mut().unwrap().1;
            value.push(' ');
            value.push_str(rest);
        } else {
            let (name, value) = line.split_once(": ").unwrap();
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    (headers, body.to_owned())
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    let mut found = headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let value = &found.next().unwrap().1;
    assert!(found.next().is_none(), "{name} twice");
    value
}

fn unhex(text: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(text).unwrap(), 16).unwrap()
}

/// Decodes `=XX` and, in quoted-printable, soft line ends.
fn unescape(text: &str) -> Vec<u8> {
    let text = text.replace("=\r\n", "");
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'=' {
            bytes.push(unhex(&tail[..2]));
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    bytes
}

fn unbase64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for value in text.bytes().filter_map(|b| alphabet.iter().position(|a| *a == b)) {
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

fn decoded_body(headers: &[(String, String)], body: &str) -> String {
    let bytes = match header(headers, "Content-Transfer-Encoding") {
        "7bit" => body.as_bytes().to_vec(),
        "quoted-printable" => unescape(body),
        "base64" => unbase64(body),
        other => panic!("{other}"),
    };
    String::from_utf8(bytes).unwrap()
}

fn decoded_words(value: &str) -> String {
    if !value.starts_with("=?utf-8?q?") {
        return value.to_owned();
    }
    let words = value.split(' ').map(|word| {
        assert!(word.len() <= 75, "{word}");
        unescape(&word.strip_prefix("=?utf-8?q?").unwrap().strip_suffix("?=").unwrap().replace('_', " "))
    });
    // Each word must be whole characters.
    words.map(|word| String::from_utf8(word).unwrap()).collect()
}

fn sender(name: Option<&str>) -> Sender {
    Sender { name: name.map(str::to_owned), address: Mailbox::parse("print@example.com").unwrap() }
}

fn outgoing(subject: &str, text: &str) -> Outgoing {
    Outgoing {
        id: IssuanceId(7),
        recipient: Mailbox::parse("visitor@example.org").unwrap(),
        message_id: "0123@credkeeper.example.com".to_owned(),
        subject: subject.to_owned(),
        text: Secret::new(text.to_owned()),
        html: None,
        not_after: None,
    }
}

const NAMES_IN_ORDER: [&str; 9] =
    ["Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"];

#[test]
fn an_ordinary_mail_can_be_read_as_it_stands() {
    let mail = compose(&sender(Some("Print Service")), &outgoing("Your documents wait", "PIN 012345.\n"), None, Timestamp(1_000_000_000));
    assert_eq!(
        std::str::from_utf8(&mail).unwrap(),
        "Date: Sun, 09 Sep 2001 01:46:40 +0000\r\n\
         From: \"Print Service\" <print@example.com>\r\n\
         To: visitor@example.org\r\n\
         Subject: Your documents wait\r\n\
         Message-ID: <0123@credkeeper.example.com>\r\n\
         Auto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: 7bit\r\n\
         \r\n\
         PIN 012345.\r\n"
    );
}

#[test]
fn letters_outside_ascii_arrive() {
    let mail =
        compose(&sender(Some("Tisková služba")), &outgoing("Vaše dokumenty čekají 🖨", "Váš PIN je 012345.\r\nKód…"), None, Timestamp(0));
    let (headers, body) = split(&mail);
    assert_eq!(decoded_words(header(&headers, "Subject")), "Vaše dokumenty čekají 🖨");
    assert_eq!(header(&headers, "Content-Transfer-Encoding"), "quoted-printable");
    assert_eq!(decoded_body(&headers, &body), "Váš PIN je 012345.\r\nKód…\r\n");
    let (name, address) = header(&headers, "From").rsplit_once(' ').unwrap();
    assert_eq!((decoded_words(name).as_str(), address), ("Tisková služba", "<print@example.com>"));
    let mail = compose(&sender(None), &outgoing("暗証番号", "暗証番号は 012345 です"), None, Timestamp(0));
    let (headers, body) = split(&mail);
    assert_eq!(header(&headers, "Content-Transfer-Encoding"), "base64");
    assert_eq!(decoded_body(&headers, &body), "暗証番号は 012345 です");
}

#[test]
fn attempts_to_add_headers_and_recipients_stay_text() {
    let subject = "x\r\nBcc: a@b.cz\r\n\r\nbody\u{2028}\u{85}=?utf-8?q?=0D=0ABcc:_a@b.cz?=";
    let mut outgoing = outgoing(subject, "text\r\n.\r\nMAIL FROM:<x@y.cz>\n.\rRCPT TO");
    outgoing.message_id = "a>\r\nBcc: <c@d.cz".to_owned();
    let mail = compose(&sender(Some("A\" <evil@example.net>, \"B\r\nBcc: a@b.cz")), &outgoing, None, Timestamp(i64::MIN));
    let (headers, body) = split(&mail);
    assert_eq!(headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), NAMES_IN_ORDER);
    assert_eq!(header(&headers, "To"), "visitor@example.org");
    assert_eq!(header(&headers, "Message-ID"), "<a___Bcc___c@d.cz>");
    assert_eq!(header(&headers, "From").matches(['<', '@']).count(), 2);
    assert_eq!(decoded_words(header(&headers, "Subject")), "x Bcc: a@b.cz body =?utf-8?q?=0D=0ABcc:_a@b.cz?=");
    assert_eq!(decoded_body(&headers, &body), "text\r\n.\r\nMAIL FROM:<x@y.cz>\r\n.\r\nRCPT TO\r\n");
}

#[test]
fn dates_beyond_the_calendar_stop_at_its_ends() {
    for (seconds, year) in [(i64::MIN, "1970"), (-1, "1970"), (i64::MAX, "9999")] {
        assert!(String::from_utf8_lossy(&compose(&sender(None), &outgoing("", ""), None, Timestamp(seconds)))[..24].contains(year));
    }
}

/// Text that tries: ordinary, any characters, and the pieces that mean something to a mail program.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z0-9 .,]{0,20}",
        any::<String>(),
        "[\\x00-\\x1f]{0,5}",
        Just("\r\n".to_owned()),
        Just("\r\n.\r\n".to_owned()),
        Just("\n\nBcc: a@b.cz\n".to_owned()),
        Just("=?utf-8?b?DQo=?=".to_owned()),
        Just("é".repeat(120)),
        Just("w".repeat(1200)),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// The parts of a multipart message, each as headers and decoded body.
fn alternatives(headers: &[(String, String)], body: &str) -> Vec<(String, String)> {
    let boundary = header(headers, "Content-Type").strip_prefix("multipart/alternative; boundary=\"").unwrap().strip_suffix('"').unwrap();
    let inner = body.strip_prefix(&format!("--{boundary}\r\n")).unwrap();
    let inner = inner.strip_suffix(&format!("\r\n--{boundary}--\r\n")).unwrap();
    let part = |part: &str| {
        let (headers, body) = split(part.as_bytes());
        assert_eq!(headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["Content-Type", "Content-Transfer-Encoding"]);
        (header(&headers, "Content-Type").to_owned(), decoded_body(&headers, &body))
    };
    inner.split(&format!("\r\n--{boundary}\r\n")).map(part).collect()
}

#[test]
fn html_and_text_are_alternatives_the_richer_one_last() {
    let mail = Outgoing { html: Some(Secret::new("<b>012345</b> žluť\n".to_owned())), ..outgoing("s", "PIN 012345\n") };
    let bytes = compose(&sender(None), &mail, None, Timestamp(0));
    assert_eq!(bytes, compose(&sender(None), &mail, None, Timestamp(0)), "a mail repeated is the same mail");
    let (headers, body) = split(&bytes);
    assert_eq!(
        headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
    );
    let part = |kind: &str, text: &str| (format!("text/{kind}; charset=utf-8"), text.to_owned());
    assert_eq!(alternatives(&headers, &body), [part("plain", "PIN 012345"), part("html", "<b>012345</b> žluť")]);
}

#[test]
fn no_text_can_end_its_part() {
    let mail = |text: &str| Outgoing { html: Some(Secret::new("<p>".to_owned())), ..outgoing("s", text) };
    let first = boundary(&outgoing("", "").message_id, ["", ""]);
    let text = format!("a\n--{first}\nContent-Type: text/html\n\n<b>\n--{first}--");
    let bytes = compose(&sender(None), &mail(&text), None, Timestamp(0));
    let (headers, body) = split(&bytes);
    assert!(!header(&headers, "Content-Type").contains(&first));
    assert_eq!(alternatives(&headers, &body)[0].1.replace("\r\n", "\n"), text);
}

#[test]
fn a_rehearsal_goes_elsewhere_and_says_for_whom_it_was_without_the_address() {
    let mail = Outgoing { recipient: Mailbox::parse("žofie@example.org").unwrap(), ..outgoing("Subject", "text") };
    let to = Mailbox::parse("rehearsal@example.com").unwrap();
    let bytes = compose(&sender(None), &mail, Some(&to), Timestamp(0));
    let (headers, _) = split(&bytes);
    assert_eq!((header(&headers, "To"), header(&headers, "Subject")), ("rehearsal@example.com", "Subject"));
    assert_eq!(decoded_words(header(&headers, "X-Credkeeper-Original-To")), "ž…@example.org");
    assert!(bytes.is_ascii());
}

proptest! {
    #[test]
    fn no_text_becomes_a_header_and_every_body_arrives(
        name in proptest::option::of(text()), subject in text(), message_id in text(), body_text in text(), html in proptest::option::of(text()),
        local in "[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,30}(\\.[a-zA-Z0-9ž用उ]{1,10})?", redirected in any::<bool>(), date in any::<i64>(),
    ) {
        let recipient = Mailbox::parse(&format!("{local}@sub.example.org")).unwrap();
        let rehearsal = Mailbox::parse("rehearsal@example.net").unwrap();
        let secret = |text: &String| Secret::new(text.clone());
        let out = Outgoing { id: IssuanceId(1), recipient, message_id, subject: subject.clone(), text: secret(&body_text), html: html.as_ref().map(secret), not_after: None };
        let composed = || compose(&sender(name.as_deref()), &out, redirected.then_some(&rehearsal), Timestamp(date));
        let mail = composed();
        prop_assert_eq!(&mail, &composed());

        let wire = String::from_utf8(mail.to_vec()).unwrap();
        let to = if redirected { &rehearsal } else { &out.recipient };
        let beyond_ascii = wire.split("\r\n").filter(|line| !line.is_ascii()).collect::<Vec<_>>();
        let to_line = format!("To: {}", to.address());
        prop_assert_eq!(beyond_ascii, if to.needs_smtputf8() { vec![to_line.as_str()] } else { vec![] });
        prop_assert!(wire.ends_with("\r\n"));
        prop_assert!(!wire.replace("\r\n", "").contains(['\r', '\n']), "a bare CR or LF");
        prop_assert!(wire.split("\r\n").all(|line| line.len() <= 998));

        let (headers, body) = split(&mail);
        let mut names = NAMES_IN_ORDER.to_vec();
        if html.is_some() {
            names.pop();
        }
        if redirected {
            names.insert(6, "X-Credkeeper-Original-To");
        }
        prop_assert_eq!(headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names);
        prop_assert_eq!(header(&headers, "To"), to.address());
        let id = header(&headers, "Message-ID");
        prop_assert!(id.starts_with('<') && id.ends_with('>') && id.matches(['<', '>', ' ']).count() == 2);
        let from = header(&headers, "From");
        prop_assert!(from == "print@example.com" || from.ends_with(" <print@example.com>"));
        prop_assert_eq!(decoded_words(header(&headers, "Subject")), one_line(&subject));

        let plain = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n").trim_end_matches('\n').to_owned();
        match html {
            None => prop_assert_eq!(plain(&decoded_body(&headers, &body)), plain(&body_text)),
            Some(html) => {
                let arrived: Vec<String> = alternatives(&headers, &body).iter().map(|(_, text)| plain(text)).collect();
                prop_assert_eq!(arrived, [plain(&body_text), plain(&html)]);
            }
        }
    }
}
