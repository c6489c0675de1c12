// Charts: lines over steps, and scatter plots. Series differ in colour, dash and marker. The colours
// also differ for people who do not see red, green or blue (simulated: Machado et al. 2009).

const DASHES = ['', '7 4', '2 3', '9 3 2 3', '14 4', '1 4', '5 2'];
const MARKERS = ['circle', 'square', 'triangle', 'diamond', 'cross', 'ring', 'bar'];
const colour = (i) => `var(--c${i % 7})`;
// From the eighth series on, a colour comes with another dash and another marker.
const dash = (i) => DASHES[(i + Math.floor(i / 7)) % 7];
const markerOf = (i) => MARKERS[(i + 2 * Math.floor(i / 7)) % 7];

function marker(kind, x, y, fill, size = 4) {
  const at = { fill, stroke: 'var(--card)', 'stroke-width': 1 };
  const path = (d) => svg('path', { d, ...at });
  switch (kind) {
    case 'square': return svg('rect', { x: x - size, y: y - size, width: 2 * size, height: 2 * size, ...at });
    case 'triangle': return path(`M${x} ${y - size - 1}L${x + size + 1} ${y + size}H${x - size - 1}Z`);
    case 'diamond': return path(`M${x} ${y - size - 1.5}L${x + size + 1.5} ${y}L${x} ${y + size + 1.5}L${x - size - 1.5} ${y}Z`);
    case 'cross': return svg('path', { d: `M${x - size} ${y - size}L${x + size} ${y + size}M${x - size} ${y + size}L${x + size} ${y - size}`, stroke: fill, 'stroke-width': 2.5 });
    case 'ring': return svg('circle', { cx: x, cy: y, r: size, fill: 'none', stroke: fill, 'stroke-width': 2 });
    case 'bar': return svg('rect', { x: x - 1.5, y: y - size - 1, width: 3, height: 2 * size + 2, ...at });
    default: return svg('circle', { cx: x, cy: y, r: size, ...at });
  }
}

// Scales.

/** The distance at which about `wanted` round numbers fit between two values. */
function roundStep(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted);
  if (!(raw > 0) || !Number.isFinite(raw)) return null;
  const power = 10 ** Math.floor(Math.log10(raw)), off = (step) => Math.abs(Math.log(step / raw));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).reduce((best, step) => (off(step) < off(best) ? step : best));
}

/** Round numbers between two values, and their distance. */
function ticks(low, high, wanted) {
  const step = roundStep(low, high, wanted);
  if (!step) return { list: [low], step: Math.abs(low) || 1 };
  const list = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && list.length < 50; i++) list.push(i * step);
  return { list, step };
}

function logTicks(low, high, wanted) {
  const list = [], [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  for (let e = first; e <= last; e++) {
    for (const m of [1, 2, 5]) { const t = m * 10 ** e; if (t >= low * 0.999 && t <= high * 1.001) list.push(t); }
  }
  // Within a decade, round numbers are as good.
  if (list.length < 4) return ticks(low, high, wanted);
  const powers = list.filter((t) => /^1/.test(t.toExponential())), each = Math.ceil(powers.length / 7);
  return { list: list.length > 9 && powers.length > 2 ? powers.filter((_, i) => i % each === 0) : list, step: null };
}

/** The text of a tick, with enough digits to differ from its neighbours. */
function tickText(value, step) {
  if (!step) return number(value, 2);
  if (value === 0) return '0';
  const size = Math.abs(value), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (/^2\.5/.test(step.toExponential()) ? 1 : 0));
  if (size >= 1e6 || digits > 5) {
    const power = Math.floor(Math.log10(size));
    return value.toExponential(Math.min(12, Math.max(0, digits + power))).replace('e+', 'e').replace(/(\.\d*?)0+e/, '$1e').replace('.e', 'e');
  }
  return size >= 1000 && digits === 0 ? thousands(value) : value.toFixed(digits);
}
/** The same for shares. */
const tickPercent = (share, step) => `${tickText(100 * share, step && 100 * step)}\u202f%`;

// Beyond these limits differences and products overflow, so such values lie off the axis.
const MOST = 1e300, LEAST_SIZE = 1e-300;

