//! The settings of traces, under the names that OpenTelemetry gives them.

use std::fmt;
use std::sync::Arc;

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use proto::Redacted;
use proto::trace::Sampling;

use super::quoted::quoted;
use super::reader::SettingsReader;
use super::settings;

/// The path of the collector's receiver of traces, after the URL of OTEL_EXPORTER_OTLP_ENDPOINT.
const TRACES_PATH: &str = "v1/traces";

/// The attribute of the hub's name.
const SERVICE_NAME: &str = "service.name";

/// Where and how a hub sends its traces.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The URL of the collector's receiver of traces.
    pub url: Uri,
    /// OTEL_EXPORTER_OTLP_HEADERS.
    pub headers: HiddenHeaders,
    /// OTEL_EXPORTER_OTLP_CERTIFICATE: additional root certificates (PEM).
    pub roots: Option<Arc<[u8]>>,
    /// OTEL_TRACES_SAMPLER_ARG.
    pub sampling: Sampling,
    /// The attributes of all spans, from OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
    pub resource: Vec<(String, String)>,
    /// A protocol in OTEL_EXPORTER_OTLP_PROTOCOL that the hub does not speak.
    other_protocol: Option<String>,
}

/// Headers of requests to the collector. The headers may contain a token, so they are never printed.
#[derive(Clone, Default)]
pub struct HiddenHeaders(pub HeaderMap);

impl fmt::Debug for HiddenHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} headers", self.0.len())
    }
}

impl TraceSettings {
    /// Reads the settings. Returns `Some(None)` if the hub sends no traces, and `None` if a setting is invalid.
    pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<Option<Self>> {
        let url = reader.text(&settings::OTEL_EXPORTER_OTLP_ENDPOINT, || Ok(None), |text| endpoint(text).map(Some));
        let headers = reader.text(&settings::OTEL_EXPORTER_OTLP_HEADERS, || Ok(HiddenHeaders::default()), headers);
        let roots = reader.text(
            &settings::OTEL_EXPORTER_OTLP_CERTIFICATE,
            || Ok(None),
            |path| super::certificates(path).map(Some),
        );
        let sampling = reader.text(&settings::OTEL_TRACES_SAMPLER_ARG, || share("0.01"), share);
        let name = reader.text(&settings::OTEL_SERVICE_NAME, || Ok(None), |text| Ok(Some(text.to_owned())));
        let resource =
            reader.text(&settings::OTEL_RESOURCE_ATTRIBUTES, || Ok(Vec::new()), |text| pairs(text, "attribute"));
        if let Some(Some(url)) = &url {
            reader.show_as(&settings::OTEL_EXPORTER_OTLP_ENDPOINT, Redacted(&url.to_string()).to_string());
        }
        let (url, headers, roots, sampling, name, mut resource) = (url?, headers?, roots?, sampling?, name?, resource?);
        let Some(url) = url.filter(|_| !sampling.is_off()) else { return Some(None) };
        // OTEL_SERVICE_NAME takes precedence over `service.name` in OTEL_RESOURCE_ATTRIBUTES, as the specification
        // says.
        let is_named = resource.iter().any(|(key, _)| key == SERVICE_NAME);
        if let Some(name) = name.or_else(|| (!is_named).then(|| "peerpigeon".to_owned())) {
            resource.retain(|(key, _)| key != SERVICE_NAME);
            resource.push((SERVICE_NAME.to_owned(), name));
        }
        let protocol = reader.variable("OTEL_EXPORTER_OTLP_PROTOCOL");
        let other_protocol = protocol.filter(|protocol| !protocol.starts_with("http/"));
        Some(Some(Self { url, headers, roots, sampling, resource, other_protocol }))
    }

