//! The chart: a panel for each of the main figures, a bar for each peer.

use std::path::Path;

use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Text};

use crate::Result;
use crate::machine::{description, today};
use crate::report::{Row, short};

/// What a panel shows.
struct Panel {
    title: &'static str,
    case: &'static str,
    size: usize,
    /// The limit of that case, and what it is called here.
    limit: Option<(&'static str, &'static str)>,
    unit: &'static str,
    /// Units of the rows in one of that.
    scale: f64,
    better: Better,
}

#[derive(Clone, Copy, PartialEq)]
enum Better {
    More,
    Less,
}

const PANELS: [Panel; 5] = [
    Panel {
        title: "Stream of 64 B messages",
        case: "stream",
        size: 64,
        limit: None,
        unit: "million messages/s",
        scale: 1.0,
        better: Better::More,
    },
    Panel {
        title: "Stream of 1 MiB messages",
        case: "large",
        size: 1 << 20,
        limit: Some(("limit_memcpy", "limit: memcpy")),
        unit: "GB/s",
        scale: 1.0,
        better: Better::More,
    },
    Panel {
        title: "Round trip of 64 B, both sides spinning",
        case: "rtt_spin",
        size: 64,
        limit: Some(("limit_cache_line_rtt", "limit: cache line")),
        unit: "ns",
        scale: 1.0,
        better: Better::Less,
    },
    Panel {
        title: "Round trip of 64 B, both sides sleeping",
        case: "rtt_sleep",
        size: 64,
        limit: None,
        unit: "µs",
        scale: 1e3,
        better: Better::Less,
    },
    Panel {
        title: "Request with a fresh port, 10 replies, close",
        case: "setup",
        size: 0,
        limit: None,
        unit: "µs",
        scale: 1.0,
        better: Better::Less,
    },
];

const WIDTH: usize = 800;
const MARGIN: usize = 20;
const COLUMN: usize = (WIDTH - 3 * MARGIN) / 2;
/// Of a column, what names and figures take beside the bars.
const NAME: usize = 116;
const FIGURE: usize = 46;
const HEADER: usize = 70;
const FOOTER: usize = 58;
const TITLE: usize = 46;
const BAR: usize = 22;

const INK: &str = "#1f2328";
const FAINT: &str = "#59636e";
const OURS: &str = "#0969da";
const OTHERS: &str = "#b7bec6";

/// Draws the panels for which there are figures.
pub fn draw(rows: &[Row], quick: bool, file: &Path) -> Result<()> {
    let mut columns = [HEADER; 2];
    let mut panels = Group::new();
    for panel in &PANELS {
        let bars = panel.bars(rows);
        if bars.is_empty() {
            continue;
        }
        let column = usize::from(columns[1] < columns[0]);
        let place = (MARGIN + column * (COLUMN + MARGIN), columns[column]);
        columns[column] += TITLE + BAR * bars.len() + MARGIN;
        panels = panels.add(panel.draw(&bars, place));
    }
    let foot = columns[0].max(columns[1]);
    if foot == HEADER {
        return Err("none of these cases is in the chart".into());
    }
    let height = foot + FOOTER;
    let chart = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", "-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif")
        .add(Rectangle::new().set("width", WIDTH).set("height", height).set("fill", "#ffffff"))
        .add(header())
        .add(panels)
        .add(footer(foot, quick));
    Ok(svg::save(file, &chart)?)
}

fn header() -> Group {
    let about = "Medians of one run, all by turns, every payload written whole and checked whole. \
                 rtrb and crossbeam-channel: between threads.";
    Group::new()
        .add(text("Messages between two processes", (MARGIN, 32), 19).set("font-weight", "bold"))
        .add(text(about, (MARGIN, 52), 12).set("fill", FAINT))
}

fn footer(top: usize, quick: bool) -> Group {
    let machine = format!("{}, {}", description(), today());
    let quick = if quick { "--quick " } else { "" };
    let command = format!(
        "cargo run --release --manifest-path benches/against/Cargo.toml -- {quick}--chart FILE.svg"
    );
    let rule = Line::new().set("x1", MARGIN).set("x2", WIDTH - MARGIN);
    Group::new()
        .add(rule.set("y1", top).set("y2", top).set("stroke", "#d1d9e0"))
        .add(text(machine, (MARGIN, top + 20), 11).set("fill", FAINT))
        .add(text(command, (MARGIN, top + 38), 11).set("fill", FAINT))
}

fn text(content: impl Into<String>, (x, y): (usize, usize), size: usize) -> Text {
    Text::new(content).set("x", x).set("y", y).set("font-size", size).set("fill", INK)
}

/// A peer in a panel.
struct Bar {
    name: &'static str,
    figure: f64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ours,
    Other,
    Limit,
}

impl Panel {
    /// Ours, the others from the best to the worst, the limit.
    fn bars(&self, rows: &[Row]) -> Vec<Bar> {
        let mut bars: Vec<_> = rows.iter().filter_map(|row| self.bar(row)).collect();
        bars.sort_by(|one, other| {
            let figures = one.figure.total_cmp(&other.figure);
            let figures = if self.better == Better::Less { figures } else { figures.reverse() };
            one.kind.cmp(&other.kind).then(figures)
        });
        bars
    }

    fn bar(&self, row: &Row) -> Option<Bar> {
        let (name, kind) = match (row.peer, self.limit) {
            ("limit", Some((case, name))) if case == row.case => (name, Kind::Limit),
            ("zeroport", _) if self.case == row.case => (row.peer, Kind::Ours),
            // With other options.
            (peer, _) if self.case != row.case || peer.starts_with("zeroport,") => return None,
            (peer, _) => (peer, Kind::Other),
        };
        (row.size == self.size).then(|| Bar { name, figure: row.figure.median / self.scale, kind })
    }

    fn draw(&self, bars: &[Bar], (x, y): (usize, usize)) -> Group {
        let better = if self.better == Better::More { "more" } else { "less" };
        let unit = format!("{}, {better} is better", self.unit);
        let most = bars.iter().map(|bar| bar.figure).fold(0.0, f64::max);
        let mut panel = Group::new()
            .add(text(self.title, (x, y + 16), 14).set("font-weight", "bold"))
            .add(text(unit, (x, y + 33), 12).set("fill", FAINT));
        for (index, bar) in bars.iter().enumerate() {
            panel = panel.add(bar.draw(most, (x, y + TITLE + index * BAR)));
        }
        panel
    }
}

impl Bar {
    fn draw(&self, most: f64, (x, y): (usize, usize)) -> Group {
        let len = ((COLUMN - NAME - FIGURE) as f64 * self.figure / most).max(1.0);
        let shape = Rectangle::new()
            .set("x", x + NAME)
            .set("y", y)
            .set("width", format!("{len:.1}"))
            .set("height", BAR - 6)
            .set("rx", 2);
        let (shape, weight) = match self.kind {
            Kind::Ours => (shape.set("fill", OURS), "bold"),
            Kind::Other => (shape.set("fill", OTHERS), "normal"),
            Kind::Limit => {
                let outline = shape.set("fill", "none").set("stroke", FAINT);
                (outline.set("stroke-dasharray", "3 2"), "normal")
            }
        };
        let figure = (x + NAME + len as usize + 6, y + 12);
        Group::new()
            .add(shape)
            .add(text(self.name, (x, y + 12), 12).set("font-weight", weight))
            .add(text(short(self.figure), figure, 12).set("font-weight", weight))
    }
}