function scale(values, { log, min, max, foot } = {}, pad = 0.05) {
  const good = span(log ? values.filter((v) => v > 0) : values);
  let [low, high] = (good || (log ? [0.1, 1] : [0, 1])).map((v) => Math.max(-MOST, Math.min(MOST, v)));
  if (min != null && !log) low = Math.min(low, min);
  if (max != null) high = Math.max(high, max);
  if (log) {
    [low, high] = [low, high].map((v) => Math.log(Math.max(LEAST_SIZE, v)));
    if (low === high) [low, high] = [low - Math.LN2, high + Math.LN2];
    const room = (high - low) * pad;
    [low, high] = [low - room, high + room].map((v) => Math.max(-705, Math.min(705, v)));
    const whole = high - low;
    return { low: Math.exp(low), high: Math.exp(high), at: (v) => (Math.log(v) - low) / whole, back: (s) => Math.exp(low + s * whole), ticks: (n) => logTicks(Math.exp(low), Math.exp(high), n) };
  }
  if (low === high && pad) { const room = Math.abs(low) * 0.1 || 1; [low, high] = [min != null ? Math.min(low, min) : low - room, high + room]; }
  const room = (high - low) * pad, least = low;
  [low, high] = [min != null ? low : low - room, max != null ? high : high + room];
  // A curve that falls fast lies low for most of its length, so the axis begins with a tick.
  const step = foot && roundStep(low, high, FEW_TICKS);
  if (step) low = Math.floor(least / step + 1e-9) * step;
  const whole = high - low || 1;
  return { low, high, at: (v) => (high === low ? 0.5 : (v - low) / whole), back: (s) => low + s * whole, ticks: (n) => ticks(low, high, n) };
}

const FEW_TICKS = 5;
let areas = 0;

/** Axes, grid and labels, and the positions of data coordinates. */
function frame(width, height, sx, sy, x, y) {
  const wide = sy.ticks(FEW_TICKS), texts = wide.list.map((t) => (y.tick || tickText)(t, wide.step));
  const left = Math.max(34, 14 + 6.6 * Math.max(...texts.map((t) => t.length))), right = 10, top = 10, bottom = 38;
  const w = Math.max(10, width - left - right), h = height - top - bottom;
  // Positions far off the axes are clamped: browsers do not draw them.
  const near = (px) => Math.max(-1e4, Math.min(1e4, px));
  const X = (v) => near(left + sx.at(v) * w), Y = (v) => near(top + (1 - sy.at(v)) * h);
  const root = svg('svg', { class: 'chart', viewBox: `0 0 ${width} ${height}`, width, height, 'aria-hidden': 'true' });
  wide.list.forEach((t, i) => root.append(svg('line', { class: 'grid-line', x1: left, x2: width - right, y1: Y(t), y2: Y(t) }),
    svg('text', { x: left - 8, y: Y(t) + 4, 'text-anchor': 'end' }, texts[i])));
  const along = sx.ticks(width < 420 ? 3 : 6);
  for (const t of along.list) {
    root.append(svg('line', { class: 'axis', x1: X(t), x2: X(t), y1: top + h, y2: top + h + 4 }),
      svg('text', { x: X(t), y: top + h + 17, 'text-anchor': 'middle' }, (x.tick || tickText)(t, along.step)));
  }
  root.append(svg('line', { class: 'axis', x1: left, x2: width - right, y1: top + h, y2: top + h }),
    svg('text', { x: width - right, y: height - 4, 'text-anchor': 'end' }, x.label || ''));
  // Lines are cut at the axes by `area`. Markers lie over it and are whole.
  const id = `area-${areas++}`, area = svg('g', { 'clip-path': `url(#${id})` });
  root.append(svg('clipPath', { id }, svg('rect', { x: left - 1, y: top - 1, width: w + 2, height: h + 2 })), area);
  return { root, area, X, Y, left, right: width - right, top, bottom: top + h, back: (px) => sx.back((px - left) / w) };
}

function swatch(series) {
  const mark = series.marker ? marker(series.marker, 13, 6, colour(series.colour)) : null;
  return svg('svg', { width: 26, height: 12, 'aria-hidden': 'true' },
    svg('line', { x1: 0, x2: 26, y1: 6, y2: 6, stroke: colour(series.colour), 'stroke-width': 2.5, 'stroke-dasharray': series.dash || '' }), mark);
}

/** A debiased exponential mean over points, as in TensorBoard; `weight` is 0 to 1. */
function smoothed(points, weight) {
  let mean = 0, bias = 0;
  return points.map(([x, y]) => {
    mean = weight * mean + (1 - weight) * y;
    bias = weight * bias + (1 - weight);
    return [x, mean / bias];
  });
}

