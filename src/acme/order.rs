//! The requests and answers of a certificate order at the ACME authority.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use instant_acme::{
    Account, AccountCredentials, AuthorizationState, AuthorizationStatus, BodyWrapper, BytesResponse,
    CertificateIdentifier, ChallengeType, Error, ExternalAccountKey, HttpClient, Identifier, NewAccount, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use mesh::{ConnectError, Tls};
use proto::limits::{ACME_ORDER_TIMEOUT, ACME_REQUEST_TIMEOUT, MAX_ACME_ANSWER_BYTES};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use tls::{Acceptor, CertificateId, OwnKey};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::config::AcmeSettings;
use crate::https;

/// A certificate chain and its key, in PEM format.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Why an order failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The authority could not verify the name. Contains the authority's reason.
    Unverified(String),
    /// The authority refused a request, or could not be reached.
    Authority(Error),
    /// The order took too long.
    Late,
    /// The directory could not be read or written.
    Store(io::Error),
    /// A key or a certificate request could not be created.
    Key(rcgen::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unverified(reason) => write!(f, "the authority cannot verify the name: {reason}"),
            Self::Authority(Error::Other(error)) => write!(f, "the authority cannot be reached: {error}"),
            Self::Authority(Error::Timeout(_)) | Self::Late => f.write_str("the authority took too long"),
            Self::Authority(error) => write!(f, "the authority refuses: {error}"),
            Self::Store(error) => write!(f, "the directory of certificates cannot be used: {error}"),
            Self::Key(error) => write!(f, "a key cannot be made: {error}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Authority(error)
    }
}

impl From<rcgen::Error> for Failure {
    fn from(error: rcgen::Error) -> Self {
        Self::Key(error)
    }
}

impl Failure {
    /// Whether the order failed because the authority does not know the account.
    pub(super) fn is_of_the_account(&self) -> bool {
        let Self::Authority(Error::Api(problem)) = self else { return false };
        problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist")
    }

    /// A sentence that says how an operator can remove the cause.
    pub(super) fn remedy(&self, name: &str, settings: &AcmeSettings) -> String {
        match self {
            Self::Unverified(_) => format!(
                "check that the DNS resolves {name} to this hub, and that port 443 there leads to PORT of \
                 this hub, \
                 without a proxy that ends TLS"
            ),
            Self::Authority(Error::Api(problem))
                if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:externalAccountRequired") =>
            {
                format!("set TLS_ACME_EAB_KID and TLS_ACME_EAB_HMAC to the values of your account at {}", settings.url)
            }
            Self::Authority(Error::Other(_)) => {
                format!("check that this machine can reach {}; if its CA is private, set TLS_ACME_CA", settings.url)
            }
            Self::Authority(_) | Self::Late => format!("the previous certificate of {name}, if any, stays in use"),
            Self::Store(_) => "check the free space and the permissions of TLS_ACME_DIR".to_owned(),
            Self::Key(_) => "check that the system provides random bytes".to_owned(),
        }
    }
}

/// Opens the stored account, or creates one. The caller stores the key of a new account.
pub(super) async fn account(
    settings: &AcmeSettings,
    http: Http,
    stored: Option<AccountCredentials>,
) -> Result<(Account, Option<AccountCredentials>), Failure> {
    let builder = Account::builder_with_http(Box::new(http));
    if let Some(stored) = stored {
        return Ok((builder.from_credentials(stored).await?, None));
    }
    let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let binding = settings.binding.as_ref().map(|binding| ExternalAccountKey::new(binding.id.clone(), &binding.key));
    let (account, credentials) = builder.create(&new, settings.url.to_string(), binding.as_ref()).await?;
    Ok((account, Some(credentials)))
}

/// Returns the window in which the authority wants this certificate renewed, and the pause before the hub asks again
/// (RFC 9773).
pub(super) async fn advice(account: &Account, id: &CertificateId) -> Result<([SystemTime; 2], Duration), Failure> {
    let (info, ask_after) = account.renewal_info(&identifier(id)).await?;
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let window = info.suggested_window;
    Ok(([time(window.start.unix_timestamp()), time(window.end.unix_timestamp())], ask_after))
}

fn identifier(id: &CertificateId) -> CertificateIdentifier<'static> {
    CertificateIdentifier::new(id.authority_key.as_slice().into(), id.serial.as_slice().into()).into_owned()
}

