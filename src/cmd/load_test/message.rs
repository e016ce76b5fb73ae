//! The messages of a load test. simd-json parses received messages, and overwrites their buffers. Sent messages are
//! written without a JSON library.

use serde::Deserialize;
use simd_json::Buffers;

/// The routing fields of a received message, and this program's own fields in `data`.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Heard<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: &'a str,
    #[serde(borrow, default)]
    pub(super) data: Option<Data<'a>>,
    #[serde(borrow, default)]
    pub(super) from_peer_id: Option<&'a str>,
    #[serde(borrow, default)]
    pub(super) target_peer_id: Option<&'a str>,
    #[serde(borrow, default)]
    pub(super) network_name: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data<'a> {
    /// The subject of a discovery or a leave.
    #[serde(borrow, default)]
    pub(super) peer_id: Option<&'a str>,
    /// Code of an error.
    #[serde(borrow, default)]
    pub(super) code: Option<&'a str>,
    /// The id of a receipt.
    #[serde(borrow, default)]
    pub(super) id: Option<&'a str>,
    /// The outcome of a receipt.
    #[serde(borrow, default)]
    pub(super) outcome: Option<&'a str>,
    /// Number of a signal among all signals of its sender.
    #[serde(default)]
    pub(super) n: Option<u64>,
    /// Time at which a signal was sent, in nanoseconds since the test began.
    #[serde(default)]
    pub(super) t: Option<u64>,
}

/// Parses a message. The buffer of the message is overwritten.
pub(super) fn parse<'a>(text: &'a mut [u8], buffers: &mut Buffers) -> Result<Heard<'a>, simd_json::Error> {
    simd_json::serde::from_slice_with_buffers(text, buffers)
}

/// The parts of a signal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signal<'a> {
    pub(super) kind: &'a str,
    pub(super) target: [u8; 40],
    pub(super) network: &'a str,
    pub(super) number: u64,
    pub(super) sent_at_nanos: u64,
    pub(super) wants_receipt: bool,
    pub(super) padding: &'a str,
}

impl Signal<'_> {
    /// Writes the message into `text`. Nothing in the message needs escaping, because this program makes all names and
    /// the padding.
    pub(super) fn write(&self, text: &mut Vec<u8>) {
        text.clear();
        let mut number = itoa::Buffer::new();
        let number = number.format(self.number);
        let mut put = |part: &[u8]| text.extend_from_slice(part);
        put(b"{\"type\":\"");
        put(self.kind.as_bytes());
        put(b"\",\"targetPeerId\":\"");
        put(&self.target);
        put(b"\",\"networkName\":\"");
        put(self.network.as_bytes());
        if self.wants_receipt {
            put(b"\",\"id\":\"");
            put(number.as_bytes());
        }
        put(b"\",\"data\":{\"n\":");
        put(number.as_bytes());
        put(b",\"t\":");
        put(itoa::Buffer::new().format(self.sent_at_nanos).as_bytes());
        put(b",\"pad\":\"");
        put(self.padding.as_bytes());
        put(b"\"}}");
    }
}

/// Padding that makes the `data` of a signal about `size` bytes long.
pub(super) fn padding(size: usize) -> String {
    const AROUND: usize = "{\"n\":12345,\"t\":12345678901,\"pad\":\"\"}".len();
    "x".repeat(size.saturating_sub(AROUND))
}

/// An `announce` or `goodbye` message.
pub(super) fn membership(kind: &str, network: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"networkName\":\"{network}\",\"data\":{{}}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard<R>(text: &str, check: impl FnOnce(Heard<'_>) -> R) -> R {
        let mut text = text.as_bytes().to_vec();
        check(parse(&mut text, &mut Buffers::default()).unwrap())
    }

    #[test]
    fn a_signal_reads_as_it_was_written() {
        for wants_receipt in [true, false] {
            let signal = Signal {
                kind: "offer",
                target: [b'a'; 40],
                network: "n",
                number: 7,
                sent_at_nanos: 12_345,
                wants_receipt,
                padding: "xx",
            };
            let mut text = b"the previous content".to_vec();
            signal.write(&mut text);
            let text = String::from_utf8(text).unwrap();
            let id = if wants_receipt { r#""id":"7","# } else { "" };
            let target = "a".repeat(40);
            let data = r#"{"n":7,"t":12345,"pad":"xx"}"#;
            let expected =
                format!(r#"{{"type":"offer","targetPeerId":"{target}","networkName":"n",{id}"data":{data}}}"#);
            assert_eq!(text, expected);
            heard(&text, |heard| {
                assert_eq!((heard.kind, heard.network_name), ("offer", Some("n")));
                let data = heard.data.unwrap();
                assert_eq!((data.n, data.t), (Some(7), Some(12_345)));
            });
        }
    }

    #[test]
    fn every_message_of_a_hub_can_be_read() {
        for (text, kind) in [
            (r#"{"type":"connected","data":{"peerId":"a","iceServers":[{"urls":["x"]}]},"timestamp":1}"#, "connected"),
            (r#"{"type":"goodbye","data":null,"fromPeerId":"b"}"#, "goodbye"),
            (r#"{"type":"pong","data":{"timestamp":1}}"#, "pong"),
            (r#"{"type":"x"}"#, "x"),
            (r#"{"type":"go-away","data":{"reason":"draining","reconnectInMs":5,"hubs":[]}}"#, "go-away"),
        ] {
            heard(text, |heard| assert_eq!(heard.kind, kind));
        }
        heard(r#"{"type":"error","data":{"code":"wrong-network","message":"a \"b\""}}"#, |heard| {
            assert_eq!(heard.data.unwrap().code, Some("wrong-network"));
        });
    }

    #[test]
    fn padding_fills_data_to_its_size() {
        assert_eq!(padding(0), "");
        let mut text = Vec::new();
        let padding = padding(1000);
        Signal {
            kind: "offer",
            target: [b'a'; 40],
            network: "n",
            number: 12_345,
            sent_at_nanos: 12_345_678_901,
            wants_receipt: false,
            padding: &padding,
        }
        .write(&mut text);
        let data = text.len() - text.iter().rposition(|&c| c == b'{').unwrap() - 1;
        assert_eq!(data, 1000);
    }
}
