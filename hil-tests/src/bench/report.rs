//! What came of a run, as tables for people and as one JSON object.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::figure::{Figure, Judged, Work};
use super::load::Tally;
use super::measures::{Outcome, median};
use super::peers::{POSTERN, PUMP};

/// All that was measured, by work and proxy.
#[derive(Debug, Default)]
pub struct Report {
    /// What it was measured on and with, in words.
    pub circumstances: BTreeMap<String, String>,
    /// Proxies in the order of the rounds.
    peers: Vec<&'static str>,
    counts: BTreeMap<(Work, &'static str), Tally>,
    values: BTreeMap<(Figure, &'static str), Vec<f64>>,
}

/// One figure, as JSON has it.
#[derive(Debug, Serialize)]
struct FigureJson {
    figure: Figure,
    title: &'static str,
    unit: &'static str,
    peers: BTreeMap<&'static str, PeerJson>,
    limits: Vec<Judged>,
}

#[derive(Debug, Serialize)]
struct PeerJson {
    median: Option<f64>,
    rounds: Vec<f64>,
    by_pump: Option<f64>,
    /// Postern's median by this one's.
    postern_by_this: Option<f64>,
}

#[derive(Debug, Serialize)]
struct CountJson<'a> {
    work: Work,
    peer: &'static str,
    done: u32,
    failed: u32,
    errors: &'a [String],
}

impl Report {
    /// Adds one round of one work with one proxy; an error counts as one failed operation.
    pub fn add(&mut self, work: Work, peer: &'static str, outcome: anyhow::Result<Outcome>) {
        if !self.peers.contains(&peer) {
            self.peers.push(peer);
        }
        let count = self.counts.entry((work, peer)).or_default();
        match outcome {
            Ok(mut outcome) => {
                outcome.tally.times.clear();
                count.add(outcome.tally);
                for (figure, value) in outcome.values {
                    self.values.entry((figure, peer)).or_default().push(value);
                }
            }
            Err(error) => count.fail(format!("{error:#}")),
        }
    }

    /// Operations that failed, of all works and proxies.
    pub fn failures(&self) -> u32 {
        self.counts.values().map(|count| count.failed).sum()
    }

    /// The limits that apply to one figure, judged.
    fn judged(&self, figure: Figure) -> Vec<Judged> {
        let postern = self.median(figure, POSTERN);
        figure.limits().iter().map(|limit| limit.judge(postern, |peer| self.median(figure, peer))).collect()
    }

    fn median(&self, figure: Figure, peer: &str) -> Option<f64> {
        let (_, values) = self.values.iter().find(|((of, by), _)| *of == figure && *by == peer)?;
        median(values)
    }

    fn ratio(&self, figure: Figure, above: &str, below: &str) -> Option<f64> {
        Some(self.median(figure, above)? / self.median(figure, below)?)
    }

    /// Works that were done, in order.
    fn works(&self) -> impl Iterator<Item = Work> {
        Work::ALL.into_iter().filter(|work| self.counts.keys().any(|(done, _)| done == work))
    }

