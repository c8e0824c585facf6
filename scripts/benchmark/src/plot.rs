// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The report as a picture: the distribution of costs, and the parties of instructions.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    ChartBuilder, ChartContext, Color, DrawingArea, IntoDrawingArea, LineSeries, PathElement, RGBColor,
    Rectangle, SVGBackend, SeriesLabelPosition, WHITE,
};
use plotters::style::{BLACK, FontTransform, IntoFont};

use crate::figures::{Figures, Report};
use crate::measure::Latencies;
use crate::statistics::{as_f64, rank};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), Box<dyn Error>>;

const SIZE: (u32, u32) = (1200, 1000);
const FONT: &str = "sans-serif";

/// A palette for colour-blind readers (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

fn colour(place: usize) -> RGBColor {
    COLOURS.into_iter().cycle().nth(place).unwrap_or(BLACK)
}

/// Draws the report to an SVG file.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn svg(path: &Path, report: &Report, latencies: &Latencies) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (top, bottom) = root.split_vertically(SIZE.1 * 2 / 5);
    let (left, right) = top.split_horizontally(SIZE.0 / 2);
    for (area, workload) in [(left, "i2c_read"), (right, "gpio_get")] {
        distribution(&area, workload, &report.unit, latencies)?;
    }
    places(&bottom, report)?;
    Ok(root.present()?)
}

/// Draws the cumulative distribution of the costs of a workload.
fn distribution(area: &Area<'_>, workload: &str, unit: &str, latencies: &Latencies) -> Drawn {
    let of: Vec<(&str, Vec<(f64, f64)>)> = latencies
        .iter()
        .filter(|((name, _), _)| *name == workload)
        .map(|((_, contender), costs)| (*contender, curve(costs)))
        .collect();
    let most = of.iter().flat_map(|(_, curve)| curve).map(|(cost, _)| *cost).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{workload}: requests that cost at most"), (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..most * 1.05, 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc(unit)
        .y_desc("%")
        .x_label_formatter(&thousands)
        .light_line_style(WHITE)
        .draw()?;
    for (place, (contender, curve)) in of.into_iter().enumerate() {
        let colour = colour(place);
        chart
            .draw_series(LineSeries::new(curve, colour.stroke_width(2)))?
            .label(contender)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    legend(&mut chart)
}

/// Returns the distribution up to 99.9 %: a single request with a timer interrupt would compress the rest.
fn curve(costs: &[u64]) -> Vec<(f64, f64)> {
    let mut sorted = costs.to_vec();
    sorted.sort_unstable();
    let point = |per_mille: u32| {
        let cost = rank(&sorted, usize::try_from(per_mille).ok()?)?;
        Some((as_f64(cost), f64::from(per_mille) / 10.0))
    };
    (1..=999).filter_map(point).collect()
}

/// Draws a bar for each workload and contender: the instructions of a request by party.
fn places(area: &Area<'_>, report: &Report) -> Drawn {
    let bars: Vec<_> = report
        .workloads
        .iter()
        .flat_map(|(workload, of)| of.iter().map(move |(contender, figures)| (workload, contender, figures)))
        .collect();
    let most = bars.iter().map(|(_, _, figures)| figures.places.outside_guest() + figures.places.guest);
    let most = most.fold(1.0, f64::max);
    let count = f64::from(u32::try_from(bars.len())?);
    let mut chart = ChartBuilder::on(area)
        .caption("Where the instructions of a request go", (FONT, 18))
        .margin(12)
        .margin_left(200)
        .x_label_area_size(40)
        .build_cartesian_2d(0.0..most * 1.02, count..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc("instructions")
        .x_label_formatter(&thousands)
        .light_line_style(WHITE)
        .draw()?;
    let figures: Vec<&Figures> = bars.iter().map(|(_, _, figures)| *figures).collect();
    for part in 0..COLOURS.len() {
        let (name, boxes) = boxes(&figures, part);
        chart
            .draw_series(boxes)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour(part).filled()));
    }
    legend(&mut chart)?;
    let titles = bars.iter().map(|(workload, contender, _)| format!("{workload}, {contender}"));
    names(area, &chart.plotting_area().get_pixel_range().1, titles)
}

/// Returns the rectangles of one part of all bars, and the name of the part.
fn boxes(bars: &[&Figures], part: usize) -> (&'static str, Vec<Rectangle<(f64, f64)>>) {
    let mut name = "";
    let mut boxes = Vec::new();
    for (figures, top) in bars.iter().zip(0_u32..) {
        let named = figures.places.named();
        let before: f64 = named.iter().take(part).map(|(_, value)| value).sum();
        let Some((label, value)) = named.get(part) else { continue };
        name = label;
        let corners = [(before, f64::from(top) + 0.12), (before + value, f64::from(top) + 0.88)];
        boxes.push(Rectangle::new(corners, colour(part).filled()));
    }
    (name, boxes)
}

fn thousands(value: &f64) -> String {
    format!("{:.0}k", value / 1000.0)
}

fn legend(chart: &mut Chart<'_>) -> Drawn {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    Ok(())
}

/// Writes a name left of each bar.
fn names(
    area: &Area<'_>,
    rows: &std::ops::Range<i32>,
    names: impl ExactSizeIterator<Item = String>,
) -> Drawn {
    let (top, bottom) = (rows.start.min(rows.end), rows.start.max(rows.end));
    let count = i32::try_from(names.len())?.max(1);
    let (_, offset) = area.get_base_pixel();
    let style = (FONT, 13).into_font().transform(FontTransform::None).color(&BLACK);
    for (name, place) in names.zip(0_i32..) {
        let height = bottom - top;
        let y = top - offset + height * place / count + height / count / 2 - 7;
        area.draw_text(&name, &style, (14, y))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_at_the_999th_of_1000_requests() {
        let costs: Vec<u64> = (1..=2000).collect();
        let curve = curve(&costs);
        assert_eq!(curve.first(), Some(&(2.0, 0.1)));
        assert_eq!(curve.last(), Some(&(1998.0, 99.9)));
    }

    #[test]
    fn an_empty_report_is_an_empty_picture() {
        let path = std::env::temp_dir().join(format!("plot-{}.svg", std::process::id()));
        svg(&path, &Report::default(), &Latencies::default()).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("<svg"));
        std::fs::remove_file(path).unwrap();
    }
}
