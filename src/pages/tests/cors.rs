//! Requests of pages of other origins.

use super::*;

#[test]
fn every_answer_has_cors_headers() {
    for (settings, origin, vary) in
        [(&[][..], "*", ""), (&[("CORS_ORIGIN", "https://a.example")], "https://a.example", "Origin")]
    {
        let hub = hub(settings, &[]);
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::DELETE] {
            // The live view is only for its own origin.
            let paths = PATHS.map(|(path, _)| path).into_iter().filter(|path| *path != "/dashboard");
            for path in paths.chain(["/nowhere"]) {
                let answer = hub.ask(method.clone(), path, &[("origin", "https://a.example")]);
                assert_eq!(answer.header("access-control-allow-origin"), origin, "{method} {path}");
                assert_eq!(answer.header("vary"), vary, "{method} {path}");
                assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
                assert!(answer.status == 204 || !answer.header("content-type").is_empty(), "{method} {path}");
            }
        }
    }
}

#[test]
fn a_preflight_is_answered() {
    let asked = [("origin", "https://a"), ("access-control-request-method", "GET")];
    let answer = hub(&[], &[]).ask(Method::OPTIONS, "/metrics", &asked);
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");
    assert!(answer.header("access-control-allow-headers").contains("Authorization"));
    assert_eq!(answer.header("access-control-max-age"), "86400");
    assert!(!answer.headers.contains_key("content-length"));
    assert!(!answer.headers.contains_key("access-control-allow-private-network"));
}

#[test]
fn a_preflight_allows_the_requested_headers_for_allowed_origins() {
    let asked = [("origin", "https://a"), ("access-control-request-headers", "authorization,traceparent")];
    for (env, allowed) in
        [(&[][..], true), (&[("CORS_ORIGIN", "https://a")], true), (&[("CORS_ORIGIN", "https://b")], false)]
    {
        let answer = hub(env, &[]).ask(Method::OPTIONS, "/health", &asked);
        assert_eq!(answer.header("access-control-allow-headers") == "authorization,traceparent", allowed, "{env:?}");
    }
}

#[test]
fn private_network_access_requires_its_setting() {
    let asked = [("origin", "https://a"), ("access-control-request-private-network", "true")];
    let setting = ("CORS_PRIVATE_NETWORK", "true");
    for (env, allowed) in [
        (&[][..], false),
        (&[setting], true),
        (&[setting, ("CORS_ORIGIN", "https://a")], true),
        (&[setting, ("CORS_ORIGIN", "https://b")], false),
    ] {
        let answer = hub(env, &[]).ask(Method::OPTIONS, "/health", &asked);
        assert_eq!(answer.header("access-control-allow-private-network") == "true", allowed, "{env:?}");
    }
    let unasked = hub(&[setting], &[]).ask(Method::OPTIONS, "/health", &asked[..1]);
    assert!(!unasked.headers.contains_key("access-control-allow-private-network"));
}
