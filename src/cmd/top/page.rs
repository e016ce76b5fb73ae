//! The text format of /metrics, as far as this program reads it.

use std::collections::BTreeMap;

/// The series of a page.
#[derive(Clone, Debug, Default)]
pub(super) struct Page(BTreeMap<String, Vec<(Labels, f64)>>);

/// The labels of a series, as written: `a="b",c="d"`.
type Labels = String;

impl Page {
    /// Reads a page. Lines that are not series are skipped.
    pub(super) fn parse(text: &str) -> Self {
        let mut series = BTreeMap::<String, Vec<(Labels, f64)>>::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            series.entry(name.to_owned()).or_default().push((labels.trim_end_matches('}').to_owned(), value));
        }
        Self(series)
    }

    fn series(&self, name: &str) -> &[(Labels, f64)] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The sum of all series of a metric whose labels contain this text.
    pub(super) fn sum_where(&self, name: &str, labels: &str) -> f64 {
        // The sum of no numbers is -0.0, so 0.0 is added.
        0.0 + self.series(name).iter().filter(|(found, _)| found.contains(labels)).map(|(_, value)| value).sum::<f64>()
    }

    /// Makes the sum of the series whose labels contain this text smaller. No series becomes negative.
    pub(super) fn set_back(&mut self, name: &str, labels: &str, by: f64) {
        let mut left = by;
        let series = self.0.get_mut(name).into_iter().flatten();
        for (_, value) in series.filter(|(found, _)| found.contains(labels)) {
            let part = left.clamp(0.0, value.max(0.0));
            *value -= part;
            left -= part;
        }
    }

    /// The sum of all series of a metric; 0 if there are none.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.sum_where(name, "")
    }

    /// The values of a metric by one of its labels, summed over all other labels.
    pub(super) fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        self.by_where(name, label, "")
    }

    /// Like [`Self::by`], but only for the series whose labels contain `wanted`.
    fn by_where(&self, name: &str, label: &str, wanted: &str) -> BTreeMap<String, f64> {
        let mut values = BTreeMap::new();
        let begin = format!("{label}=\"");
        for (labels, value) in self.series(name).iter().filter(|(labels, _)| labels.contains(wanted)) {
            if let Some(found) = labels.split(begin.as_str()).nth(1).and_then(|rest| rest.split('"').next()) {
                *values.entry(found.to_owned()).or_insert(0.0) += value;
            }
        }
        values
    }
}

/// The changes between two pages of one hub.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    pub(super) before: &'a Page,
    pub(super) after: &'a Page,
    pub(super) seconds: f64,
}