// Only own keys: a run may be called `constructor`.
const hidden = (name) => Object.hasOwn(chosen.hidden || {}, name) && !!chosen.hidden[name];
function toggleSeries(name) { choose('hidden', { ...chosen.hidden, [name]: !hidden(name) }); }

// Charts of the same steps share a cursor and a range.
const linked = new Set();

/**
 * A card with curves.
 * series: [{name, colour, dash, marker, points: [[x, y]], band: [[x, low, high]], rough}]; `rough`
 * ones are smoothed as the reader chose.
 * x: {label, name, tick, exact}.
 * y: {tick, exact, log, min, robust}; a `robust` axis ignores a series that ran away.
 * Charts with the same `link` are zoomed together.
 */
function lineChart(spec) {
  return view('chart ' + spec.title, makeLineChart, spec);
}

function makeLineChart(node) {
  const box = el('div.plot', { tabindex: '0', role: 'img' });
  const state = { node, box, at: null, pinned: false, drag: null };
  let width = 0;
  new ResizeObserver((entries) => {
    const now = Math.round(entries[0].contentRect.width);
    if (now && now !== width) { width = now; guarded(node, () => paint(state, width)); }
  }).observe(box);
  hovering(state);
  linked.add(state);
  return (spec) => {
    state.spec = spec;
    const shown = spec.series.filter((s) => s.points.length && !hidden(s.name)), any = spec.series.some((s) => s.points.length);
    const zoomed = spec.link && chosen.range?.[spec.link];
    const head = el('div.row.spread', {}, el('h3', {}, explained(spec.title)), el('div.row.tools', {}, spec.extra || null,
      zoomed ? el('button', { onclick: () => zoom(spec.link, null) }, 'whole') : null,
      any ? el('button', { title: 'values as CSV', 'aria-label': `${spec.title}: values as CSV`, onclick: () => download(`${spec.title}.csv`, csv(spec)) }, 'csv') : null));
    const below = any ? [el('div.legend', {}, spec.series.filter((s) => s.points.length).map((s) =>
      el('button.key', { 'aria-pressed': String(!hidden(s.name)), title: 'show or hide', onclick: () => toggleSeries(s.name) }, swatch(s), el('span', {}, s.name, ' ', el('b', { title: 'last value' }, lastOf(spec, s))))))]
      : [el('p.soft', {}, spec.empty || 'nothing yet')];
    const notes = [spec.note, outside(spec, shown)].filter(Boolean).map((text) => el('p.soft.small', {}, explained(text)));
    if (!node.firstChild) node.append(el('section.card', {}, head, box, el('div.below')));
    const card = node.firstChild;
    morph(card.firstChild, head);
    box.hidden = !any;
    box.setAttribute('aria-label', `${spec.title}. ${summary(spec)} Arrow keys read values.`);
    morphChildren(card.lastChild, [...below, ...notes]);
    if (width) paint(state, width);
  };
}

const lastOf = (spec, s) => (spec.y?.tick ? spec.y.exact || exactly : (v) => number(v, 4))(s.points.at(-1)[1]);

const summary = (spec) => spec.series.filter((s) => s.points.length).map((s) => {
  const tell = spec.y?.exact || exactly, [low, high] = span(s.points.map((p) => p[1])) || [NaN, NaN];
  return `${s.name}: from ${tell(s.points[0][1])} to ${tell(s.points.at(-1)[1])}, least ${tell(low)}, most ${tell(high)}.`;
}).join(' ');

/** A robust axis ends at this many times the largest value of the median series. */
const FAR = 20;

/** The end of a robust axis if a series ran away: the reach of most series. */
function reach(series, { robust, log } = {}) {
  if (!robust || log || series.length < 2) return Infinity;
  const sizes = series.map((s) => span(s.points.map((p) => Math.abs(p[1])))?.[1]).filter(isNumber).sort((a, b) => a - b);
  const usual = sizes[(sizes.length - 1) >> 1];
  return usual > 0 ? FAR * usual : Infinity;
}

/** A note about values that the axis does not show. */
function outside(spec, shown) {
  if (!spec.y?.log) {
    const end = reach(shown, spec.y);
    const gone = shown.map((s) => [s.name, span(s.points.map((p) => p[1]))?.[1]]).filter(([, most]) => most > end);
    return gone.length ? `Off the axis: ${gone.map(([name, most]) => `${name}, up to ${number(most, 3)}`).join('; ')}.` : null;
  }
  const count = shown.reduce((sum, s) => sum + s.points.filter((p) => !(p[1] > 0)).length, 0);
  return count ? `${count} values at or below 0 are not on a logarithmic axis.` : null;
}