    /// Tables, limits, failures.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (what, is) in &self.circumstances {
            let _ = writeln!(text, "{what}: {is}");
        }
        for work in self.works() {
            for &figure in work.figures() {
                self.table(&mut text, work, figure);
            }
        }
        let failures = self.failures();
        let _ = writeln!(text, "\n{failures} operations failed");
        for ((work, peer), count) in self.counts.iter().filter(|(_, count)| count.failed > 0) {
            let _ = writeln!(text, "  {work:?}, {peer}: {} failed", count.failed);
            for error in &count.errors {
                let _ = writeln!(text, "    {error}");
            }
        }
        text
    }

    fn table(&self, text: &mut String, work: Work, figure: Figure) {
        let _ = writeln!(text, "\n{} [{}]", figure.title(), figure.unit());
        let _ = writeln!(
            text,
            "  {:<10}{:>10}{:>20}{:>10}{:>14}{:>9}{:>8}",
            "", "median", "least … most", "÷ pump", "Postern ÷ it", "done", "failed"
        );
        for &peer in &self.peers {
            let Some(count) = self.counts.get(&(work, peer)) else { continue };
            let values = self.values.get(&(figure, peer)).map_or(&[][..], Vec::as_slice);
            let least = values.iter().copied().reduce(f64::min);
            let most = values.iter().copied().reduce(f64::max);
            let span = least.zip(most).map_or("–".into(), |(least, most)| {
                format!("{} … {}", number(Some(least)), number(Some(most)))
            });
            let by_pump = self.ratio(figure, peer, PUMP).filter(|_| peer != PUMP);
            let postern_by = self.ratio(figure, POSTERN, peer).filter(|_| peer != POSTERN);
            let _ = writeln!(
                text,
                "  {:<10}{:>10}{:>20}{:>10}{:>14}{:>9}{:>8}",
                peer,
                number(self.median(figure, peer)),
                span,
                number(by_pump),
                number(postern_by),
                count.done,
                count.failed
            );
        }
        for judged in self.judged(figure) {
            let verdict = match judged.met {
                Some(true) => "met",
                Some(false) => "NOT MET",
                None => "not measured",
            };
            let _ = writeln!(text, "  limit: {}: {}: {verdict}", judged.limit, number(judged.found));
        }
    }

    /// The same as one JSON object.
    pub fn json(&self) -> serde_json::Value {
        let figures: Vec<FigureJson> = self
            .works()
            .flat_map(|work| work.figures().iter().map(move |&figure| (work, figure)))
            .map(|(work, figure)| FigureJson {
                figure,
                title: figure.title(),
                unit: figure.unit(),
                peers: self
                    .peers
                    .iter()
                    .filter(|&&peer| self.counts.contains_key(&(work, peer)))
                    .map(|&peer| (peer, self.peer_json(figure, peer)))
                    .collect(),
                limits: self.judged(figure),
            })
            .collect();
        let counts: Vec<CountJson<'_>> = self
            .counts
            .iter()
            .map(|(&(work, peer), count)| CountJson {
                work,
                peer,
                done: count.done,
                failed: count.failed,
                errors: &count.errors,
            })
            .collect();
        serde_json::json!({
            "circumstances": self.circumstances,
            "figures": figures,
            "counts": counts,
            "failed": self.failures(),
        })
    }

    fn peer_json(&self, figure: Figure, peer: &'static str) -> PeerJson {
        PeerJson {
            median: self.median(figure, peer),
            rounds: self.values.get(&(figure, peer)).cloned().unwrap_or_default(),
            by_pump: self.ratio(figure, peer, PUMP),
            postern_by_this: self.ratio(figure, POSTERN, peer),
        }
    }
}

/// Three significant digits or so; a dash for what is not known.
fn number(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(value: f64) -> Outcome {
        let tally = Tally { done: 10, ..Tally::default() };
        Outcome { values: vec![(Figure::LoginFull, value)], tally }
    }

    #[test]
    fn ratios_are_of_medians_and_failures_are_counted() {
        let mut report = Report::default();
        for value in [1.0, 9.0, 2.0] {
            report.add(Work::LoginFull, PUMP, Ok(outcome(value)));
        }
        for value in [3.0, 2.5, 2.0] {
            report.add(Work::LoginFull, POSTERN, Ok(outcome(value)));
        }
        report.add(Work::LoginFull, "nginx", Err(anyhow::anyhow!("does not serve")));
        assert_eq!(report.ratio(Figure::LoginFull, POSTERN, PUMP), Some(1.25));
        assert_eq!(report.failures(), 1);
        let text = report.text();
        assert!(text.contains("limit: at most 1.30 × pump: 1.25: met"), "{text}");
        assert!(text.contains("limit: at most 0.70 × nginx: –: not measured"), "{text}");
        assert!(text.contains("does not serve"), "{text}");
        assert_eq!(report.json()["figures"][0]["peers"]["postern"]["median"], 2.5);
        assert_eq!(report.json()["failed"], 1);
    }
}
