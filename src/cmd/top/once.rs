//! The hubs as text, for scripts.

use std::fmt::Write as _;

use super::draw::{COLUMNS, cells};
use super::model::Model;

/// Returns a heading, one line per hub, and two lines per fault. The columns of a hub's line are separated by at least
/// two spaces. The lines of a fault contain the fault, and a link to the runbook, which says what to do.
pub(super) fn text(model: &Model) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(model.order().into_iter().map(|index| cells(&model.hubs[index])));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let line =
            row.iter().zip(&widths).fold(String::new(), |line, (cell, width)| line + &format!("{cell:<width$}  "));
        text += line.trim_end();
        text.push('\n');
    }
    for (hub, fault) in model.faults() {
        let shown: String = fault.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Writing to a String cannot fail.
        _ = writeln!(text, "fault: {}: {shown}\n  what to do: {}", hub.name, fault.page());
    }
    text
}
