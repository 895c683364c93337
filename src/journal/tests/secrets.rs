//! What the files give away.

use super::*;

fn finds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

/// `bytes` as they are, in hex of both cases, and in Base64 at each of the three alignments.
fn disguises(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool| bytes.iter().flat_map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }.into_bytes()).collect();
    let mut all = vec![bytes.to_vec(), hex(false), hex(true)];
    for shift in 0..3 {
        let padded = [&b"\0\0"[..shift], bytes].concat();
        let text = base64(&padded[..padded.len() / 3 * 3]);
        all.push(text[if shift == 0 { 0 } else { 4 }..].to_vec());
    }
    all
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks_exact(3)
        .flat_map(|c| {
            let n = u32::from(c[0]) << 16 | u32::from(c[1]) << 8 | u32::from(c[2]);
            [18, 12, 6, 0].map(|s| ALPHABET[(n >> s & 63) as usize])
        })
        .collect()
}

/// A PIN long enough not to turn up by chance.
const PIN: &str = "7402185639021847";

fn gives_away(bed: &Bed, what: &str) {
    let bytes = bed.bytes();
    let hash = stored(PIN);
    let old = stored("9182736450192837");
    for secret in [PIN, hash.expose(), &hash.expose()[3..], old.expose(), "someone1@example.org"] {
        for disguise in disguises(secret.as_bytes()) {
            assert!(!finds(&bytes, &disguise), "{what}: the files hold {secret} as {:?}", String::from_utf8_lossy(&disguise));
        }
    }
    let digest: Vec<u8> = (3..35).step_by(2).map(|i| u8::from_str_radix(&hash.expose()[i..i + 2], 16).unwrap()).collect();
    assert!(!finds(&bytes, &digest), "{what}: the files hold the bare digest");
}

#[tokio::test]
async fn the_files_never_hold_a_secret_and_at_the_end_not_even_the_sealed_one() {
    assert!(disguises(b"abcdef").contains(&b"YWJjZGVm".to_vec()));
    let bed = Bed::new();
    let journal = bed.open().await;
    let batch = journal.planned(&pass(), vec![renewed(1, PIN, stored("9182736450192837").expose())], NOW).await.unwrap();
    gives_away(&bed, "planned");
    let (secret, before): (Vec<u8>, Vec<u8>) =
        bed.raw().query_row("SELECT secret, before FROM issuance", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    assert!(finds(&bed.bytes(), &secret), "the search itself works");
    journal.committed(batch, NOW).await.unwrap();
    gives_away(&bed, "committed");
    assert_eq!(due(&journal, NOW).await, [1]);
    answer(&journal, 1, Answer::Accepted, at(1)).await;
    gives_away(&bed, "delivered");
    assert!(journal.checkpoint().await.unwrap());
    gives_away(&bed, "checkpointed");
    let bytes = bed.bytes();
    assert!(!finds(&bytes, &secret[25..57]), "the sealed secret is still there after delivery and checkpoint");
    assert!(finds(&bytes, &before), "the before-image stays for undo");
    journal.close().await.unwrap();
    gives_away(&bed, "closed");
}

#[tokio::test]
async fn whatever_ends_an_issuance_wipes_its_secret_from_the_file() {
    for end in ["accepted", "gone", "refused", "unannounced", "not landed"] {
        let bed = Bed::new();
        let journal = bed.open().await;
        // Neighbours on the same page, so that the page lives on.
        committed(&journal, (10..20).map(|u| announced(u, "1357")).collect()).await;
        let new = if end == "unannounced" { silent(1, PIN) } else { announced(1, PIN) };
        let batch = journal.planned(&pass(), vec![new], NOW).await.unwrap();
        let sealed: Vec<u8> = bed.raw().query_row("SELECT secret FROM issuance WHERE user = 1", [], |r| r.get(0)).unwrap();
        match end {
            "refused" => journal.abandoned(batch, NOW).await.unwrap(),
            "not landed" => journal.resolve(batch, &[false], NOW).await.unwrap(),
            _ => journal.committed(batch, NOW).await.unwrap(),
        }
        match end {
            "accepted" => assert_eq!(answer(&journal, 11, Answer::Accepted, NOW).await, State::Delivered),
            "gone" => assert_eq!(answer(&journal, 11, Answer::Gone, NOW).await, State::Superseded),
            _ => {}
        }
        journal.checkpoint().await.unwrap();
        assert!(!finds(&bed.bytes(), &sealed[25..57]), "{end}");
        gives_away(&bed, end);
    }
}

#[tokio::test]
async fn no_text_of_an_error_or_a_value_tells_a_secret() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let new = renewed(1, PIN, stored("9182736450192837").expose());
    let mut told = format!("{new:?}");
    committed(&journal, vec![new.clone()]).await;
    told += &format!("{:?}", journal.due_mail(&[journal.book()], NOW, 9, &[]).await.unwrap());
    told += &format!("{:?}", journal.planned(&pass(), vec![new], NOW).await.unwrap_err());
    told += &format!("{:?}", journal.reader().user_history(UserId(1), 9).await.unwrap());
    let hash = stored(PIN);
    for secret in [PIN, hash.expose(), &hash.expose()[3..], "someone1@"] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[tokio::test]
async fn a_reader_in_the_way_does_not_make_a_checkpoint_fail() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357")]).await;
    let raw = bed.raw();
    raw.execute_batch("BEGIN; SELECT count(*) FROM issuance;").unwrap();
    let impatient = |w: &mut Writer| {
        w.view.db.busy_timeout(Duration::ZERO).unwrap();
        Ok(())
    };
    journal.write(impatient).await.unwrap();
    committed(&journal, vec![announced(2, "1357")]).await;
    assert!(!journal.checkpoint().await.unwrap());
    raw.execute_batch("COMMIT").unwrap();
    assert!(journal.checkpoint().await.unwrap());
}
