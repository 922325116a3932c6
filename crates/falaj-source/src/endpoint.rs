//! One request to an API and its reply, with everything that can go wrong in between put into a few
//! [`Fault`]s that hold no text of either.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use falaj_record::{ByteSize, Period};
use reqwest::header::{
    ACCEPT, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Client, ClientBuilder, Request, Response, Url};

use crate::source::Opening;
use crate::{Auth, Fault, HttpConfig, Setting, SourceError};

/// Redirects followed in a row.
const REDIRECTS_MAX: usize = 5;
/// Longest `Retry-After` that is obeyed: a service may not silence a pipeline for good.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// What is asked, and whom.
pub(crate) struct Endpoint {
    client: Client,
    /// Holds secrets in its query and headers: never printed.
    request: Request,
    /// The address without its query.
    label: String,
    host: Arc<str>,
    timeout: Period,
    max_body: ByteSize,
}

/// What was seen of a reply, whether it could be used or not.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// HTTP status.
    pub(crate) status: Option<u16>,
    /// Bytes of the body, unpacked.
    pub(crate) bytes: u64,
    /// How long the service asks to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

impl Endpoint {
    pub(crate) fn new(config: &HttpConfig, opening: &Opening) -> Result<Self, SourceError> {
        let mut url = address(&config.url)?;
        let label = label(&url);
        let host = url.host_str().unwrap_or_default();
        let host = match url.port_or_known_default() {
            Some(port) => format!("{host}:{port}").into(),
            None => host.into(),
        };
        add_query(&mut url, config, opening)?;
        let (headers, secret) = headers(config, opening)?;
        let secret = secret || config.auth.is_some();

        let client = client(&url, secret)?;
        let mut request = client.get(url).headers(headers);
        let read = |place: &str, secret: &falaj_record::Secret| {
            secret
                .read(&opening.base)
                .map_err(|cause| SourceError::Secret {
                    place: place.to_owned(),
                    cause,
                })
        };
        request = match &config.auth {
            Some(Auth::Bearer(token)) => request.bearer_auth(read("auth.bearer", token)?),
            Some(Auth::Basic { user, password }) => {
                request.basic_auth(user, Some(read("auth.basic.password", password)?))
            }
            None => request,
        };
        // The address and the headers are checked; what is left is a token with a line break.
        let request = request.build().map_err(|_| SourceError::Header {
            name: "authorization".into(),
        })?;
        Ok(Self {
            client,
            request,
            label,
            host,
            timeout: config.timeout,
            max_body: config.max_body,
        })
    }

    /// The address without its query.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Asks once; the body of a reply that is a success and can be JSON.
    pub(crate) async fn fetch(&self, seen: &mut Seen) -> Result<Bytes, Fault> {
        let waited = self.timeout;
        tokio::time::timeout(waited.0, self.exchange(seen))
            .await
            .unwrap_or(Err(Fault::TimedOut { waited }))
    }

    async fn exchange(&self, seen: &mut Seen) -> Result<Bytes, Fault> {
        let request = self
            .request
            .try_clone()
            .expect("a GET has no body to clone");
        let reply = self.client.execute(request).await;
        let mut reply = reply.map_err(|e| self.fault(&e, 0))?;
        let status = reply.status();
        seen.status = Some(status.as_u16());
        seen.retry_after = retry_after(reply.headers(), SystemTime::now());
        if !status.is_success() {
            let status = status.as_u16();
            return Err(Fault::Status { status });
        }
        if let Some(kind) = not_json(reply.headers()) {
            return Err(Fault::ContentType { kind });
        }
        self.body(&mut reply, seen).await
    }

