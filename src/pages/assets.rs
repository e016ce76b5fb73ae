//! Files that are served as they are: the browser client, and the playground.
//!
//! They are in the program, plain and compressed, so that an answer costs a shard the copy of a few kilobytes.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::{accepted, media_type, quality};

/// A file, once for each form in which it is sent.
#[derive(Debug)]
pub(super) struct Asset {
    /// Its path.
    path: &'static str,
    /// A path that changes with the file, so that it can be kept for ever.
    named: &'static str,
    etag: &'static str,
    kind: Kind,
    plain: &'static [u8],
    gzip: &'static [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Image,
    Page,
    Script,
    Style,
    Text,
}

impl Kind {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Image => "image/svg+xml",
            Self::Page => "text/html; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

static ASSETS: &[Asset] = &include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The page for people at `/`.
const PLAYGROUND: &str = "/playground.html";

/// What the playground may load and reach: this hub. Scripts and styles come from files only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How long a file may be used without asking whether there is a newer one.
const FRESH: &str = "public, max-age=300";
/// For a path that changes with the file.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// The playground is asked for anew each time, and seldom sent.
const ASK: &str = "no-cache";

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

impl Asset {
    /// The file of this path.
    pub(super) fn at(path: &str, playground: bool) -> Option<&'static Self> {
        let found = ASSETS.iter().find(|asset| asset.path == path || asset.named == path)?;
        (playground || !found.is_of_the_playground()).then_some(found).filter(|found| found.path != PLAYGROUND)
    }

    /// The page for people, if it is one who asks: a browser names `text/html`, and programs do not.
    pub(super) fn page(request: &Parts) -> Option<&'static Self> {
        let liking = |kind: &str| {
            let named = accepted(request, ACCEPT).filter(|range| media_type(range) == kind);
            named.map(quality).fold(0.0, f32::max)
        };
        let html = liking("text/html");
        let wanted = html > 0.0 && html >= liking("application/json");
        wanted.then(|| ASSETS.iter().find(|asset| asset.path == PLAYGROUND)).flatten()
    }

    fn is_of_the_playground(&self) -> bool {
        self.path.starts_with("/playground")
    }

    /// The answer: the file, or that the one which the browser has is still right.
    pub(super) fn answer(&'static self, request: &Parts) -> Response<Full<Bytes>> {
        let known = accepted(request, IF_NONE_MATCH).any(|tag| matches!(tag.trim(), "*") || self.is(tag.trim()));
        let gzip = accepted(request, ACCEPT_ENCODING)
            .any(|coding| matches!(media_type(coding).as_str(), "gzip" | "*") && quality(coding) > 0.0);
        let body = match (known, gzip) {
            (true, _) => Bytes::new(),
            (false, true) => Bytes::from_static(self.gzip),
            (false, false) => Bytes::from_static(self.plain),
        };
        let mut response = Response::new(Full::new(body));
        let caching = match (self.is_of_the_playground(), request.uri.path() == self.named) {
            (_, true) => FOR_EVER,
            (true, false) => ASK,
            (false, false) => FRESH,
        };
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &'static str| headers.append(name, HeaderValue::from_static(value));
        set(CONTENT_TYPE, self.kind.media_type());
        set(CACHE_CONTROL, caching);
        set(ETAG, self.etag);
        set(VARY, "Accept-Encoding");
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        if self.is_of_the_playground() {
            set(CONTENT_SECURITY_POLICY, POLICY);
            set(REFERRER_POLICY, "no-referrer");
        } else {
            // Also for pages that are isolated from others (Cross-Origin-Embedder-Policy).
            set(CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin");
        }
        if self.path == PLAYGROUND {
            set(VARY, "Accept");
        }
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else if gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    /// Whether a tag is this file's. Tags are compared without what says that they are weak (RFC 9110, 13.1.2).
    fn is(&self, tag: &str) -> bool {
        tag.trim_start_matches("W/") == self.etag.trim_start_matches("W/")
    }
}