function csv(spec) {
  const xs = [...new Set(spec.series.flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => a - b);
  const quote = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const columns = spec.series.map((s) => new Map(s.points));
  const head = [spec.x?.label || 'step', ...spec.series.map((s) => s.name)].map(quote).join(',');
  return [head, ...xs.map((x) => [x, ...columns.map((c) => c.get(x) ?? '')].join(','))].join('\n') + '\n';
}

function zoom(link, range) { choose('range', { ...chosen.range, [link]: range }); }

function paint(state, width) {
  const { spec, box } = state, height = spec.height || 250, x = spec.x || {}, y = spec.y || {};
  const weight = Number(chosen.smooth) || 0;
  const series = spec.series.filter((s) => s.points.length && !hidden(s.name)).map((s) => ({ ...s, line: s.rough && weight ? smoothed(s.points, weight) : s.points }));
  const range = spec.link && chosen.range?.[spec.link];
  const inside = (v) => !range || (v >= range[0] && v <= range[1]);
  const sx = range ? scale(range, {}, 0) : scale(series.flatMap((s) => s.points.map((p) => p[0])), {}, 0);
  const end = reach(series, y), all = series.flatMap((s) => [...s.points.filter((p) => inside(p[0])).map((p) => p[1]), ...(s.band || []).filter((b) => inside(b[0])).flatMap((b) => [b[1], b[2]])]);
  const f = frame(width, height, sx, scale(all.filter((v) => v <= end), { foot: true, ...y }), x, y), { area } = f;
  const fits = (v) => isNumber(v) && (!y.log || v > 0);
  const line = (s, points, more) => svg('polyline', { points: points.filter((p) => fits(p[1])).map((p) => `${f.X(p[0]).toFixed(1)},${f.Y(p[1]).toFixed(1)}`).join(' '), fill: 'none', stroke: colour(s.colour), 'stroke-width': 2, 'stroke-linejoin': 'round', 'stroke-dasharray': s.dash || '', ...more });
  for (const s of series) {
    const band = (s.band || []).filter((b) => fits(b[1]) && fits(b[2]));
    if (band.length > 1) {
      const up = band.map((b) => `${f.X(b[0])},${f.Y(b[2])}`), down = band.map((b) => `${f.X(b[0])},${f.Y(b[1])}`).reverse();
      area.append(svg('polygon', { points: [...up, ...down].join(' '), fill: colour(s.colour), opacity: .14 }));
    }
    if (s.line !== s.points) area.append(line(s, s.points, { opacity: .25, 'stroke-width': 1.2 }));
    area.append(line(s, s.line));
    const dots = s.marker ? s.points : s.points.length === 1 ? s.points : [];
    for (const p of dots) if (fits(p[1]) && p[1] <= end && inside(p[0])) f.root.append(marker(s.marker || 'circle', f.X(p[0]), f.Y(p[1]), colour(s.colour)));
    // The point at which the line leaves the axis.
    const off = s.points.find((p) => p[1] > end && inside(p[0]));
    if (off) f.root.append(marker('triangle', f.X(off[0]), f.top + 4, colour(s.colour), 5));
  }
  state.cross = svg('line', { class: 'cross', y1: f.top, y2: f.bottom, visibility: 'hidden' });
  state.select = svg('rect', { class: 'select', y: f.top, height: f.bottom - f.top, visibility: 'hidden' });
  f.root.append(state.cross, state.select);
  state.f = f;
  state.series = series;
  state.xs = [...new Set(series.flatMap((s) => s.points.map((p) => p[0])))].filter(inside).sort((a, b) => a - b);
  box.replaceChildren(f.root);
  if (state.at != null) point(state, state.at, tip?.owner === state);
}

/** The index of the number nearest to x among ascending ones. */
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] < x) low = middle; else high = middle; }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

/** The values of the curves at x. */
function readings(state, x) {
  const tell = state.spec.y?.exact || state.spec.y?.tick || exactly;
  return state.series.map((s) => {
    const p = s.points[nearest(s.points.map((q) => q[0]), x)];
    return Math.abs(state.f.X(p[0]) - state.f.X(x)) > 14 ? null : [s.name, tell(p[1])];
  }).filter(Boolean);
}

const atText = (state, x) => `${state.spec.x?.name || 'step'} ${(state.spec.x?.exact || exactly)(x)}`;