    async fn body(&self, reply: &mut Response, seen: &mut Seen) -> Result<Bytes, Fault> {
        let too_large = Fault::TooLarge { max: self.max_body };
        let announced = reply.content_length().unwrap_or_default();
        if announced > self.max_body.0 {
            return Err(too_large);
        }
        let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or_default());
        while let Some(part) = reply
            .chunk()
            .await
            .map_err(|e| self.fault(&e, seen.bytes))?
        {
            seen.bytes += part.len() as u64;
            if seen.bytes > self.max_body.0 {
                return Err(too_large);
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    }

    /// Only the kind of an error is used: its text quotes the address.
    fn fault(&self, error: &reqwest::Error, bytes: u64) -> Fault {
        let refused = causes(error).find_map(|cause| cause.downcast_ref::<Refused>());
        if let Some(refused) = refused {
            return match refused {
                Refused::Loop => Fault::RedirectLoop,
                Refused::Away => Fault::RedirectAway,
                Refused::Down => Fault::RedirectDown,
            };
        }
        if error.is_connect() {
            let host = self.host.clone();
            let cause = unreachable_because(error);
            return Fault::Unreachable { host, cause };
        }
        Fault::BrokeOff { bytes }
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

fn unreachable_because(error: &reqwest::Error) -> &'static str {
    if error.is_dns() {
        return "its name cannot be resolved";
    }
    let kind = causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind)
        .last();
    match kind {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused",
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => "connection closed",
        Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => "no route",
        Some(io::ErrorKind::TimedOut) => "no answer",
        Some(io::ErrorKind::InvalidData | io::ErrorKind::Other) => {
            "TLS failed (a certificate that is not trusted, or no TLS there)"
        }
        _ => "no connection",
    }
}

fn address(text: &str) -> Result<Url, SourceError> {
    let url = Url::parse(text).map_err(|e| SourceError::Url {
        cause: e.to_string(),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        let cause = "it does not begin with `http://` or `https://`".into();
        return Err(SourceError::Url { cause });
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SourceError::UrlSecret);
    }
    Ok(url)
}

fn label(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    shown.into()
}

fn add_query(url: &mut Url, config: &HttpConfig, opening: &Opening) -> Result<(), SourceError> {
    let own_inc =
        config.query.contains_key("inc") || url.query_pairs().any(|(name, _)| name == "inc");
    let inc = (config.inc && !own_inc && !opening.inc.is_empty()).then(|| opening.inc.join(","));
    if config.query.is_empty() && inc.is_none() {
        return Ok(());
    }
    let mut pairs = url.query_pairs_mut();
    for (name, value) in &config.query {
        let value = read(value, &format!("query.{name}"), opening)?;
        pairs.append_pair(name, &value);
    }
    if let Some(inc) = inc {
        pairs.append_pair("inc", &inc);
    }
    Ok(())
}

/// The declared headers, and whether one of them is a secret.
fn headers(config: &HttpConfig, opening: &Opening) -> Result<(HeaderMap, bool), SourceError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let mut any_secret = false;
    for (name, value) in &config.headers {
        let text = read(value, &format!("headers.{name}"), opening)?;
        let invalid = || SourceError::Header { name: name.clone() };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let mut field = HeaderValue::from_str(&text).map_err(|_| invalid())?;
        let secret = matches!(value, Setting::Secret(_));
        field.set_sensitive(secret);
        any_secret |= secret;
        headers.insert(key, field);
    }
    Ok((headers, any_secret))
}

fn read(value: &Setting, place: &str, opening: &Opening) -> Result<String, SourceError> {
    value
        .read(&opening.base)
        .map_err(|cause| SourceError::Secret {
            place: place.to_owned(),
            cause,
        })
}

