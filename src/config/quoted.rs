//! Values in error messages.

use proto::Redacted;

/// A value for an error message: one line, limited in length, without the secrets of a URL, and with invisible
/// characters escaped.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let text = if text.contains('@') || text.contains("://") { Redacted(text).to_string() } else { text.to_owned() };
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            out.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}