    /// Warnings for the operator at the start.
    pub(super) fn warnings(&self) -> Option<String> {
        let protocol = self.other_protocol.as_deref()?;
        Some(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL={} has no effect: traces are sent as http/protobuf, which collectors accept \
             at port 4318",
            quoted(protocol)
        ))
    }

    /// Warnings for a hub that sends no traces.
    pub(super) fn idle(is_said: impl Fn(&settings::Setting) -> bool) -> Vec<String> {
        if is_said(&settings::OTEL_EXPORTER_OTLP_ENDPOINT) {
            return Vec::new();
        }
        // Only these two settings cause a warning. Machines often have the other settings of OpenTelemetry for other
        // programs.
        let idle = [&settings::OTEL_EXPORTER_OTLP_HEADERS, &settings::OTEL_EXPORTER_OTLP_CERTIFICATE];
        let idle = idle.into_iter().filter(|setting| is_said(setting));
        idle.map(|setting| format!("{} has no effect: OTEL_EXPORTER_OTLP_ENDPOINT is unset", setting.name)).collect()
    }
}

/// The URL of a collector, with the path of its receiver of traces.
fn endpoint(text: &str) -> Result<Uri, String> {
    const ADVICE: &str = "use http://host:4318 or https://host[:port]";
    let refused = || Err(format!("{} is not the URL of a collector: {ADVICE}", Redacted(&quoted(text))));
    let Ok(uri) = text.parse::<Uri>() else { return refused() };
    let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
    let Some(authority) = uri.authority().filter(|authority| is_known && !authority.host().is_empty()) else {
        return refused();
    };
    if authority.as_str().contains('@') {
        return Err("the URL has a user or a password: set OTEL_EXPORTER_OTLP_HEADERS instead, such as \
                    Authorization=Bearer%20TOKEN"
            .to_owned());
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(format!("the URL has a query or a fragment: {ADVICE}"));
    }
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if !port.is_empty() && authority.port_u16().is_none() {
        return refused();
    }
    let path = uri.path().trim_end_matches('/');
    // A URL that already ends with this path is a frequent mistake, because some exporters use the URL unchanged.
    let path = path.strip_suffix(&format!("/{TRACES_PATH}")).unwrap_or(path);
    let scheme = uri.scheme_str().unwrap_or_default();
    format!("{scheme}://{authority}{path}/{TRACES_PATH}").parse().or_else(|_| refused())
}

/// Parses a share from 0 to 1.
fn share(text: &str) -> Result<Sampling, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(Sampling::of_share(share)),
        _ => Err(format!("{} is not a share: use a number from 0 to 1, such as 0.01 for 1 %", quoted(text))),
    }
}

/// Parses `key=value` pairs, which are separated by commas. The values are percent-encoded.
fn pairs(text: &str, noun: &str) -> Result<Vec<(String, String)>, String> {
    const MOST: usize = 64;
    let mut pairs = Vec::new();
    for (number, entry) in super::parse::entries(text) {
        let number = number + 1;
        let (key, value) = entry
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| format!("{noun} {number} is not key=value: use pairs such as a=1,b=2"))?;
        let value = decoded(value).ok_or_else(|| {
            format!("the value of {noun} {number} is not percent-encoded UTF-8: use %25 for %, and %2C for a comma")
        })?;
        pairs.push((key.to_owned(), value));
    }
    if pairs.len() > MOST {
        return Err(format!("{} pairs are too many: use at most {MOST}", pairs.len()));
    }
    Ok(pairs)
}

