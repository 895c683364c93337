//! `mail.auth`: how we show the mail server who we are.

use hyper::Uri;
use hyper::http::uri::Scheme;

use super::super::read::{Field, Section};
use super::super::secrets::{SHAPE, secret};
use super::super::url::is_loopback;
use super::super::yaml::Data;
use super::super::{MailLogin, Proof, TokenEndpoint};
use crate::domain::Secret;
use crate::tls::{TlsSettings, Verify};

const AUTH: &str = "{method: password, user: NAME, password: {file: PATH}}";
const URL: &str = "an address such as https://login.example.com/oauth2/v2.0/token";

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Password,
    OAuth2,
    None,
}

/// `None` for what is wrong; whoever wants no login has not come here. What the token endpoint is verified by is left open.
pub(super) fn login(field: &Field<'_>) -> Option<MailLogin> {
    let mut section = field.section(AUTH)?;
    let methods = [("password", Method::Password), ("oauth2", Method::OAuth2), ("none", Method::None)];
    let method = section.required("method", "password, oauth2 or none").and_then(|method| method.choice(&methods));
    let user = section.required("user", "the name at the mail server").and_then(|user| user.line("the name at the mail server"));
    let proof = if method == Some(Method::OAuth2) {
        without_effect(&mut section, &["password"], "oauth2");
        endpoint(&mut section).map(|endpoint| Proof::Token(Box::new(endpoint)))
    } else {
        let others = ["token_url", "client_id", "client_secret", "scope"];
        match method {
            None => others.iter().for_each(|key| drop(section.field(key))),
            Some(_) => without_effect(&mut section, &others, "password"),
        }
        password(&mut section).map(Proof::Password)
    };
    if method == Some(Method::None) {
        section.problem("user and password have no effect with method: none; remove them, or set method: password");
    }
    section.finish();
    method.filter(|method| *method != Method::None)?;
    Some(MailLogin { user: user?, proof: proof? })
}

/// Even if the rest is wrong.
pub(super) fn asks_for_tokens(field: &Field<'_>) -> bool {
    let method = field.node.entries().iter().find(|entry| entry.key == "method");
    matches!(method.map(|entry| &entry.value.data), Some(Data::Scalar { text, .. }) if text == "oauth2")
}

fn without_effect(section: &mut Section<'_>, keys: &[&'static str], method: &str) {
    for field in keys.iter().filter_map(|key| section.field(key)) {
        field.problem(format!("has no effect with method: {method}; remove one of the two"));
    }
}

fn password(section: &mut Section<'_>) -> Option<Secret> {
    let field = section.required("password", SHAPE)?;
    let password = secret(&field)?;
    if password.expose().contains('\0') {
        field.problem("a password cannot hold the character with the code 0");
        return None;
    }
    Some(password)
}

fn endpoint(section: &mut Section<'_>) -> Option<TokenEndpoint> {
    let url = section.required("token_url", URL).and_then(|field| token_url(&field));
    let client_id =
        section.required("client_id", "what the token endpoint knows credkeeper by").and_then(|field| field.line("an identifier"));
    let client_secret = section.required("client_secret", SHAPE).and_then(|field| secret(&field));
    let scope = section.field("scope").map_or(Some(None), |field| scope(&field).map(Some));
    Some(TokenEndpoint { client_id: client_id?, client_secret: client_secret?, scope: scope?, ..url? })
}

/// Where it is, and whether it is encrypted; the rest is empty.
fn token_url(field: &Field<'_>) -> Option<TokenEndpoint> {
    let text = field.line(URL)?;
    let Ok(uri) = text.parse::<Uri>() else { return field.misfit(URL) };
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return field.misfit(URL) };
    if authority.as_str().contains('@') {
        field.problem("no name and no password belong in the address: see client_id and client_secret");
        return None;
    }
    let host = authority.host();
    let is_encrypted = *scheme == Scheme::HTTPS;
    if !is_encrypted && (*scheme != Scheme::HTTP || !is_loopback(host)) {
        field.problem("the client secret and the tokens would cross the network unencrypted; expected an address with https://");
        return None;
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let tls = TlsSettings { verify: Verify::Full, ca_file: None, ca_directory: None, client: None, server_name: None };
    Some(TokenEndpoint {
        host: bare.to_owned(),
        port: authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 }),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        tls: is_encrypted.then_some(tls),
        client_id: String::new(),
        client_secret: Secret::new(String::new()),
        scope: None,
    })
}

/// Words of visible ASCII (RFC 6749, 3.3).
fn scope(field: &Field<'_>) -> Option<String> {
    let shape = "scopes such as https://outlook.office365.com/.default, with a blank between two";
    let text = field.line(shape)?;
    let fits = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\'));
    if fits { Some(text) } else { field.misfit(shape) }
}
