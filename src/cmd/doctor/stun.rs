//! Messages of STUN (RFC 8489) and TURN (RFC 8656). The doctor only needs the messages that ask for an address or
//! release it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;

/// Length of a header, in bytes.
pub(super) const HEADER: usize = 20;

/// Maximum length of a message that is read, in bytes.
pub(super) const MAX_MESSAGE: usize = 1500;

const COOKIE: u32 = 0x2112_a442;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const LIFETIME: u16 = 0x000d;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// A request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// Ask for the address from which this request comes.
    Binding = 0x0001,
    /// Reserve an address for UDP.
    Allocate = 0x0003,
    /// Release the reserved address.
    Release = 0x0004,
}

/// A long-term credential, with the realm and the nonce of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login<'a> {
    pub(super) username: &'a str,
    pub(super) password: &'a str,
    pub(super) realm: &'a str,
    pub(super) nonce: &'a [u8],
}

impl Login<'_> {
    fn key(&self) -> [u8; 16] {
        Md5::digest(format!("{}:{}:{}", self.username, self.realm, self.password)).into()
    }
}

/// Writes a request.
pub(super) fn request(method: Method, transaction: [u8; 12], login: Option<Login<'_>>) -> Vec<u8> {
    let mut message = Vec::with_capacity(256);
    message.extend((method as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(COOKIE.to_be_bytes());
    message.extend(transaction);
    match method {
        Method::Binding => {}
        // 17 is the protocol number of UDP.
        Method::Allocate => put(&mut message, REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
        Method::Release => put(&mut message, LIFETIME, &[0; 4]),
    }
    if let Some(login) = login {
        put(&mut message, USERNAME, login.username.as_bytes());
        put(&mut message, REALM, login.realm.as_bytes());
        put(&mut message, NONCE, login.nonce);
        // The HMAC covers everything before it, and the length in the header must already include the HMAC.
        set_length(&mut message, 4 + 20);
        // HMAC takes keys of every length.
        if let Ok(mut sum) = Hmac::<Sha1>::new_from_slice(&login.key()) {
            sum.update(&message);
            put(&mut message, MESSAGE_INTEGRITY, &sum.finalize().into_bytes());
        }
    }
    set_length(&mut message, 0);
    message
}

fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Values are names, nonces and sums, far below 64 KiB. A longer value is cut off, and the server then refuses the
    // request.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Writes the length of the body, including `more` bytes that follow.
fn set_length(message: &mut [u8], more: usize) {
    let length = u16::try_from(message.len() - HEADER + more).unwrap_or(u16::MAX);
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// The length of the body of the message that begins with these bytes.
pub(super) fn body_length(header: &[u8; HEADER]) -> usize {
    usize::from(u16::from_be_bytes([header[2], header[3]]))
}

/// An answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether the request was granted.
    pub(super) is_success: bool,
    /// Code and reason of a refusal.
    pub(super) error: Option<(u16, String)>,
    pub(super) realm: Option<String>,
    pub(super) nonce: Option<Vec<u8>>,
    /// The address that the server sees.
    pub(super) mapped: Option<SocketAddr>,
    /// The reserved address.
    pub(super) relayed: Option<SocketAddr>,
}

/// Reads the answer to a request. Returns `None` if the message is not the answer to the request `transaction`.
pub(super) fn answer(message: &[u8], method: Method, transaction: [u8; 12]) -> Option<Answer> {
    let (header, body) = message.split_first_chunk::<HEADER>()?;
    let kind = u16::from_be_bytes([header[0], header[1]]);
    let is_success = kind == method as u16 | 0x0100;
    let is_answer = is_success || kind == method as u16 | 0x0110;
    if !is_answer || header[4..8] != COOKIE.to_be_bytes() || header[8..] != transaction {
        return None;
    }
    let mut answer = Answer { is_success, ..Answer::default() };
    let mut rest = body.get(..body_length(header))?;
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = after.get(..length)?;
        match u16::from_be_bytes([head[0], head[1]]) {
            ERROR_CODE => answer.error = error(value),
            REALM => answer.realm = Some(String::from_utf8_lossy(value).into_owned()),
            NONCE => answer.nonce = Some(value.to_owned()),
            XOR_MAPPED_ADDRESS => answer.mapped = address(value, transaction),
            XOR_RELAYED_ADDRESS => answer.relayed = address(value, transaction),
            _ => {}
        }
        rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(answer)
}

fn error(value: &[u8]) -> Option<(u16, String)> {
    let (head, reason) = value.split_first_chunk::<4>()?;
    let code = u16::from(head[2] & 7) * 100 + u16::from(head[3]);
    Some((code, String::from_utf8_lossy(reason).into_owned()))
}

fn address(value: &[u8], transaction: [u8; 12]) -> Option<SocketAddr> {
    let (head, rest) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2], head[3]]) ^ (COOKIE >> 16) as u16;
    let ip: IpAddr = match head[1] {
        1 => Ipv4Addr::from_bits(u32::from_be_bytes(rest.try_into().ok()?) ^ COOKIE).into(),
        2 => {
            let mut mask = [0; 16];
            mask[..4].copy_from_slice(&COOKIE.to_be_bytes());
            mask[4..].copy_from_slice(&transaction);
            Ipv6Addr::from_bits(u128::from_be_bytes(rest.try_into().ok()?) ^ u128::from_be_bytes(mask)).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The transaction id of all samples of RFC 5769.
    const SAMPLE: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn response(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = [&[0x01, 0x01, 0, 0][..], &COOKIE.to_be_bytes(), &SAMPLE].concat();
        for (kind, value) in attributes {
            put(&mut message, *kind, value);
        }
        set_length(&mut message, 0);
        message
    }

    #[test]
    fn addresses_are_read_as_in_rfc_5769() {
        let v4: &[u8] = &[0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        let read = answer(&response(&[(XOR_MAPPED_ADDRESS, v4)]), Method::Binding, SAMPLE).unwrap();
        assert_eq!((read.is_success, read.mapped), (true, Some("192.0.2.1:32853".parse().unwrap())));
        let v6: &[u8] = &[
            0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2,
            0xb9, 0xd9,
        ];
        let read = answer(&response(&[(0x8022, b"test vector"), (XOR_MAPPED_ADDRESS, v6)]), Method::Binding, SAMPLE);
        let expected = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        assert_eq!(read.unwrap().mapped, Some(expected));
    }

    #[test]
    fn answers_to_other_requests_are_ignored() {
        let message = response(&[]);
        assert!(answer(&message, Method::Binding, SAMPLE).is_some());
        assert_eq!(answer(&message, Method::Allocate, SAMPLE), None);
        assert_eq!(answer(&message, Method::Binding, [0; 12]), None);
        assert_eq!(answer(&message[..19], Method::Binding, SAMPLE), None);
    }

    #[test]
    fn a_request_with_a_login_is_signed_with_its_key() {
        let login = Login { username: "user", password: "pass", realm: "realm", nonce: b"n" };
        // The login and its key are the example in RFC 8489, section 18.5.1.1.
        let key = [0x84, 0x93, 0xfb, 0xc5, 0x3b, 0xa5, 0x82, 0xfb, 0x4c, 0x04, 0x4c, 0x45, 0x6b, 0xdc, 0x40, 0xeb];
        assert_eq!(login.key(), key);
        let message = request(Method::Allocate, SAMPLE, Some(login));
        let (signed, sum) = message.split_at(message.len() - 24);
        assert_eq!(sum[..4], [0, 8, 0, 20]);
        let mut mac = Hmac::<Sha1>::new_from_slice(&key).unwrap();
        mac.update(signed);
        assert_eq!(mac.finalize().into_bytes()[..], sum[4..]);
        assert_eq!(body_length(message[..HEADER].try_into().unwrap()), message.len() - HEADER);
    }

    proptest! {
        #[test]
        fn no_answer_causes_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut message = response(&[]);
            message.extend(&body);
            set_length(&mut message, 0);
            _ = answer(&message, Method::Binding, SAMPLE);
            _ = answer(&body, Method::Binding, SAMPLE);
        }
    }
}
