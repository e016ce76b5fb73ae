//! The operators' page for browsers. The page has a form for the token and, after the login, forms for orders. It has
//! no scripts.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem;\
color-scheme:light dark}form{margin:0 0 1.5rem}label{display:block;margin:.4rem 0}\
input{font:inherit;width:100%;box-sizing:border-box;padding:.3rem}button{font:inherit;padding:.3rem 1rem}\
.wrong{color:#b3261e}";

/// Content-Security-Policy of these pages. The browser loads nothing for these pages, and sends their forms to this hub
/// only.
pub static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let style = BASE64.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).ok()
});

fn page(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>PeerPigeon hub</title><style>{STYLE}</style><main>{body}</main></html>\n"
    )
}

/// The form for the token. After a login, the browser goes to the path `next`.
pub fn login(next: &str, wrong: Option<&str>) -> String {
    let wrong = wrong.map(|wrong| format!("<p class=\"wrong\" role=\"alert\">{}</p>", escape(wrong)));
    page(&format!(
        "<h1>PeerPigeon hub</h1>{}<form method=\"post\" action=\"/admin\"><input type=\"hidden\" name=\"next\" \
         value=\"{}\"><label>ADMIN_TOKEN <input type=\"password\" name=\"token\" required autofocus \
         autocomplete=\"current-password\"></label><button>Log in</button></form>",
        wrong.unwrap_or_default(),
        escape(next)
    ))
}

/// The page with the forms for orders.
pub fn office() -> String {
    let pages = ["/dashboard", "/metrics", "/stats", "/hubs", "/hubstats", "/health", "/readyz"];
    let links = pages.iter().fold(String::new(), |mut links, path| {
        _ = write!(links, "<a href=\"{path}\">{path}</a> ");
        links
    });
    let secs = "<label>Keep out for (seconds) <input name=\"secs\" inputmode=\"numeric\"></label>";
    let peer = "<label>Peer id <input name=\"peer\" required minlength=\"40\" maxlength=\"40\"></label>\
                <label>Network (empty: the whole hub) <input name=\"network\"></label>";
    let network = "<label>Network <input name=\"network\" required></label>";
    let over = "<label>Over (seconds; empty: DRAIN_SECS) <input name=\"secs\" inputmode=\"numeric\"></label>";
    let forms = [
        ("kick", "Kick a peer", format!("{peer}{secs}")),
        ("close-network", "Close a network", format!("{network}{secs}")),
        ("drain", "Drain", over.to_owned()),
        ("undrain", "Undrain", String::new()),
        ("logout", "Log out", String::new()),
    ];
    let forms = forms.iter().fold(String::new(), |mut html, (name, title, fields)| {
        _ = write!(html, "<form method=\"post\" action=\"/admin/{name}\">{fields}<button>{title}</button></form>");
        html
    });
    page(&format!("<h1>PeerPigeon hub</h1><p>{links}</p>{forms}"))
}

/// The page that shows the outcome of an order.
pub fn result(sentence: &str) -> String {
    page(&format!(
        "<h1>PeerPigeon hub</h1><p role=\"status\">{}</p><p><a href=\"/admin\">Back</a></p>",
        escape(sentence)
    ))
}

/// Escapes text for HTML, between tags or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_in_html() {
        let html = login("\"><script>alert(1)</script>", Some("<b>'&"));
        assert!(html.contains("&quot;&gt;&lt;script&gt;") && html.contains("&lt;b&gt;&#39;&amp;"), "{html}");
        assert!(!html.contains("<script") && !result("<script>").contains("<script"));
    }

    #[test]
    fn the_policy_allows_the_style_and_no_script() {
        let policy = POLICY.as_ref().unwrap().to_str().unwrap();
        let style = BASE64.encode(Sha256::digest(STYLE));
        assert!(policy.contains(&style) && policy.contains("default-src 'none'") && !policy.contains("script-src"));
        assert!(!policy.contains("unsafe") && !office().contains("<script") && !office().contains(" on"));
    }
}