/// Orders a certificate for this name. Afterwards, the caller removes the answer to the challenge from `acceptor`.
pub(super) async fn order(
    account: &Account,
    acceptor: &Acceptor,
    name: &str,
    replaced: Option<&CertificateId>,
) -> Result<Issued, Failure> {
    let names = [Identifier::Dns(name.to_owned())];
    let mut order = begin(account, &names, replaced).await?;
    prove(&mut order, acceptor, name).await?;
    // The timeout of `patience` never elapses, because the caller's deadline is shorter.
    let patience = RetryPolicy::new().timeout(2 * ACME_ORDER_TIMEOUT).backoff(1.5);
    match order.poll_ready(&patience).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => {
            let reason = reason(&mut order).await.unwrap_or_else(|| "no reason was given".to_owned());
            return Err(Failure::Unverified(reason));
        }
        // The order has failed, or the authority has refused to return the order's state. A failed challenge shows that
        // the order has failed.
        Err(Error::Api(problem)) => {
            let reason = reason(&mut order).await;
            return Err(reason.map_or_else(|| Error::Api(problem).into(), Failure::Unverified));
        }
        Err(error) => return Err(error.into()),
    }
    let key = KeyPair::generate()?;
    let mut request = CertificateParams::new([name.to_owned()])?;
    request.distinguished_name = DistinguishedName::new();
    order.finalize_csr(request.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&patience).await?;
    Ok(Issued { chain, key: key.serialize_pem() })
}

/// Begins an order for these names. The order names the certificate `replaced`, if the authority accepts that.
async fn begin(account: &Account, names: &[Identifier], replaced: Option<&CertificateId>) -> Result<Order, Failure> {
    if let Some(id) = replaced {
        match account.new_order(&NewOrder::new(names).replaces(identifier(id))).await {
            Ok(order) => return Ok(order),
            // The authority may not know the field `replaces`. The authority also refuses the field if an earlier order
            // has named the same certificate and then failed. After such a refusal, the order is made without the
            // field. An order without the field counts towards the authority's rate limits.
            Err(error) => debug!(%error, "acme_replacement_refused"),
        }
    }
    Ok(account.new_order(&NewOrder::new(names)).await?)
}

/// Answers the challenges of an order.
async fn prove(order: &mut Order, acceptor: &Acceptor, name: &str) -> Result<(), Failure> {
    match answer_challenges(order, acceptor, name).await {
        // A fast authority verifies the name before it answers the request, so its answer can be the error of a failed
        // challenge. The state of the order contains the same error, and the caller reads the error from that state.
        Err(Failure::Authority(Error::Api(problem))) => match reason(order).await {
            Some(_) => Ok(()),
            None => Err(Error::Api(problem).into()),
        },
        done => done,
    }
}

async fn answer_challenges(order: &mut Order, acceptor: &Acceptor, name: &str) -> Result<(), Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or(Error::Unsupported("the challenge TLS-ALPN-01"))?;
        let answer = self_signed(name, Some(challenge.key_authorization().digest().as_ref()))?;
        acceptor.begin_challenge(name, Arc::new(answer));
        challenge.set_ready().await?;
    }
    Ok(())
}

/// The authority's reasons for the failed challenges of an order. `None` if no challenge has failed.
async fn reason(order: &mut Order) -> Option<String> {
    let mut all = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        all.extend(reasons(state));
    }
    let mut text = all.join("; ");
    text.truncate(text.floor_char_boundary(proto::limits::MAX_ERROR_TEXT_BYTES));
    Some(text).filter(|_| !all.is_empty())
}

/// The reasons for the failed challenges of an authorization.
fn reasons(state: &AuthorizationState) -> impl Iterator<Item = String> {
    let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
    errors.map(|error| error.detail.clone().unwrap_or_else(|| error.to_string()))
}

/// A self-signed certificate. A certificate that answers a challenge contains the digest of this challenge (RFC 8737).
pub(super) fn self_signed(name: &str, challenge: Option<&[u8]>) -> Result<OwnKey, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut made = CertificateParams::new([name.to_owned()])?;
    made.distinguished_name = DistinguishedName::new();
    made.distinguished_name.push(DnType::CommonName, name);
    made.custom_extensions.extend(challenge.map(CustomExtension::new_acme_identifier));
    let certificate = made.self_signed(&key)?.der().to_vec();
    OwnKey::new(certificate, key.serialize_der()).map_err(|_| rcgen::Error::CouldNotParseKeyPair)
}

/// A request to the authority, with the channel that receives the answer.
type Asked = (Request<BodyWrapper<Bytes>>, oneshot::Sender<Result<Response<Full<Bytes>>, ConnectError>>);

/// Hands requests to [`Line::serve`].
#[derive(Clone)]
pub(super) struct Http(mpsc::Sender<Asked>);

/// Sends requests to the authority one by one, each over its own connection. An order takes about ten requests.
pub(super) struct Line {
    tls: Tls,
    requests: mpsc::Receiver<Asked>,
}

