//! Curves in a terminal, drawn in braille characters of two by four dots.

use console::{Color, Style};

/// A curve of a plot.
pub struct PlotCurve<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// The colour of its dots and its name.
    pub color: Color,
    /// Points with ascending x. Those that are not finite are not drawn.
    pub points: Vec<(f64, f64)>,
}

/// A plot of curves with its axes.
pub struct Plot<'a> {
    /// The line above it.
    pub title: &'a str,
    /// The curves it shows.
    pub curves: Vec<PlotCurve<'a>>,
    /// The text of a value of y.
    pub format: fn(f64) -> String,
}

/// Marks that distinguish several curves without colours.
const MARKS: [char; 4] = ['●', '○', '×', '+'];
/// Columns for the labels of y.
const LABEL: usize = 8;

impl Plot<'_> {
    /// The lines of a plot with this many columns and rows. Title, axis and legend are among them.
    /// `style` colours them.
    pub fn lines(&self, columns: usize, rows: usize, style: bool) -> Vec<String> {
        let styled = |style_of: Style, text: &str| match style {
            true => style_of.force_styling(true).apply_to(text).to_string(),
            false => text.to_owned(),
        };
        // Without colours, marks distinguish the curves.
        let marked =
            !style && self.curves.iter().filter(|curve| !curve.points.is_empty()).count() > 1;
        let mut lines = vec![styled(Style::new().bold(), self.title)];
        let width = columns.saturating_sub(LABEL + 1).max(2);
        let height = rows.saturating_sub(3).max(2);
        let Some(bounds) = Bounds::of(&self.curves) else {
            lines.push("no point yet".to_owned());
            lines.resize(height + 3, String::new());
            return lines;
        };
        let mut canvas = Canvas::new(width, height);
        for (number, curve) in self.curves.iter().enumerate() {
            canvas.draw(&bounds.dots(&curve.points, 2 * width, 4 * height), number);
        }
        for row in 0..height {
            let label = match row {
                0 => (self.format)(bounds.y[1]),
                _ if row + 1 == height => (self.format)(bounds.y[0]),
                _ => String::new(),
            };
            let mut line = format!("{label:>LABEL$} ");
            for (dots, curve) in canvas.row(row) {
                let braille = char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ');
                line += &match (curve, dots) {
                    (Some(curve), 1..) if marked => MARKS[curve % MARKS.len()].to_string(),
                    (Some(curve), 1..) => {
                        styled(Style::new().fg(self.curves[curve].color), &braille.to_string())
                    }
                    _ => " ".to_owned(),
                };
            }
            lines.push(line);
        }
        let (from, to) = (format!("{:.0}", bounds.x[0]), format!("step {:.0}", bounds.x[1]));
        let from = if from.len() + to.len() < width { from } else { String::new() };
        let gap = width.saturating_sub(from.len() + to.len());
        lines.push(format!("{:LABEL$} {from}{:gap$}{to}", "", ""));
        let names = self.curves.iter().enumerate().filter(|(_, curve)| !curve.points.is_empty());
        let names: Vec<_> = names
            .map(|(number, curve)| {
                let mark = if marked { MARKS[number % MARKS.len()] } else { '⠶' };
                styled(Style::new().fg(curve.color), &format!("{mark} {}", curve.name))
            })
            .collect();
        lines.push(format!("{:LABEL$} {}", "", names.join("  ")));
        // Only the legend may be wider.
        lines.iter().map(|line| console::truncate_str(line, columns, "…").into_owned()).collect()
    }
}

/// The ranges of a plot.
struct Bounds {
    x: [f64; 2],
    y: [f64; 2],
}

