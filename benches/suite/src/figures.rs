//! The figures of runs, and their medians.

use std::collections::BTreeMap;

/// The figures of one run, by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// The figures of one round, by the name of the server or the case.
pub(crate) type Round = Vec<(&'static str, Figures)>;

/// The median. For an even number of values, the result is the lower of the two values in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// The median of each figure.
pub(crate) fn medians(runs: &[Figures]) -> Figures {
    let names = runs.first().map(|run| run.keys().copied().collect::<Vec<_>>()).unwrap_or_default();
    let middle = |name| median(runs.iter().filter_map(|run| run.get(name).copied())).map(|middle| (name, middle));
    names.into_iter().filter_map(middle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        assert_eq!(median([5.0, 1.0, 3.0].into_iter()), Some(3.0));
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([7.0].into_iter()), Some(7.0));
        assert_eq!(median(std::iter::empty()), None);
        let runs = [
            Figures::from([("a", 1.0), ("b", 9.0)]),
            Figures::from([("a", 3.0), ("b", 7.0)]),
            Figures::from([("a", 2.0), ("b", 8.0)]),
        ];
        assert_eq!(medians(&runs), Figures::from([("a", 2.0), ("b", 8.0)]));
    }
}
