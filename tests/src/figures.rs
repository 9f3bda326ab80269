//! Figures: quantiles, and a table for people beside JSON for programs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};

/// Where the files of a measurement lie, and how its figures are told.
#[derive(Debug, clap::Args)]
pub struct Form {
    /// Where data directories, the database and watched files are made
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    #[arg(long)]
    pub json: bool,
}

impl Form {
    /// A folder that goes when it is dropped.
    pub fn folder(&self) -> anyhow::Result<tempfile::TempDir> {
        tempfile::tempdir_in(&self.folder).with_context(|| format!("making a folder in {}", self.folder.display()))
    }
}

/// Of a set of durations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiles {
    pub min: f64,
    pub median: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    /// In milliseconds, by the nearest rank. All zero for no samples.
    pub fn of(samples: &[Duration]) -> Self {
        let mut sorted: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self { min: at(0.0), median: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// Rows of name, figure and unit, in the order they were added.
#[derive(Debug, Default)]
pub struct Table {
    title: String,
    rows: Vec<(String, Value, &'static str)>,
}

impl Table {
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    pub fn row(&mut self, name: impl Into<String>, figure: impl Into<Value>, unit: &'static str) {
        self.rows.push((name.into(), figure.into(), unit));
    }

    /// On standard output, one form or the other.
    pub fn print(&self, as_json: bool) {
        if as_json {
            let figures: Map<String, Value> =
                self.rows.iter().map(|(name, figure, unit)| (name.clone(), json!({ "figure": figure, "unit": unit }))).collect();
            println!("{}", json!({ "title": self.title, "figures": figures }));
            return;
        }
        println!("{}", self.title);
        let width = self.rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        for (name, figure, unit) in &self.rows {
            println!("  {name:width$}  {:>12} {unit}", shown(figure));
        }
    }
}

fn shown(figure: &Value) -> String {
    match figure {
        Value::Number(number) if number.is_f64() => format!("{:.3}", number.as_f64().unwrap_or(0.0)),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let samples: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let quantiles = Quantiles::of(&samples);
        assert_eq!((quantiles.min, quantiles.median, quantiles.p99, quantiles.max), (1.0, 50.0, 99.0, 100.0));
    }
}
