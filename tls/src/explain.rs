//! Errors of TLS as sentences for people: what is wrong, then what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// The end of a connection that presents a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presenter {
    /// The server. The client verifies the certificate.
    Server,
    /// The client. The server verifies the certificate.
    Client,
}

/// An error of rustls, with a text that says what to do if an operator can remove the cause.
#[derive(Clone, PartialEq, Debug)]
pub struct Explained(Error);

impl Explained {
    /// The error of rustls in `error`, if `error` has one.
    pub fn find(error: &io::Error) -> Option<&Error> {
        let inner = error.get_ref()?;
        inner.downcast_ref::<Self>().map(|explained| &explained.0).or_else(|| inner.downcast_ref())
    }

    /// Replaces the text of an error that a client's connection has returned. Other errors stay as they are.
    pub fn io(error: io::Error) -> io::Error {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned() {
            Some(tls) => io::Error::new(error.kind(), Self(tls)),
            None => error,
        }
    }

    /// The sentence for the first error of rustls among an error and its sources, as seen by a client.
    pub fn among(error: &(dyn StdError + 'static)) -> Option<String> {
        let mut next = Some(error);
        while let Some(error) = next {
            // Some libraries put their errors into an `Arc`.
            let shared = error.downcast_ref::<Arc<dyn StdError + Send + Sync>>();
            let error = shared.map_or(error, |shared| &**shared);
            let tls = error.downcast_ref::<Error>().or_else(|| Self::find(error.downcast_ref::<io::Error>()?));
            if let Some(tls) = tls {
                return explain(tls);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match explain(&self.0) {
            Some(sentence) => f.write_str(&sentence),
            None => write!(f, "{}", self.0),
        }
    }
}

impl StdError for Explained {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// A sentence for an error of a client's connection. `None` if the text of rustls is as good.
fn explain(error: &Error) -> Option<String> {
    #[allow(clippy::wildcard_enum_match_arm, reason = "non-exhaustive")]
    match error {
        Error::InvalidCertificate(error) => {
            Some(format!("the certificate of the server {}", explain_certificate(error, Presenter::Server)))
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("the port does not speak TLS: use ws:// or http://, or another port".to_owned())
        }
        Error::AlertReceived(alert) => explain_alert(*alert).map(str::to_owned),
        _ => None,
    }
}

/// A sentence for an alert about the client's certificate.
fn explain_alert(alert: AlertDescription) -> Option<&'static str> {
    #[allow(clippy::wildcard_enum_match_arm, reason = "non-exhaustive")]
    match alert {
        AlertDescription::CertificateExpired => Some(
            "the server refuses the client certificate, which has expired or is not valid yet: renew MESH_CERT, or set \
             the clocks of both machines",
        ),
        AlertDescription::UnknownCA => Some(
            "the server refuses the client certificate, because its MESH_CLIENT_CA has no CA of it: add the CA of \
             MESH_CERT there",
        ),
        AlertDescription::UnsupportedCertificate => Some(
            "the server refuses the client certificate, which is not for clients: issue MESH_CERT with the extended \
             key usage clientAuth",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => Some(
            "the server refuses the client certificate (MESH_CERT): the event tls_refused in the server's log \
             has the reason",
        ),
        AlertDescription::CertificateRequired => Some("the server requires a client certificate: set MESH_CERT"),
        _ => None,
    }
}

/// Why a certificate is invalid, and what to do: the end of a sentence whose subject is the certificate.
pub fn explain_certificate(error: &CertificateError, presenter: Presenter) -> String {
    let is_server = presenter == Presenter::Server;
    // rustls adds errors in new versions.
    #[allow(clippy::wildcard_enum_match_arm, reason = "non-exhaustive")]
    let sentence = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired: renew it",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet: set the clocks of both machines"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for other names: use a name of the certificate in the URL, or issue the certificate for the \
             name in the URL"
        }
        CertificateError::UnknownIssuer if is_server => {
            "is not signed by a known authority: let the server send all intermediate certificates, or add the \
             authority with MESH_CA (hubs) or --ca (tools)"
        }
        CertificateError::UnknownIssuer => {
            "is not signed by a CA of MESH_CLIENT_CA: add its CA there, or issue the certificate with one of these CAs"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } if is_server => {
            "is not for servers: issue it with the extended key usage serverAuth"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for clients: issue it with the extended key usage clientAuth"
        }
        CertificateError::BadSignature => {
            "or the handshake with it has a wrong signature: use the key that belongs to the certificate, and the CA \
             that signed it"
        }
        CertificateError::BadEncoding => "is malformed: issue it again",
        CertificateError::Revoked => "has been revoked: issue a new one",
        CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(error) => return explain_webpki(error),
            None => return format!("is invalid ({other}): issue it again"),
        },
        other => return format!("is invalid ({other}): issue it again"),
    };
    sentence.to_owned()
}

/// Like [`explain_certificate`], for errors of webpki that rustls does not translate.
fn explain_webpki(error: &webpki::Error) -> String {
    #[allow(clippy::wildcard_enum_match_arm, reason = "non-exhaustive")]
    let sentence = match error {
        webpki::Error::CaUsedAsEndEntity => {
            "is a CA certificate, as `openssl req -x509` makes: issue it with basicConstraints=critical,CA:FALSE"
        }
        webpki::Error::EndEntityUsedAsCa => {
            "is signed by a certificate that is not a CA: issue it with a CA certificate (CA:TRUE)"
        }
        webpki::Error::NameConstraintViolation => {
            "has names that its CA must not sign: issue it for names that the CA allows"
        }
        webpki::Error::PathLenConstraintViolated => {
            "has more intermediate certificates than its CA allows: issue it with another CA"
        }
        webpki::Error::UnsupportedCertVersion => "has version 1: issue it with version 3 (X.509v3)",
        other => return format!("is invalid ({other}): issue it again"),
    };
    sentence.to_owned()
}

#[cfg(test)]
mod tests {
    use rustls::OtherError;