impl Bounds {
    /// `None` if there is no point.
    fn of(curves: &[PlotCurve<'_>]) -> Option<Self> {
        let points =
            || curves.iter().flat_map(|curve| &curve.points).filter(|point| is_finite(point));
        let span = |of: fn(&(f64, f64)) -> f64| {
            points().map(of).fold([f64::INFINITY, f64::NEG_INFINITY], |[least, most], value| {
                [least.min(value), most.max(value)]
            })
        };
        let (x, y) = (span(|point| point.0), span(|point| point.1));
        points().next().map(|_| Self { x, y })
    }

    /// The positions of the points on a grid of dots, with y downwards.
    fn dots(&self, points: &[(f64, f64)], width: usize, height: usize) -> Vec<(i64, i64)> {
        let position = |value: f64, [least, most]: [f64; 2], dots: usize| {
            let share = if most > least { (value - least) / (most - least) } else { 0.5 };
            (share * (dots - 1) as f64).round() as i64
        };
        let dot = |&(x, y): &(f64, f64)| {
            (position(x, self.x, width), height as i64 - 1 - position(y, self.y, height))
        };
        points.iter().filter(|point| is_finite(point)).map(dot).collect()
    }
}

fn is_finite(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

/// The dots of each character, and the index of its curve.
struct Canvas {
    width: usize,
    cells: Vec<(u8, Option<usize>)>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, cells: vec![(0, None); width * height] }
    }

    fn row(&self, row: usize) -> impl Iterator<Item = (u8, Option<usize>)> {
        self.cells[row * self.width..(row + 1) * self.width].iter().copied()
    }

    /// A line through all dots.
    fn draw(&mut self, dots: &[(i64, i64)], curve: usize) {
        if let [(x, y)] = dots {
            self.set(*x, *y, curve);
        }
        for pair in dots.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            let steps = (x1 - x0).abs().max((y1 - y0).abs()).max(1);
            for step in 0..=steps {
                let between = |from: i64, to: i64| {
                    from + ((to - from) as f64 * step as f64 / steps as f64).round() as i64
                };
                self.set(between(x0, x1), between(y0, y1), curve);
            }
        }
    }

    fn set(&mut self, x: i64, y: i64, curve: usize) {
        // Unicode's numbers of the dots: the left column, then the right one, downwards.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let (x, y) = (x as usize, y as usize);
        if let Some(cell) = self.cells.get_mut(y / 4 * self.width + x / 2) {
            *cell = (cell.0 | BITS[x % 2][y % 4], Some(curve));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_from_corner_to_corner() {
        let points = (0..=10).map(|x| (f64::from(x), f64::from(x))).collect();
        let curve = PlotCurve { name: "loss", color: Color::Blue, points };
        let plot = Plot { title: "Loss", curves: vec![curve], format: |y| format!("{y:.1}") };
        let lines = plot.lines(LABEL + 1 + 8, 4 + 3, false);
        assert_eq!(lines.len(), 7);
        let drawn: Vec<&str> =
            lines[1..5].iter().map(|line| line[LABEL + 1..].trim_end()).collect();
        assert_eq!(drawn, ["      ⡠⠊", "    ⡠⠊", "  ⡠⠊", "⡠⠊"]);
        assert!(lines[1].starts_with("    10.0 ") && lines[4].starts_with("     0.0 "));
        assert_eq!(lines[5].trim(), "step 10");
        assert_eq!(lines[6].trim(), "⠶ loss");
    }

    #[test]
    fn curves_without_colours_differ_in_their_marks_and_no_line_is_too_wide() {
        let curve =
            |name, y| PlotCurve { name, color: Color::Blue, points: vec![(0.0, y), (9.0, y)] };
        let curves = vec![curve("training loss", 1.0), curve("held-out loss", 2.0)];
        let plot = Plot { title: "loss", curves, format: |y| format!("{y}") };
        let lines = plot.lines(30, 8, false);
        let drawn = lines.join("\n");
        assert!(drawn.contains("●●●") && drawn.contains("○○○"), "{drawn}");
        assert!(lines[7].starts_with("         ● training loss"), "{drawn}");
        for columns in [12, 20, 30] {
            let lines = plot.lines(columns, 8, false);
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{lines:?}");
        }
    }

    #[test]
    fn one_point_no_point_and_no_number_are_drawn_without_a_panic() {
        let plot = |points: Vec<(f64, f64)>| {
            let curve = PlotCurve { name: "x", color: Color::Red, points };
            Plot { title: "t", curves: vec![curve], format: |y| format!("{y}") }.lines(3, 1, true)
        };
        assert_eq!(plot(Vec::new())[1], "no point yet");
        assert_eq!(plot(vec![(f64::NAN, 1.0)])[1], "no point yet");
        assert!(plot(vec![(1.0, 2.0), (2.0, f64::INFINITY)]).len() > 3);
    }
}
