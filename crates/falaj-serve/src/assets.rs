//! The page's files, in the binary.
//!
//! Always: each is sent with an `ETag` and asked for again on every load, so a new falaj is never
//! shown with the script of an old one. Gzip where the browser takes it, plain where it does not.

use std::io::{Read, Write};
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// The template of the page; see [`crate::page`].
pub(crate) const INDEX: &str = include_str!("../../../web/index.html");

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file as it lies in the repository.
enum Kept {
    /// Text.
    Plain(&'static str),
    /// Already compressed there: see `web/vendor/README.md`.
    Gzip(&'static [u8]),
}

struct File {
    name: &'static str,
    media: &'static str,
    kept: Kept,
}

macro_rules! module {
    ($name:literal) => {
        File {
            name: $name,
            media: SCRIPT,
            kept: Kept::Plain(include_str!(concat!("../../../web/", $name))),
        }
    };
}

static FILES: &[File] = &[
    File {
        name: "style.css",
        media: "text/css; charset=utf-8",
        kept: Kept::Plain(include_str!("../../../web/style.css")),
    },
    File {
        name: "icon.svg",
        media: "image/svg+xml",
        kept: Kept::Plain(include_str!("../../../web/icon.svg")),
    },
    module!("theme.js"),
    module!("main.js"),
    module!("model.js"),
    module!("stream.js"),
    module!("charts.js"),
    module!("plot.js"),
    module!("panels.js"),
    module!("text.js"),
    File {
        name: "plotly-basic.min.js",
        media: SCRIPT,
        kept: Kept::Gzip(include_bytes!("../../../web/vendor/plotly-basic.min.js.gz")),
    },
    File {
        name: "plotly-LICENSE.txt",
        media: "text/plain; charset=utf-8",
        kept: Kept::Plain(include_str!("../../../web/vendor/plotly-LICENSE.txt")),
    },
];

struct Asset {
    name: &'static str,
    media: &'static str,
    etag: HeaderValue,
    gzip: Bytes,
    file: &'static File,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| FILES.iter().map(Asset::of).collect());

impl Asset {
    fn of(file: &'static File) -> Self {
        let gzip = match file.kept {
            Kept::Gzip(bytes) => Bytes::from_static(bytes),
            Kept::Plain(text) => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder
                    .write_all(text.as_bytes())
                    .expect("writing to memory does not fail");
                encoder
                    .finish()
                    .expect("writing to memory does not fail")
                    .into()
            }
        };
        let etag = format!("\"{:016x}\"", fnv(&gzip));
        Self {
            name: file.name,
            media: file.media,
            etag: HeaderValue::from_str(&etag).expect("an ETag of hexadecimal digits is ASCII"),
            gzip,
            file,
        }
    }

    fn plain(&self) -> Bytes {
        match self.file.kept {
            Kept::Plain(text) => Bytes::from_static(text.as_bytes()),
            Kept::Gzip(bytes) => {
                let mut plain = Vec::new();
                GzDecoder::new(bytes)
                    .read_to_end(&mut plain)
                    .expect("a test unpacks every embedded file");
                plain.into()
            }
        }
    }
}

/// FNV-1a: an `ETag` tells versions apart, it keeps nobody out.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The file of that name, if there is one.
pub(crate) fn answer(name: &str, request: &HeaderMap) -> Option<Response<Body>> {
    let asset = ASSETS.iter().find(|asset| asset.name == name)?;
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::ETAG, asset.etag.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if has(request, header::IF_NONE_MATCH, |tag| {
        tag == asset.etag || tag == "*"
    }) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Some(response);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.media));
    if has(request, header::ACCEPT_ENCODING, takes_gzip) {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        *response.body_mut() = asset.gzip.clone().into();
    } else {
        *response.body_mut() = asset.plain().into();
    }
    Some(response)
}

fn has(headers: &HeaderMap, name: header::HeaderName, wanted: impl Fn(&str) -> bool) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| wanted(item.trim().trim_start_matches("W/")))
}

/// `gzip`, `gzip;q=0.5`, but not `gzip;q=0`.
fn takes_gzip(item: &str) -> bool {
    let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
    let quality = parameters
        .trim()
        .strip_prefix("q=")
        .map_or(Ok(1.0), str::parse::<f32>);
    coding.trim().eq_ignore_ascii_case("gzip") && quality.is_ok_and(|q| q > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_unpacks_to_something() {
        for asset in ASSETS.iter() {
            assert!(!asset.plain().is_empty(), "{}", asset.name);
            assert_eq!(&asset.gzip[..2], [0x1f, 0x8b], "{}", asset.name);
        }
    }

    #[test]
    fn all_assets_together_stay_below_the_page_weight_bar() {
        let sum: usize = ASSETS.iter().map(|asset| asset.gzip.len()).sum();
        assert!(sum < 450_000, "{sum} bytes compressed");
    }

    #[test]
    fn gzip_is_sent_only_to_those_who_take_it() {
        for (item, takes) in [
            ("gzip", true),
            ("GZIP", true),
            ("gzip;q=0.5", true),
            ("gzip; q=1.0", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0", false),
            ("gzip;q=x", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(item), takes, "{item}");
        }
    }

    #[test]
    fn no_file_of_ours_names_another_host() {
        for file in FILES {
            if let Kept::Plain(text) = file.kept
                && file.name != "plotly-LICENSE.txt"
            {
                let text = text.replace("http://www.w3.org/2000/svg", "");
                assert!(
                    !text.contains("http:") && !text.contains("https:"),
                    "{}",
                    file.name
                );
                assert!(
                    !text.contains("url(//") && !text.contains("\"//"),
                    "{}",
                    file.name
                );
            }
        }
    }
}