    use super::*;

    fn other(error: webpki::Error) -> CertificateError {
        CertificateError::Other(OtherError(Arc::new(error)))
    }

    #[test]
    fn errors_about_certificates_say_what_to_do() {
        for (error, expected) in [
            (CertificateError::Expired, "has expired: renew"),
            (CertificateError::UnknownIssuer, "MESH_CA (hubs) or --ca (tools)"),
            (CertificateError::InvalidPurpose, "serverAuth"),
            (other(webpki::Error::CaUsedAsEndEntity), "is a CA certificate, as `openssl req -x509` makes: issue"),
            (other(webpki::Error::EndEntityUsedAsCa), "is not a CA: issue"),
            (other(webpki::Error::MaximumPathDepthExceeded), "is invalid (MaximumPathDepthExceeded): issue it again"),
        ] {
            let text = Explained::io(io::Error::other(Error::InvalidCertificate(error))).to_string();
            assert!(text.starts_with("the certificate of the server ") && text.contains(expected), "{text}");
            assert!(!text.contains("OtherError") && text.len() < 240, "{text}");
        }
        assert!(explain_certificate(&CertificateError::UnknownIssuer, Presenter::Client).contains("MESH_CLIENT_CA"));
        assert!(explain_certificate(&CertificateError::InvalidPurpose, Presenter::Client).contains("clientAuth"));
    }

    #[test]
    fn the_error_of_rustls_is_found_at_any_depth() {
        let error = || Error::AlertReceived(AlertDescription::UnknownCA);
        let deep = io::Error::other(Explained::io(io::Error::other(error())));
        assert!(Explained::among(&deep).is_some_and(|text| text.contains("MESH_CLIENT_CA")));
        let shared: Arc<dyn StdError + Send + Sync> = Arc::new(io::Error::other(error()));
        assert!(Explained::among(&shared).is_some());
        assert!(Explained::among(&io::Error::other("no TLS")).is_none());
        assert_eq!(Explained::find(&Explained::io(io::Error::other(error()))), Some(&error()));
        // Errors without a sentence keep their text.
        let other = Error::AlertReceived(AlertDescription::InternalError);
        assert_eq!(Explained::io(io::Error::other(other.clone())).to_string(), other.to_string());
        assert_eq!(Explained::io(io::ErrorKind::TimedOut.into()).kind(), io::ErrorKind::TimedOut);
    }
}
