//! Values in error messages.

use proto::Redacted;

/// Returns a value as error messages show it: on one line, without the text after its first 80 characters. Secrets of a
/// URL are removed, and invisible characters are escaped.
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
