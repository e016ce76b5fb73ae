//! Fast parser for ordinary messages.
//!
//! Nearly every message is an object without line breaks. The only escapes of a usual message are `\r`, `\n` and `\"`,
//! which an SDP needs. The first pass has no branches and checks that a text has no other escapes. In such a text,
//! every string is valid, and a quote after a backslash never ends a string. The second pass goes from token to token.
//! The full parser parses all other text, including invalid messages. For every text, this parser returns the same
//! result as the full parser, or `None`.

use std::borrow::Cow;

use memchr::memchr;

use super::Fields;

/// Deepest nesting that this parser accepts. Deeper messages go to the full parser.
const DEPTH: u32 = 64;

/// Parses the fields of a message. `None` does not mean that the message is invalid.
pub(super) fn scan(text: &str) -> Option<Fields<'_>> {
    if !is_plain(text.as_bytes()) {
        return None;
    }
    let mut cursor = Cursor { text, at: 0 };
    let mut fields = Fields::default();
    cursor.space();
    cursor.expect(b'{')?;
    cursor.space();
    loop {
        let name = cursor.name()?;
        match name {
            "type" => cursor.text_into(&mut fields.kind)?,
            "data" => cursor.value_into(&mut fields.data)?,
            "targetPeerId" => cursor.text_into(&mut fields.target_peer_id)?,
            "targetPeer" => cursor.text_into(&mut fields.target_peer)?,
            "networkName" => cursor.text_into(&mut fields.network_name)?,
            "id" => cursor.value_into(&mut fields.id)?,
            "ack" => cursor.value_into(&mut fields.ack)?,
            _ => cursor.value()?,
        }
        cursor.space();
        match cursor.next()? {
            b',' => cursor.space(),
            b'}' => break,
            _ => return None,
        }
    }
    cursor.space();
    (cursor.at == text.len()).then_some(fields)
}

/// Whether the text has no control characters, and each backslash is followed by `n`, `r` or `"`. In such a text, no
/// backslash follows another backslash, so each backslash begins an escape. The last byte is not checked, because
/// [`scan`] accepts only `}` or a space there. The check has no branches, so that the compiler uses SIMD.
fn is_plain(text: &[u8]) -> bool {
    let behind = text.get(1..).unwrap_or_default();
    let odd = text.iter().zip(behind).fold(0, |odd, (&c, &next)| {
        let escape = (next == b'n') | (next == b'r') | (next == b'"');
        odd | u8::from(c < b' ') | (u8::from(c == b'\\') & u8::from(!escape))
    });
    odd == 0
}

/// A position in plain text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn expect(&mut self, c: u8) -> Option<()> {
        (self.next()? == c).then_some(())
    }

    /// Skips spaces. The other three kinds of white space are control characters, which plain text does not have.
    fn space(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// Returns the rest of a string whose opening quote has been consumed.
    fn string(&mut self) -> Option<&'a str> {
        let start = self.at;
        loop {
            let end = self.at + memchr(b'"', &self.text.as_bytes()[self.at..])?;
            self.at = end + 1;
            if self.text.as_bytes()[end - 1] != b'\\' {
                return self.text.get(start..end);
            }
        }
    }

    /// Parses a name and its colon. Escapes need not be resolved, because no known name contains `"`, a line feed or a
    /// carriage return.
    fn name(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let name = self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Some(name)
    }

    /// Parses a string without escapes into a field that is still empty. Returns `None` if the value is not such a
    /// string, for example `null`.
    fn text_into(&mut self, field: &mut Option<Cow<'a, str>>) -> Option<()> {
        if field.is_some() {
            return None;
        }
        self.expect(b'"')?;
        let text = self.string()?;
        if text.contains('\\') {
            return None;
        }
        *field = Some(Cow::Borrowed(text));
        Some(())
    }

    /// Parses any value into a field that is still empty. `None` for `null`.
    fn value_into(&mut self, field: &mut Option<&'a str>) -> Option<()> {
        let start = self.at;
        self.value()?;
        let value = self.text.get(start..self.at)?;
        if field.is_some() || value == "null" {
            return None;
        }
        *field = Some(value);
        Some(())
    }

    fn value(&mut self) -> Option<()> {
        let mut depth = 0;
        // One bit for each open array (0) or object (1). The lowest bit is the innermost one.
        let mut objects = 0u64;
        loop {
            match self.next()? {
                b'"' => _ = self.string()?,
                open @ (b'{' | b'[') => {
                    let object = open == b'{';
                    self.space();
                    if self.peek()? == open + 2 {
                        self.at += 1;
                    } else {
                        if depth == DEPTH {
                            return None;
                        }
                        depth += 1;
                        objects = objects << 1 | u64::from(object);
                        if object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                b't' => self.rest("rue")?,
                b'f' => self.rest("alse")?,
                b'n' => self.rest("ull")?,
                first => self.number(first)?,
            }
            // A value has ended. The arrays and objects that contain this value can end at the same place.
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.space();
                match (self.next()?, objects & 1 == 1) {
                    (b',', true) => {
                        self.space();
                        self.name()?;
                        break;
                    }
                    (b',', false) => {
                        self.space();
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        depth -= 1;
                        objects >>= 1;
                    }
                    _ => return None,
                }
            }
        }
    }

    fn rest(&mut self, rest: &str) -> Option<()> {
        let found = self.text.as_bytes()[self.at..].starts_with(rest.as_bytes());
        self.at += rest.len();
        found.then_some(())
    }

    /// Parses the rest of a number whose first character has been consumed.
    fn number(&mut self, first: u8) -> Option<()> {
        match if first == b'-' { self.next()? } else { first } {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn some_digits(&mut self) -> Option<()> {
        let digit = self.next()?.is_ascii_digit();
        self.digits();
        digit.then_some(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
    }
}