/** Shows x by a line in each linked chart, and the values here if they are wanted. */
function point(state, x, tell) {
  state.at = x;
  const draw = (other, value) => {
    if (!other.cross) return;
    const inside = value != null && value >= other.f.back(other.f.left) && value <= other.f.back(other.f.right);
    other.cross.setAttribute('visibility', inside ? 'visible' : 'hidden');
    if (inside) { other.cross.setAttribute('x1', other.f.X(value)); other.cross.setAttribute('x2', other.f.X(value)); }
  };
  for (const other of linked) {
    if (!other.node.isConnected) { linked.delete(other); continue; }
    if (other === state || (other.spec?.link && other.spec.link === state.spec.link)) draw(other, x);
  }
  if (x == null || !tell) return hideTip(state);
  const box = state.box.getBoundingClientRect(), all = readings(state, x), some = all.slice(0, 14);
  const more = all.length > some.length ? el('p.small', {}, `and ${all.length - some.length} more`) : null;
  showTip(box.left + state.f.X(x), state.y ?? box.top + box.height / 2,
    [el('b', {}, atText(state, x)), el('table', {}, some.map(([name, value]) => el('tr', {}, el('td', {}, name), el('td', {}, value)))), more], state);
}

/** Shows values at the pointer, at a tap (until the next one) and by arrow keys. A drag zooms. */
function hovering(state) {
  const { box } = state;
  const px = (event) => event.clientX - box.getBoundingClientRect().left;
  const follow = (event) => {
    if (!state.xs?.length) return;
    state.y = event.clientY;
    point(state, state.xs[nearest(state.xs, state.f.back(px(event)))], true);
  };
  const leave = () => { state.pinned = false; point(state, null); };
  state.again = () => { state.y = null; point(state, state.at, true); };
  box.addEventListener('pointermove', (event) => {
    if (state.drag != null && event.pointerType === 'mouse') {
      const [a, b] = [state.drag, px(event)].sort((p, q) => p - q).map((p) => Math.max(state.f.left, Math.min(state.f.right, p)));
      state.select.setAttribute('x', a); state.select.setAttribute('width', b - a);
      state.select.setAttribute('visibility', b - a > 5 ? 'visible' : 'hidden');
    }
    if (event.pointerType === 'mouse') follow(event);
  });
  box.addEventListener('pointerdown', (event) => {
    if (event.pointerType !== 'mouse') { state.pinned = true; follow(event); } else if (state.spec.link) { state.drag = px(event); box.setPointerCapture(event.pointerId); }
  });
  box.addEventListener('pointerup', (event) => {
    if (state.drag == null) return;
    const [a, b] = [state.drag, px(event)].sort((p, q) => p - q).map((p) => state.f.back(Math.max(state.f.left, Math.min(state.f.right, p))));
    const far = Math.abs(px(event) - state.drag) > 5;
    state.drag = null;
    if (far) zoom(state.spec.link, [a, b]);
  });
  box.addEventListener('dblclick', () => state.spec.link && zoom(state.spec.link, null));
  box.addEventListener('pointerleave', (event) => { if (event.pointerType === 'mouse' && state.drag == null) leave(); });
  addEventListener('pointerdown', (event) => { if (state.pinned && !box.contains(event.target)) leave(); });
  box.addEventListener('blur', leave);
  box.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === 'Escape') leave();
    if (!by || !state.xs?.length) return;
    event.preventDefault();
    const index = state.at == null ? state.xs.length - 1 : nearest(state.xs, state.at) + by;
    const x = state.xs[Math.max(0, Math.min(state.xs.length - 1, index))];
    state.y = null;
    point(state, x, true);
    say(`${atText(state, x)}: ${readings(state, x).map((r) => r.join(' ')).join(', ')}`);
  });
}

/**
 * Points with the line through them. groups: [{name, colour, fill, marker, points: [{x, y, text}],
 * fit}]. `bare` has no axes, `square` is as high as wide, and `keys` adds a legend that shows and
 * hides groups.
 */
function scatter(spec) {
  return view('scatter ' + spec.title, makeScatter, spec);
}