impl Line {
    /// Returns a line, and the HTTP client that passes its requests to this line.
    pub(super) fn new(tls: Tls) -> (Http, Self) {
        let (send, requests) = mpsc::channel(1);
        (Http(send), Self { tls, requests })
    }

    /// Sends requests until all clones of the HTTP client are dropped.
    pub(super) async fn serve(mut self) {
        while let Some((request, answer)) = self.requests.recv().await {
            _ = answer.send(Box::pin(exchange(&self.tls, request)).await);
        }
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let requests = self.0.clone();
        Box::pin(async move {
            let (send, answer) = oneshot::channel();
            _ = requests.send((request, send)).await;
            let answer = answer.await.map_err(|error| Error::Other(Box::new(error)))?;
            answer.map(BytesResponse::from).map_err(|error| Error::Other(Box::new(error)))
        })
    }
}

async fn exchange(tls: &Tls, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, ConnectError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_or_else(|never| match never {}, |body| body.to_bytes());
    let request = Request::from_parts(head, body);
    Ok(https::exchange(tls, request, MAX_ACME_ANSWER_BYTES, ACME_REQUEST_TIMEOUT).await?.map(Full::new))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tls::Certificates;

    use super::*;

    const HOST: &str = "https://authority.example";
    const NAME: &str = "hub.example";

    fn challenge(status: &str) -> Value {
        let mut challenge = json!({
            "type": "tls-alpn-01", "url": format!("{HOST}/challenge"), "token": "t", "status": status
        });
        if status == "invalid" {
            challenge["error"] = problem("unauthorized", "Failed to connect");
        }
        challenge
    }

    fn problem(kind: &str, detail: &str) -> Value {
        json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": 403 })
    }

    fn authorization(status: &str) -> Value {
        json!({
            "identifier": { "type": "dns", "value": NAME }, "status": status, "challenges": [challenge(status)]
        })
    }

    fn usual(path: &str) -> (u16, Value) {
        let at = |path: &str| format!("{HOST}/{path}");
        let order = json!({
            "status": "pending", "authorizations": [at("authorization")], "finalize": at("finalize"),
            "identifiers": [{ "type": "dns", "value": NAME }]
        });
        match path {
            "/directory" => {
                (200, json!({ "newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("new") }))
            }
            "/account" => (201, json!({ "status": "valid" })),
            "/new" => (201, order),
            "/authorization" => (200, authorization("pending")),
            "/challenge" => (200, challenge("pending")),
            _ => (200, json!({})),
        }
    }

    /// The failure of an order at an authority whose answers come from `script`.
    async fn failure(mut script: impl FnMut(&str) -> Option<(u16, Value)>) -> Failure {
        let (send, mut requests) = mpsc::channel::<Asked>(1);
        let settings = Account::builder_with_http(Box::new(Http(send)));
        let acceptor = Acceptor::new(Arc::new(Certificates::load(&[]).unwrap()), None).unwrap();
        let acceptor = acceptor.with_challenges(crate::acme::stand_in().unwrap());
        let new = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
        let serve = async {
            while let Some((request, answer)) = requests.recv().await {
                let path = request.uri().path().to_owned();
                let (status, body) = script(&path).unwrap_or_else(|| usual(&path));
                let response = Response::builder()
                    .status(status)
                    .header("replay-nonce", "n")
                    .header("location", format!("{HOST}/order"))
                    .body(Full::from(body.to_string()));
                _ = answer.send(Ok(response.unwrap()));
            }
            std::future::pending().await
        };
        let work = async {
            let (account, _) = settings.create(&new, format!("{HOST}/directory"), None).await.unwrap();
            order(&account, &acceptor, NAME, None).await
        };
        tokio::select! {
            issued = work => issued.err().expect("the order fails"),
            never = serve => never,
        }
    }

    #[tokio::test]
    async fn a_name_that_fails_before_the_challenge_is_answered_is_unverified() {
        let mut is_asked = false;
        let failed = failure(|path| {
            is_asked |= path == "/challenge";
            match path {
                "/challenge" => Some((200, challenge("invalid"))),
                "/authorization" if is_asked => Some((200, authorization("invalid"))),
                "/order" => {
                    let mut order = usual("/new").1;
                    order["status"] = "invalid".into();
                    Some((200, order))
                }
                _ => None,
            }
        });
        let failed = failed.await.to_string();
        assert_eq!(failed, "the authority cannot verify the name: Failed to connect");
    }

    #[tokio::test]
    async fn a_refused_request_is_reported_as_a_refusal_of_the_authority() {
        for refused in ["/challenge", "/order"] {
            let limit = || (429, problem("rateLimited", "too many requests"));
            let failed = failure(|path| (path == refused).then(limit)).await.to_string();
            assert!(failed.starts_with("the authority refuses: ") && failed.contains("too many requests"), "{failed}");
        }
    }
}