/// Decodes percent-encoded text. `+` stays as it is.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Parses the headers of requests to the collector. Errors do not show the values of the headers.
fn headers(text: &str) -> Result<HiddenHeaders, String> {
    let mut headers = HeaderMap::new();
    for (number, (key, value)) in (1..).zip(pairs(text, "header")?) {
        let refused = || format!("header {number} is not a header of HTTP: use name=value, with visible characters");
        let name = HeaderName::try_from(key).map_err(|_| refused())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| refused())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(HiddenHeaders(headers))
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");

    fn traces(pairs: &[(&str, &str)]) -> Option<TraceSettings> {
        Config::from_pairs(pairs).unwrap().traces
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        Config::from_pairs(pairs).unwrap_err()[0].to_string()
    }

    #[test]
    fn a_hub_sends_traces_only_to_a_collector_that_is_named() {
        assert!(traces(&[]).is_none());
        assert!(traces(&[("OTEL_TRACES_SAMPLER_ARG", "1")]).is_none());
        assert!(traces(&[ENDPOINT, ("OTEL_TRACES_SAMPLER_ARG", "0")]).is_none());
        let settings = traces(&[ENDPOINT]).unwrap();
        assert_eq!(settings.sampling, Sampling::of_share(0.01));
        assert_eq!(settings.resource, [("service.name".to_owned(), "peerpigeon".to_owned())]);
    }

    #[test]
    fn the_path_of_traces_is_added_to_the_endpoint() {
        for (endpoint, url) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("https://c/", "https://c/v1/traces"),
            ("https://c/otlp", "https://c/otlp/v1/traces"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
        ] {
            assert_eq!(traces(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]).unwrap().url, url);
        }
    }

    #[test]
    fn a_wrong_endpoint_is_refused_with_its_name() {
        for wrong in
            ["collector:4318", "grpc://c:4317", "http://", "http://c:x", "http://c:99999", "http://c?a=b", "http://c#a"]
        {
            let refused = refusal(&[("OTEL_EXPORTER_OTLP_ENDPOINT", wrong)]);
            assert!(refused.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT"), "{refused}");
            assert!(refused.contains("use http"), "{refused}");
        }
        let refused = refusal(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@c:4318")]);
        assert!(refused.contains("OTEL_EXPORTER_OTLP_HEADERS") && !refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn a_wrong_share_is_refused() {
        for wrong in ["2", "-0.1", "1%", "NaN", "all"] {
            let refused = refusal(&[ENDPOINT, ("OTEL_TRACES_SAMPLER_ARG", wrong)]);
            assert!(refused.starts_with("OTEL_TRACES_SAMPLER_ARG") && refused.contains("0.01"), "{refused}");
        }
    }

    #[test]
    fn headers_are_decoded_and_never_shown() {
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20hunter2, X-Scope-OrgID=a%2Cb");
        let config = Config::from_pairs(&[ENDPOINT, headers]).unwrap();
        let shown = format!("{config:?}\n{}", config.describe());
        assert!(!shown.contains("hunter2"), "{shown}");
        let headers = config.traces.unwrap().headers.0;
        assert_eq!(
            (&headers["authorization"], &headers["x-scope-orgid"]),
            (&"Bearer hunter2".parse().unwrap(), &"a,b".parse().unwrap())
        );
        for wrong in ["hunter2", "=hunter2", "a=%hunter2", "a=hunter2%0A", "a b=hunter2", "a=%+1hunter2"] {
            let refused = refusal(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", wrong)]);
            assert!(refused.starts_with("OTEL_EXPORTER_OTLP_HEADERS") && !refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn the_service_has_one_name() {
        let name = |pairs: &[(&str, &str)]| {
            let resource = traces(&[&[ENDPOINT], pairs].concat()).unwrap().resource;
            resource.into_iter().filter(|(key, _)| key == SERVICE_NAME).map(|(_, name)| name).collect::<Vec<_>>()
        };
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment.name=test");
        assert_eq!(name(&[attributes]), ["a"]);
        assert_eq!(name(&[attributes, ("OTEL_SERVICE_NAME", "b")]), ["b"]);
    }

    #[test]
    fn settings_without_effect_are_reported() {
        let warned = |pairs: &[(&str, &str)]| Config::from_pairs(pairs).unwrap().warnings().join("\n");
        assert!(warned(&[("OTEL_EXPORTER_OTLP_HEADERS", "a=b")]).contains("OTEL_EXPORTER_OTLP_ENDPOINT is unset"));
        assert!(!warned(&[("OTEL_SERVICE_NAME", "b")]).contains("OTEL"));
        let protocol = |protocol| warned(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
        assert!(protocol("grpc").contains("http/protobuf"));
        assert!(!protocol("http/protobuf").contains("OTEL"));
    }
}
