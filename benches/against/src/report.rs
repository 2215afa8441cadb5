//! What is printed.

use std::io::Write;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::Result;

/// A further figure of a row.
pub type Extra = (&'static str, f64);

/// What a contest found of one peer.
pub struct Row {
    pub case: &'static str,
    pub peer: &'static str,
    pub size: usize,
    pub figure: Spread,
    pub unit: &'static str,
    /// Our figure through this one, of the same turn.
    pub ratio: Option<Spread>,
    pub extras: Vec<Extra>,
}

#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let [median, max] = [values.len() / 2, values.len() - 1].map(|index| values[index]);
        Self { median, min: values[0], max }
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("case", self.case)?;
        map.serialize_entry("peer", self.peer)?;
        map.serialize_entry("size", &self.size)?;
        let Spread { median, min, max } = self.figure;
        for (name, value) in [("median", median), ("min", min), ("max", max)] {
            map.serialize_entry(name, &rounded(value))?;
        }
        map.serialize_entry("unit", self.unit)?;
        if let Some(Spread { median, min, max }) = self.ratio {
            for (name, value) in [("ratio", median), ("ratio_min", min), ("ratio_max", max)] {
                map.serialize_entry(name, &rounded(value))?;
            }
        }
        for (name, value) in &self.extras {
            map.serialize_entry(name, &rounded(*value))?;
        }
        map.end()
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// One object a line.
pub fn print_json(rows: &[Row]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for row in rows {
        writeln!(out, "{}", serde_json::to_string(row)?)?;
    }
    Ok(())
}

/// One line a peer, below the case and its unit. A limit stands in brackets.
pub fn print_table(rows: &[Row]) -> Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let mut out = std::io::stdout().lock();
    let title = format!("{}{}, {}", first.case, size_name(first.size), first.unit);
    writeln!(out, "{title:<36}{:>10}  {:<24}zeroport ÷ it", "median", "(min … max)")?;
    for row in rows {
        writeln!(out, "{}", line(row).trim_end())?;
    }
    Ok(())
}

fn line(row: &Row) -> String {
    let name = if row.peer == "limit" { format!("[{}]", row.case) } else { row.peer.into() };
    let Spread { median, min, max } = row.figure;
    let range = format!("({} … {})", short(min), short(max));
    let ratio = row.ratio.map_or(String::new(), |Spread { median, min, max }| {
        format!("{median:.2} ({min:.2} … {max:.2})")
    });
    let extras = row.extras.iter().map(|(name, value)| format!("  {name} {}", short(*value)));
    format!(
        "  {name:<34}{:>10}  {range:<24}{ratio:<22}{}",
        short(median),
        extras.collect::<String>()
    )
}

/// Three digits or more.
pub fn short(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value if value >= 0.0995 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

pub fn size_name(bytes: usize) -> String {
    match bytes {
        0 => String::new(),
        bytes if bytes >= 1 << 20 => format!(", {} MiB", bytes >> 20),
        bytes if bytes >= 16 << 10 => format!(", {} KiB", bytes >> 10),
        bytes => format!(", {bytes} B"),
    }
}
