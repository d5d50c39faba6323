//! The text of a scrape, in Prometheus' format 0.0.4, by the crate `prometheus-client`.
//!
//! Histograms have 1,056 buckets in here and 17 in the text, by the bounds that dashboards of request times have.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet};
use prometheus_client::encoding::{EncodeLabel, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::counters::{Counters, UnknownFamily};
use super::families::{self, FAMILIES, Family, Kind};
use super::stages::{Stage, StageTimes};
use crate::router::{Category, Histogram, Outcome, Reason, RouteError, Router, State};

/// The bounds of histograms, in microseconds.
const BOUNDS: [u64; 17] = [
    100,
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];

/// A number as it is now that the caller knows: the family, the values of its labels, the number.
pub type Gauge = (String, Vec<String>, f64);

/// All that there is to read, as text.
///
/// `stages` are the times of each target's stages, by its name.
pub fn text(
    router: &Router,
    stages: &[(String, &StageTimes)],
    counters: &Counters,
    gauges: &[Gauge],
) -> Result<String, UnknownFamily> {
    let mut page = Page::default();
    page.add_router(router);
    for (target, times) in stages {
        page.add_stages(target, times);
    }
    page.add_counters(counters);
    for (name, labels, value) in gauges {
        let found = families::find(name).filter(|at| FAMILIES[*at].labels.len() == labels.len());
        let at = found.ok_or_else(|| UnknownFamily(name.clone()))?;
        page.rows[at].push((labels.clone(), Value::Number(*value)));
    }
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    let mut out = String::new();
    // To a string that cannot fail, and the collector's own writing is this file's.
    let _ = prometheus_text::encode(&mut out, &registry);
    Ok(out)
}

#[derive(Debug)]
enum Value {
    Count(u64),
    Number(f64),
    Times { sum: f64, buckets: Vec<(f64, u64)> },
}

type Row = (Vec<String>, Value);

/// The rows of each family.
#[derive(Debug)]
struct Page {
    rows: [Vec<Row>; FAMILIES.len()],
}

impl Default for Page {
    fn default() -> Self {
        Self {
            rows: std::array::from_fn(|_| Vec::new()),
        }
    }
}

impl Page {
    fn put(&mut self, name: &str, labels: &[&str], value: Value) {
        if let Some(at) = families::find(name) {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            self.rows[at].push((labels, value));
        }
    }

    fn add_router(&mut self, router: &Router) {
        for (_, target) in router.all() {
            let name = target.name();
            for (outcome, category, count) in target.ends() {
                // Rows that are always there let a rate be had from the first call on; those of errors would be many.
                if count > 0 || matches!(outcome, Outcome::Served | Outcome::Cancelled) {
                    let category = category.map_or("", Category::as_str);
                    let labels = [name, outcome.as_str(), category];
                    self.put("dspex_attempts", &labels, Value::Count(count));
                }
            }
            let outcomes = [Outcome::Served, Outcome::Failed];
            for (outcome, times) in outcomes.into_iter().zip(target.durations()) {
                self.put(
                    "dspex_attempt_seconds",
                    &[name, outcome.as_str()],
                    times_of(times),
                );
            }
            let in_flight = target.counts().in_flight;
            #[allow(clippy::cast_precision_loss)]
            let in_flight = Value::Number(in_flight as f64);
            self.put("dspex_in_flight", &[name], in_flight);
            for reason in Reason::ALL {
                let count = target.chosen(reason);
                if count > 0 {
                    let labels = [name, reason.as_str()];
                    self.put("dspex_decisions", &labels, Value::Count(count));
                }
            }
            if let Some(breaker) = target.breaker() {
                let now = breaker.state();
                for state in State::ALL {
                    let is_it = Value::Number(f64::from(u8::from(state == now)));
                    self.put("dspex_breaker_state", &[name, state.as_str()], is_it);
                }
            }
            let [input, output] = target.tokens();
            self.put("dspex_tokens", &[name, "input"], Value::Count(input));
            self.put("dspex_tokens", &[name, "output"], Value::Count(output));
        }
        for (word, count) in RouteError::WORDS.into_iter().zip(router.undecided()) {
            self.put("dspex_undecided", &[word], Value::Count(count));
        }
    }

    fn add_stages(&mut self, target: &str, times: &StageTimes) {
        for stage in Stage::ALL {
            let value = times_of(times.of(stage));
            if !matches!(&value, Value::Times { buckets, .. } if count_of(buckets) == 0) {
                self.put("dspex_stage_seconds", &[target, stage.as_str()], value);
            }
        }
    }

    fn add_counters(&mut self, counters: &Counters) {
        for (at, rows) in self.rows.iter_mut().enumerate() {
            let counted = counters.of(at).into_iter();
            rows.extend(counted.map(|(labels, count)| (labels, Value::Count(count))));
        }
    }
}

fn times_of(histogram: &Histogram) -> Value {
    let counts = histogram.up_to(&BOUNDS);
    #[allow(clippy::cast_precision_loss)]
    let bounds = BOUNDS
        .iter()
        .map(|micros| Duration::from_micros(*micros).as_secs_f64());
    let buckets = bounds.chain([f64::INFINITY]).zip(counts).collect();
    Value::Times {
        sum: histogram.sum().as_secs_f64(),
        buckets,
    }
}

fn count_of(buckets: &[(f64, u64)]) -> u64 {
    buckets.iter().map(|(_, count)| count).sum()
}

/// The labels of a row: the family's names with the row's values.
struct Labels<'a>(&'static [&'static str], &'a [String]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.0.iter().zip(self.1) {
            (*name, value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, rows) in FAMILIES.iter().zip(&self.rows) {
            if rows.is_empty() {
                continue;
            }
            let Family { name, help, .. } = family;
            let mut all = encoder.encode_descriptor(name, help, None, kind_of(family.kind))?;
            for (labels, value) in rows {
                let labels = Labels(family.labels, labels);
                let mut row = all.encode_family(&labels)?;
                match value {
                    Value::Count(count) => {
                        row.encode_counter::<NoLabelSet, u64, u64>(count, None)?;
                    }
                    // Counters that the caller knows come as numbers too.
                    Value::Number(number) if family.kind == Kind::Counter => {
                        row.encode_counter::<NoLabelSet, f64, u64>(number, None)?;
                    }
                    Value::Number(number) => row.encode_gauge(number)?,
                    Value::Times { sum, buckets } => {
                        row.encode_histogram::<NoLabelSet>(*sum, count_of(buckets), buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn kind_of(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{Options, Side, Wish};

    #[test]
    fn the_text_has_what_was_counted_once_for_each_set_of_labels() {
        let router = Router::default();
        router
            .add("native", Side::Native, &Options::default())
            .unwrap();
        let breaker = Options {
            breaker: Some(crate::router::BreakerSettings::default()),
            ..Options::default()
        };
        router.add("pool:a\"b\\c", Side::Python, &breaker).unwrap();
        for millis in [0, 3, 700, 500_000] {
            let decision = router.decide(&Wish::default(), 0).unwrap();
            let took = Duration::from_millis(millis);
            router.record(&decision.ticket, Outcome::Served, took, None, 0);
            decision.ticket.target().add_tokens(10, 3);
        }
        let decision = router.decide(&Wish::default(), 0).unwrap();
        let took = Duration::from_secs(1);
        router.record(&decision.ticket, Outcome::Refused, took, None, 0);
        let target = decision.ticket.target();
        target.blame(Outcome::Refused, Category::Transient);
        router.count_undecided("no-target");
        let times = StageTimes::default();
        times.add(Stage::Lm, Duration::from_millis(2));
        let counters = Counters::default();
        counters
            .add("dspex_errors", &["native", "lm-server"], 1)
            .unwrap();
        let gauges = [("dspex_pool_waiting".to_owned(), vec!["a".to_owned()], 4.0)];
        let text = text(
            &router,
            &[("native".to_owned(), &times)],
            &counters,
            &gauges,
        )
        .unwrap();
        for line in [
            "# TYPE dspex_attempts_total counter",
            "dspex_attempts_total{target=\"native\",outcome=\"served\",category=\"\"} 4",
            "dspex_attempts_total{target=\"native\",outcome=\"refused\",category=\"transient\"} 1",
            "dspex_attempt_seconds_bucket{target=\"native\",outcome=\"served\",le=\"0.0001\"} 1",
            "dspex_attempt_seconds_bucket{target=\"native\",outcome=\"served\",le=\"0.005\"} 2",
            "dspex_attempt_seconds_bucket{target=\"native\",outcome=\"served\",le=\"1\"} 3",
            "dspex_attempt_seconds_bucket{target=\"native\",outcome=\"served\",le=\"120\"} 3",
            "dspex_attempt_seconds_bucket{target=\"native\",outcome=\"served\",le=\"+Inf\"} 4",
            "dspex_attempt_seconds_count{target=\"native\",outcome=\"served\"} 4",
            "dspex_breaker_state{target=\"pool:a\\\"b\\\\c\",state=\"closed\"} 1.0",
            "dspex_breaker_state{target=\"pool:a\\\"b\\\\c\",state=\"open\"} 0.0",
            "dspex_decisions_total{target=\"native\",reason=\"preferred\"} 5",
            "dspex_undecided_total{reason=\"no-target\"} 1",
            "dspex_tokens_total{target=\"native\",kind=\"input\"} 40",
            "dspex_stage_seconds_count{target=\"native\",stage=\"lm\"} 1",
            "dspex_errors_total{target=\"native\",code=\"lm-server\"} 1",
            "dspex_pool_waiting{pool=\"a\"} 4.0",
        ] {
            let found = text.lines().filter(|found| *found == line).count();
            assert_eq!(found, 1, "{line}\n{text}");
        }
        assert!(!text.contains("stage=\"render\""), "{text}");
    }

    #[test]
    fn a_number_of_no_family_is_refused() {
        let unknown = ("dspex_pool_waiting".to_owned(), vec![], 1.0);
        let found = text(&Router::default(), &[], &Counters::default(), &[unknown]);
        assert_eq!(found, Err(UnknownFamily("dspex_pool_waiting".to_owned())));
    }
}