impl Span<'_> {
    /// The growth of a counter per second. If the counter has become smaller, the hub has restarted, and the counter
    /// has grown from 0.
    pub(super) fn rate(&self, name: &str, labels: &str) -> f64 {
        let after = self.after.sum_where(name, labels);
        let grown = after - self.before.sum_where(name, labels);
        (if grown < 0.0 { after } else { grown }) / self.seconds
    }

    /// The growth of a counter per second, for each value of `label`. Values without growth are left out, and the
    /// fastest growth comes first. Only series whose labels contain `wanted` count.
    pub(super) fn rates_by(&self, name: &str, label: &str, wanted: &str) -> Vec<(String, f64)> {
        let before = self.before.by_where(name, label, wanted);
        let after = self.after.by_where(name, label, wanted);
        let grown = after.into_iter().map(|(part, after)| {
            let grown = after - before.get(&part).copied().unwrap_or_default();
            (part, (if grown < 0.0 { after } else { grown }) / self.seconds)
        });
        let mut grown: Vec<_> = grown.filter(|(_, rate)| *rate > 0.0).collect();
        grown.sort_by(|a, b| b.1.total_cmp(&a.1));
        grown
    }

    /// The growth of a counter.
    pub(super) fn grown(&self, name: &str, labels: &str) -> f64 {
        self.rate(name, labels) * self.seconds
    }

    /// The number of observations of a histogram above one of its bounds. Only series whose labels contain
    /// `wanted` count.
    pub(super) fn above(&self, name: &str, wanted: &str, bound: f64) -> f64 {
        let above = |page: &Page| {
            let buckets = page.by_where(&format!("{name}_bucket"), "le", wanted);
            let up_to = buckets.iter().filter(|(le, _)| le.parse::<f64>().is_ok_and(|le| le <= bound));
            let below = up_to.map(|(_, count)| *count).fold(0.0, f64::max);
            buckets.get("+Inf").copied().unwrap_or_default() - below
        };
        (above(self.after) - above(self.before)).max(0.0)
    }

    /// A quantile of a histogram between the two pages, as the upper bound of its bucket. Only series whose labels
    /// contain `wanted` count. Returns `None` if the histogram counted nothing, and infinity if the quantile is above
    /// the last bound.
    pub(super) fn quantile(&self, name: &str, wanted: &str, quantile: f64) -> Option<f64> {
        let name = format!("{name}_bucket");
        let (before, after) = (self.before.by_where(&name, "le", wanted), self.after.by_where(&name, "le", wanted));
        let mut buckets: Vec<(f64, f64)> = after
            .iter()
            .filter_map(|(text, count)| {
                let bound = if text == "+Inf" { f64::INFINITY } else { text.parse().ok()? };
                Some((bound, count - before.get(text).copied().unwrap_or_default()))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all = buckets.last().map(|(_, count)| *count).filter(|all| *all > 0.0)?;
        buckets.into_iter().find(|(_, count)| *count >= all * quantile).map(|(bound, _)| bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP a b\na{x=\"1\",y=\"q\"} 3\na{x=\"2\",y=\"q\"} 4\nb 2.5\nt_bucket{le=\"0.005\"} 1\n\
                          t_bucket{le=\"0.1\"} 1\nt_bucket{le=\"+Inf\"} 1\nno value\n";
    const AFTER: &str = "a{x=\"1\",y=\"q\"} 13\na{x=\"2\",y=\"q\"} 4\na{x=\"3\",y=\"r\"} 1\nb 1\nt_bucket{le=\"0.005\"} 91\n\
                         t_bucket{le=\"0.1\"} 100\nt_bucket{le=\"+Inf\"} 101\n";

    #[test]
    fn series_are_added_by_label() {
        let page = Page::parse(BEFORE);
        assert_eq!((page.sum("a"), page.sum_where("a", "x=\"2\""), page.sum("b"), page.sum("c")), (7.0, 4.0, 2.5, 0.0));
        assert_eq!(page.by("a", "y").into_iter().collect::<Vec<_>>(), [("q".to_owned(), 7.0)]);
    }

    #[test]
    fn rates_are_differences_per_second() {
        let (before, after) = (Page::parse(BEFORE), Page::parse(AFTER));
        let span = Span { before: &before, after: &after, seconds: 2.0 };
        assert_eq!((span.rate("a", ""), span.rate("a", "x=\"1\"")), (5.5, 5.0));
        assert_eq!(span.rate("b", ""), 0.5, "after a restart of the hub, the counter has grown from 0");
        assert_eq!(span.rates_by("a", "x", ""), [("1".to_owned(), 5.0), ("3".to_owned(), 0.5)]);
        assert_eq!((span.quantile("t", "", 0.5), span.quantile("t", "", 0.99)), (Some(0.005), Some(0.1)));
        assert_eq!((span.quantile("t", "", 1.0), span.quantile("u", "", 0.5)), (Some(f64::INFINITY), None));
        assert_eq!((span.above("t", "", 0.005), span.above("t", "", 1.0), span.above("u", "", 1.0)), (10.0, 1.0, 0.0));
        let none = Span { before: &after, after: &after, seconds: 2.0 };
        assert_eq!((none.rates_by("a", "x", ""), none.quantile("t", "", 0.5)), (Vec::new(), None));
    }
}
