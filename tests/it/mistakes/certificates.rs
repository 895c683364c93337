//! Encryption of the connection to PostgreSQL: certificates that are refused, on either side, and files that are not there.

use std::fs;

use super::{OUTBOX, Scene, yaml};
use crate::bounded::Bounded;
use crate::encrypted::{Encrypted, encrypted};
use crate::pg;

/// `address` follows `postgres://`, `tls` is the section, in braces.
fn connecting(title: &str, server: &Encrypted, address: &str, tls: &str) -> Scene {
    let section = format!("    url: postgres://{address}\n    schema_map: {{cost_centers: {{verified: true}}}}\n{tls}");
    let scene = Scene::new(title).config(yaml(&section, OUTBOX));
    for file in fs::read_dir(server.files.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), scene.folder().join(file.file_name())).unwrap();
    }
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_certificate_is_told_with_its_remedy() {
    let server = encrypted();
    let there = format!("127.0.0.1:{}/vendor", server.cluster.port);
    for (title, certificate, role, tls, golden) in [
        ("The certificate is for other hosts", "elsewhere", "credkeeper", "{ca_file: ca.pem}", "certificate-for-others"),
        ("The certificate has no subjectAltName", "nameless", "credkeeper", "{ca_file: ca.pem}", "certificate-without-name"),
        ("The certificate has expired", "expired", "credkeeper", "{mode: verify-ca, ca_file: ca.pem}", "certificate-expired"),
        ("The certificate is of another authority", "foreign", "credkeeper", "{ca_file: ca.pem}", "certificate-of-another-authority"),
        ("The certificate is signed by itself", "self", "credkeeper", "{ca_file: ca.pem}", "certificate-self-signed"),
        ("The role must show a certificate, and shows none", "good", "reader", "{ca_file: ca.pem}", "client-certificate-missing"),
        (
            "The role shows a certificate that the server does not trust",
            "good",
            "reader",
            "{ca_file: ca.pem, client_cert: stranger.pem, client_key: stranger.key}",
            "client-certificate-not-trusted",
        ),
        (
            "The role is known by its certificate, and shows that of another",
            "good",
            "certified",
            "{ca_file: ca.pem, client_cert: somebody.pem, client_key: somebody.key}",
            "client-certificate-of-another",
        ),
        ("The server wants TLS, and is asked without", "good", "credkeeper", "{mode: disable}", "tls-wanted"),
    ] {
        let guard = server.show(certificate).await;
        let scene = connecting(title, server, &format!("{role}@{there}"), &format!("    tls: {tls}"));
        let scene = scene.doctor_and_once((1, 1));
        drop(guard);
        scene.is(golden);
    }
    // A name of this machine that is not known for one, so that TLS is wanted without being asked for.
    let plain = format!("credkeeper@127.1:{}/vendor", pg::cluster().port);
    let scene = connecting("The server offers no TLS", server, &plain, "    tls: {ca_file: ca.pem}");
    scene.hiding(pg::cluster().port, "PORT").doctor_and_once((1, 1)).is("tls-not-offered");
}

#[test]
fn a_file_that_is_not_there_is_told_by_its_key() {
    let server = encrypted();
    for (title, address, tls, golden) in [
        ("The file of the authority is gone", "u@db.example.com/d", "    tls: {ca_file: gone.pem}", "ca-file-missing"),
        (
            "The file of our certificate is gone",
            "u@db.example.com/d",
            "    tls: {client_cert: gone.pem, client_key: certified.key}",
            "client-cert-missing",
        ),
        (
            "The file of our key is gone",
            "u@db.example.com/d",
            "    tls: {client_cert: certified.pem, client_key: gone.key}",
            "client-key-missing",
        ),
        (
            "The key belongs to another certificate",
            "u@db.example.com/d",
            "    tls: {client_cert: certified.pem, client_key: somebody.key}",
            "client-key-of-another",
        ),
        ("The certificate stands without its key", "u@db.example.com/d?sslcert=certified.pem", "", "client-key-not-named"),
        ("The authority's file is a key", "u@db.example.com/d?sslrootcert=somebody.key", "", "ca-file-is-a-key"),
        ("A list of revoked certificates is named", "u@db.example.com/d?sslcrl=revoked.crl", "", "revocation-list"),
    ] {
        let mut scene = connecting(title, server, address, tls);
        assert_eq!(scene.run(&["check-config"]), 64, "{}", scene.told);
        assert_eq!(scene.command(&["--once"]).output_in_time().status.code(), Some(64));
        scene.is(golden);
    }
}