function makeScatter(node) {
  const box = el('div.plot', { tabindex: '0', role: 'img' });
  const state = { node, box, at: -1 };
  let width = 0;
  new ResizeObserver((entries) => {
    const now = Math.round(entries[0].contentRect.width);
    if (now && now !== width) { width = now; guarded(node, () => paintScatter(state, width)); }
  }).observe(box);
  touching(state);
  return (spec) => {
    state.spec = spec;
    const count = spec.groups.reduce((sum, g) => sum + g.points.length, 0);
    const head = el('div.row.spread', {}, el('h3', {}, explained(spec.title)));
    const keys = spec.keys && spec.groups.length > 1 ? el('div.legend', {}, spec.groups.slice(0, 40).map((g) =>
      el('button.key', { 'aria-pressed': String(!hidden(spec.keys + g.name)), title: 'show or hide', onclick: () => toggleSeries(spec.keys + g.name) },
        svg('svg', { width: 14, height: 14, 'aria-hidden': 'true' }, marker(g.marker, 7, 7, g.fill || colour(g.colour), 4)), g.name))) : null;
    if (!node.firstChild) node.append(el('section.card', {}, head, box, el('div.below')));
    const card = node.firstChild;
    morph(card.firstChild, head);
    box.hidden = !count;
    box.setAttribute('aria-label', `${spec.title}: ${count} points. Arrow keys read them.`);
    morphChildren(card.lastChild, [count ? null : el('p.soft', {}, spec.empty || 'nothing yet'), keys, spec.note ? el('p.soft.small', {}, explained(spec.note)) : null].filter(Boolean));
    if (width) paintScatter(state, width);
  };
}

function paintScatter(state, width) {
  const { spec, box } = state, x = spec.x || {}, y = spec.y || {};
  const groups = spec.groups.filter((g) => !hidden((spec.keys || '') + g.name));
  const points = spec.groups.flatMap((g) => g.points), height = spec.square ? Math.min(840, Math.max(260, width)) : spec.height || 280;
  const sx = scale(points.map((p) => p.x), x, 0.06), sy = scale(points.map((p) => p.y), y, 0.08);
  const bare = () => ({ root: svg('svg', { class: 'chart', viewBox: `0 0 ${width} ${height}`, width, height, 'aria-hidden': 'true' }), X: (v) => 8 + sx.at(v) * (width - 16), Y: (v) => 8 + (1 - sy.at(v)) * (height - 16) });
  const f = spec.bare ? bare() : frame(width, height, sx, sy, x, y);
  for (const g of groups) {
    if (g.fit && g.points.length) {
      const [a, b] = span(g.points.map((p) => p.x)), line = (v) => g.fit.intercept + g.fit.slope * v;
      f.area.append(svg('line', { x1: f.X(a), y1: f.Y(line(a)), x2: f.X(b), y2: f.Y(line(b)), stroke: colour(g.colour), 'stroke-width': 1.5, 'stroke-dasharray': '6 4' }));
    }
    for (const p of g.points) f.root.append(marker(g.marker || 'circle', f.X(p.x), f.Y(p.y), g.fill || colour(g.colour), spec.size || 4.5));
  }
  state.ring = svg('circle', { class: 'ring', r: 8, visibility: 'hidden' });
  f.root.append(state.ring);
  state.points = groups.flatMap((g) => g.points.map((p) => ({ x: f.X(p.x), y: f.Y(p.y), text: p.text })));
  box.replaceChildren(f.root);
}

/** Shows a point at the pointer, at a tap and by arrow keys. */
function touching(state) {
  const { box } = state;
  const mark = (index) => {
    state.at = index;
    const point = state.points?.[index];
    state.ring?.setAttribute('visibility', point ? 'visible' : 'hidden');
    if (!point) return hideTip(state);
    state.ring.setAttribute('cx', point.x); state.ring.setAttribute('cy', point.y);
    const at = box.getBoundingClientRect();
    showTip(at.left + point.x, at.top + point.y, point.text, state);
  };
  state.again = () => mark(state.at);
  const near = (event) => {
    const at = box.getBoundingClientRect(), [x, y] = [event.clientX - at.left, event.clientY - at.top];
    let best = -1, least = 26 ** 2;
    (state.points || []).forEach((p, i) => { const d = (p.x - x) ** 2 + (p.y - y) ** 2; if (d < least) [best, least] = [i, d]; });
    mark(best);
  };
  box.addEventListener('pointermove', (event) => { if (event.pointerType === 'mouse') near(event); });
  box.addEventListener('pointerdown', near);
  box.addEventListener('pointerleave', (event) => { if (event.pointerType === 'mouse') mark(-1); });
  box.addEventListener('blur', () => mark(-1));
  box.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === 'Escape') mark(-1);
    if (!by || !state.points?.length) return;
    event.preventDefault();
    mark((state.at + by + state.points.length) % state.points.length);
    say(state.points[state.at].text);
  });
}