fn client(url: &Url, secret: bool) -> Result<Client, SourceError> {
    let builder = || {
        Client::builder()
            .user_agent(concat!("falaj/", env!("CARGO_PKG_VERSION")))
            .referer(false)
            .redirect(Policy::custom(move |attempt| redirect(attempt, secret)))
    };
    let plain = |builder: ClientBuilder| builder.tls_certs_only([]).build();
    let built = if is_loopback(url) && url.scheme() == "http" {
        plain(builder().no_proxy())
    } else if url.scheme() == "http" {
        // A machine without certificates can still ask over http.
        builder().build().or_else(|_| plain(builder()))
    } else {
        builder().build()
    };
    built.map_err(|_| SourceError::Tls)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Refused {
    #[error("too many redirects")]
    Loop,
    #[error("redirect to another host")]
    Away,
    #[error("redirect from https to http")]
    Down,
}

fn redirect(attempt: Attempt<'_>, secret: bool) -> Action {
    let refused = match attempt.previous() {
        previous if previous.len() > REDIRECTS_MAX => Some(Refused::Loop),
        [first, ..] => redirect_refused(first, attempt.url(), secret),
        [] => None,
    };
    match refused {
        Some(refused) => attempt.error(refused),
        None => attempt.follow(),
    }
}

fn redirect_refused(first: &Url, to: &Url, secret: bool) -> Option<Refused> {
    let upgraded = first.scheme() == "http" && to.scheme() == "https";
    let same_port = first.port_or_known_default() == to.port_or_known_default() || upgraded;
    if first.scheme() == "https" && to.scheme() != "https" {
        Some(Refused::Down)
    } else if secret && !(first.host_str() == to.host_str() && same_port) {
        Some(Refused::Away)
    } else {
        None
    }
}

/// What the reply says it is, where that cannot be JSON. Plain text and bytes can: many services
/// give JSON under these names.
fn not_json(headers: &HeaderMap) -> Option<&'static str> {
    let text = headers.get(CONTENT_TYPE)?.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    match essence.as_str() {
        "" | "application/json" | "text/json" | "text/plain" | "application/octet-stream" => None,
        json if json.ends_with("+json") => None,
        "text/html" | "application/xhtml+xml" => Some("HTML"),
        "text/csv" => Some("CSV"),
        "text/yaml" | "text/x-yaml" | "application/yaml" => Some("YAML"),
        xml if xml.ends_with("/xml") || xml.ends_with("+xml") => Some("XML"),
        image if image.starts_with("image/") => Some("an image"),
        _ => Some("of another type"),
    }
}

/// `Retry-After` as seconds or as a date, which counts from the reply's own `Date`.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let date = |text: &str| httpdate::parse_http_date(text.trim()).ok();
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let sent = headers.get(DATE).and_then(|sent| date(sent.to_str().ok()?));
        let until = date(text)?;
        until
            .duration_since(sent.unwrap_or(now))
            .unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let at = |text: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a header"));
            if let Some(date) = date {
                headers.insert(DATE, date.parse().expect("a header"));
            }
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        for (text, date, wait) in [
            ("120", None, Some(120)),
            (" 0 ", None, Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", None, Some(60)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", None, Some(0)),
            (
                "Sun, 06 Nov 1994 08:50:37 GMT",
                Some("Sun, 06 Nov 1994 08:50:30 GMT"),
                Some(7),
            ),
            ("999999999999", None, Some(86_400)),
            ("soon", None, None),
            ("-5", None, None),
            ("1.5", None, None),
        ] {
            assert_eq!(at(text, date), wait, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn redirects_keep_secrets_at_home_and_never_lose_tls() {
        let url = |text: &str| Url::parse(text).expect("a URL");
        for (from, to, secret, refused) in [
            ("http://a/x", "http://a/y", true, ""),
            ("http://a/x", "https://a/x", true, ""),
            ("http://a/x", "http://b/x", false, ""),
            ("http://a/x", "http://b/x", true, "another host"),
            ("http://a/x", "http://a:81/x", true, "another host"),
            ("https://a/x", "https://b/x", false, ""),
            ("https://a/x", "http://a/x", false, "https to http"),
        ] {
            let text = redirect_refused(&url(from), &url(to), secret).map(|e| e.to_string());
            let text = text.unwrap_or_default();
            assert!(
                text.contains(refused) && text.is_empty() == refused.is_empty(),
                "{from} {to}"
            );
        }
    }

    #[test]
    fn content_types_that_can_be_json_are_read() {
        let says = |text: &'static str| {
            not_json(&HeaderMap::from_iter([(
                CONTENT_TYPE,
                HeaderValue::from_static(text),
            )]))
        };
        for text in [
            "application/json; charset=utf-8",
            "Application/JSON",
            "text/plain",
            "application/problem+json",
            "",
        ] {
            assert_eq!(says(text), None, "{text}");
        }
        for (text, kind) in [
            ("text/html;charset=x", "HTML"),
            ("text/csv", "CSV"),
            ("text/xml", "XML"),
            ("text/x-yaml", "YAML"),
            ("image/png", "an image"),
            ("video/mp4", "of another type"),
        ] {
            assert_eq!(says(text), Some(kind), "{text}");
        }
        assert_eq!(not_json(&HeaderMap::new()), None);
    }
}
