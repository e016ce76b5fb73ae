//! The static files of the browser client, the playground and the live view.
//!
//! The program contains each file plain and compressed, so a shard reads and compresses nothing to answer a request.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::{accepted, media_type, quality};

/// A static file in all forms in which it is sent.
#[derive(Debug)]
pub(super) struct Asset {
    /// The path of the file.
    path: &'static str,
    /// A path that contains a hash of the content, so that caches may keep the file forever.
    named: &'static str,
    etag: &'static str,
    kind: FileKind,
    plain: &'static [u8],
    gzip: &'static [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileKind {
    Image,
    Page,
    Script,
    Style,
    Text,
}

impl FileKind {
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

/// The page of the live view.
const DASHBOARD: &str = "/dashboard.html";

/// The page that browsers get at `/`.
const PLAYGROUND: &str = "/playground.html";

/// Content-Security-Policy of the playground and the live view. The two pages may load from and connect to this hub
/// only. Scripts and styles must come from files.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `Cache-Control` of a file. A browser may use its copy for five minutes without a request to the hub.
const FRESH: &str = "public, max-age=300";
/// `Cache-Control` for a path with a hash of the content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// `Cache-Control` of the playground and the live view. Browsers must check each time whether their copy is current.
const ASK: &str = "no-cache";

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

impl Asset {
    /// The file of the browser client or, with `playground`, of the playground with this path. `None` for the page of
    /// the playground, which [`Self::page`] returns.
    pub(super) fn at(path: &str, playground: bool) -> Option<&'static Self> {
        let found = ASSETS.iter().find(|asset| asset.path == path || asset.named == path)?;
        let is_there = !found.is_of_the_dashboard() && (playground || !found.is_of_the_playground());
        is_there.then_some(found).filter(|found| found.path != PLAYGROUND)
    }

    /// The file of the live view with this path. `None` for the page of the live view, which [`Self::dashboard`]
    /// returns.
    pub(super) fn of_the_dashboard(path: &str) -> Option<&'static Self> {
        let mut own = ASSETS.iter().filter(|asset| asset.is_of_the_dashboard() && asset.path != DASHBOARD);
        own.find(|asset| asset.path == path || asset.named == path)
    }

    /// The page of the live view.
    pub(super) fn dashboard() -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.path == DASHBOARD)
    }

    /// The page for people, if a browser asks. Browsers name `text/html` in `Accept`, and programs do not.
    pub(super) fn page(request: &Parts) -> Option<&'static Self> {
        let liking = |kind: &str| {
            let named = accepted(request, ACCEPT).filter(|range| media_type(range) == kind);
            named.map(quality).fold(0.0, f32::max)
        };
        let html = liking("text/html");
        let wanted = html > 0.0 && html >= liking("application/json");
        wanted.then(|| ASSETS.iter().find(|asset| asset.path == PLAYGROUND)).flatten()
    }

    fn is_of_the_dashboard(&self) -> bool {
        self.path.starts_with("/dashboard")
    }

    fn is_of_the_playground(&self) -> bool {
        self.path.starts_with("/playground")
    }

    /// Answers with the file, or with 304 if the browser's copy is current.
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
        let is_page = self.is_of_the_playground() || self.is_of_the_dashboard();
        let caching = match (is_page, request.uri.path() == self.named) {
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
        if is_page {
            set(CONTENT_SECURITY_POLICY, POLICY);
            set(REFERRER_POLICY, "no-referrer");
        } else {
            // Isolated pages (Cross-Origin-Embedder-Policy) may load the file, too.
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

    /// Whether an entity tag is that of this file. The comparison is weak (RFC 9110, 13.1.2), so it ignores the prefix
    /// `W/`.
    fn is(&self, tag: &str) -> bool {
        tag.trim_start_matches("W/") == self.etag.trim_start_matches("W/")
    }
}
