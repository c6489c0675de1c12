// Charts: lines over steps, points against points. Series are told apart by colour, dash and marker.

const DASHES = ['', '7 4', '2 3', '9 3 2 3', '12 4', '1 4', '5 2'];
const MARKERS = ['circle', 'square', 'triangle', 'diamond', 'cross', 'ring', 'bar'];
const colour = (i) => `var(--c${i % 7})`;
const dash = (i) => DASHES[i % DASHES.length];

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

/** Round numbers from `low` to `high`, about `count` of them. */
function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999) || power;
  const list = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) list.push(Math.abs(t) < step * 1e-9 ? 0 : t);
  return list;
}
function logTicks(low, high) {
  const list = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const m of [1, 2, 5]) { const t = m * 10 ** e; if (t >= low * 0.999 && t <= high * 1.001) list.push(t); }
  }
  return list.length >= 2 ? (list.length > 7 ? list.filter((t) => /^1/.test(t.toExponential())) : list) : ticks(low, high, 4);
}

function scale(values, { log, min, max } = {}, pad = 0.05) {
  const good = values.filter((v) => isNumber(v) && (!log || v > 0));
  if (min != null) good.push(min);
  if (max != null) good.push(max);
  let low = Math.min(...good), high = Math.max(...good);
  if (!good.length) [low, high] = [log ? 0.1 : 0, 1];
  if (log) {
    if (low === high) [low, high] = [low / 2, high * 2];
    const room = (high / low) ** pad;
    [low, high] = [low / room, high * room];
    const span = Math.log(high / low);
    return { low, high, at: (v) => Math.log(Math.max(v, low / 10) / low) / span, ticks: () => logTicks(low, high) };
  }
  if (low === high) { const room = Math.abs(low) * 0.1 || 1; [low, high] = [low - room, high + room]; }
  const room = (high - low) * pad;
  [low, high] = [min != null ? low : low - room, max != null ? high : high + room];
  return { low, high, at: (v) => (v - low) / (high - low), ticks: (n) => ticks(low, high, n) };
}

/** Axes, grid and labels; where data coordinates lie. */
function frame(width, height, sx, sy, x, y) {
  const left = 50, right = 10, top = 10, bottom = 38;
  const w = width - left - right, h = height - top - bottom;
  const X = (v) => left + sx.at(v) * w, Y = (v) => top + (1 - sy.at(v)) * h;
  const root = svg('svg', { class: 'chart', viewBox: `0 0 ${width} ${height}`, height, role: 'img' });
  for (const t of sy.ticks(5)) {
    root.append(svg('line', { class: 'grid-line', x1: left, x2: width - right, y1: Y(t), y2: Y(t) }),
      svg('text', { x: left - 8, y: Y(t) + 4, 'text-anchor': 'end' }, (y.format || number)(t)));
  }
  for (const t of sx.ticks(width < 420 ? 4 : 7)) {
    root.append(svg('line', { class: 'axis', x1: X(t), x2: X(t), y1: top + h, y2: top + h + 4 }),
      svg('text', { x: X(t), y: top + h + 17, 'text-anchor': 'middle' }, (x.format || number)(t)));
  }
  root.append(svg('line', { class: 'axis', x1: left, x2: width - right, y1: top + h, y2: top + h }),
    svg('text', { x: width - right, y: height - 4, 'text-anchor': 'end' }, x.label || ''));
  return { root, X, Y, left, right: width - right, top, bottom: top + h };
}

/** Draws again where the width changes. */
function responsive(drawAt) {
  const box = el('div', { style: 'min-height:40px' });
  let last = 0;
  new ResizeObserver((entries) => {
    const width = Math.round(entries[0].contentRect.width);
    if (width && width !== last) { last = width; box.replaceChildren(drawAt(width)); }
  }).observe(box);
  return box;
}

function swatch(series) {
  const mark = series.marker ? marker(series.marker, 13, 6, colour(series.colour)) : null;
  return svg('svg', { width: 26, height: 12, 'aria-hidden': 'true' },
    svg('line', { x1: 0, x2: 26, y1: 6, y2: 6, stroke: colour(series.colour), 'stroke-width': 2.5, 'stroke-dasharray': series.dash || '' }), mark);
}

/**
 * A card with curves. series: [{name, colour, dash, marker, points: [[x, y]], band: [[x, low, high]]}];
 * x, y: {label, format, log, min, max}.
 */
function lineChart({ title, note, series, x = {}, y = {}, extra, height = 250 }) {
  const shown = series.filter((s) => s.points.length);
  const card = el('section.card', {}, el('div.row.spread', {}, el('h3', {}, title), extra || null));
  if (!shown.length) { card.append(el('p.soft', {}, 'nothing yet')); return card; }
  const sx = scale(shown.flatMap((s) => s.points.map((p) => p[0])), x, 0);
  const ys = shown.flatMap((s) => [...s.points.map((p) => p[1]), ...(s.band || []).flatMap((b) => [b[1], b[2]])]);
  const sy = scale(ys, y);
  card.append(responsive((width) => {
    const f = frame(width, height, sx, sy, { format: number, ...x }, y);
    f.root.setAttribute('aria-label', `${title}: ${shown.map((s) => s.name).join(', ')}`);
    for (const s of shown) {
      if (s.band && s.band.length > 1) {
        const up = s.band.map((b) => `${f.X(b[0])},${f.Y(b[2])}`), down = s.band.map((b) => `${f.X(b[0])},${f.Y(b[1])}`).reverse();
        f.root.append(svg('polygon', { points: [...up, ...down].join(' '), fill: colour(s.colour), opacity: .14 }));
      }
      f.root.append(svg('polyline', { points: s.points.map((p) => `${f.X(p[0]).toFixed(1)},${f.Y(p[1]).toFixed(1)}`).join(' '), fill: 'none', stroke: colour(s.colour), 'stroke-width': 2, 'stroke-linejoin': 'round', 'stroke-dasharray': s.dash || '' }));
      if (s.marker) for (const p of s.points) f.root.append(marker(s.marker, f.X(p[0]), f.Y(p[1]), colour(s.colour)));
    }
    hover(f, shown, x, y);
    return f.root;
  }));
  card.append(el('div.legend', {}, shown.map((s) => el('span', {}, swatch(s), s.name))));
  if (note) card.append(el('p.soft.small', {}, note));
  return card;
}

/** A crosshair with the values there: by pointer, by touch, and by the arrow keys. */
function hover(f, series, x, y) {
  const all = [...new Set(series.flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => a - b);
  const cross = svg('line', { class: 'cross', y1: f.top, y2: f.bottom, visibility: 'hidden' });
  f.root.append(cross);
  let at = all.length - 1;
  const show = (index, clientX, clientY) => {
    at = index;
    const value = all[at];
    cross.setAttribute('x1', f.X(value)); cross.setAttribute('x2', f.X(value)); cross.setAttribute('visibility', 'visible');
    const rows = series.map((s) => {
      const near = s.points.reduce((a, b) => (Math.abs(b[0] - value) < Math.abs(a[0] - value) ? b : a));
      const apart = Math.abs(f.X(near[0]) - f.X(value));
      return apart > 14 ? null : el('tr', {}, el('td', {}, s.name), el('td', {}, (y.exact || y.format || number)(near[1])));
    });
    showTip(clientX, clientY, [el('b', {}, `${x.name || 'step'} ${(x.format || number)(value)}`), el('table', {}, rows)]);
  };
  const leave = () => { hideTip(); cross.setAttribute('visibility', 'hidden'); };
  f.root.addEventListener('pointermove', (event) => {
    const box = f.root.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * f.root.viewBox.baseVal.width;
    let best = 0;
    all.forEach((v, i) => { if (Math.abs(f.X(v) - px) < Math.abs(f.X(all[best]) - px)) best = i; });
    show(best, event.clientX, event.clientY);
  });
  f.root.addEventListener('pointerleave', leave);
  f.root.addEventListener('blur', leave);
  f.root.setAttribute('tabindex', '0');
  f.root.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === 'Escape') leave();
    if (!by) return;
    event.preventDefault();
    const index = Math.max(0, Math.min(all.length - 1, at + by));
    const box = f.root.getBoundingClientRect();
    show(index, box.left + (f.X(all[index]) / f.root.viewBox.baseVal.width) * box.width, box.top + box.height / 2);
  });
}

/** Points with the line through them. groups: [{name, colour, marker, points: [{x, y, text}], fit}]. */
function scatter({ title, note, groups, x = {}, y = {}, extra, height = 320, square = false, lines = true, size = 4.5, axes = true }) {
  const card = el('section.card', {}, title || extra ? el('div.row.spread', {}, el('h3', {}, title || ''), extra || null) : null);
  const points = groups.flatMap((g) => g.points);
  if (!points.length) { card.append(el('p.soft', {}, 'nothing yet')); return card; }
  const sx = scale(points.map((p) => p.x), x, 0.06), sy = scale(points.map((p) => p.y), y, 0.08);
  card.append(responsive((width) => {
    const tall = square ? Math.max(height, width) : height, f = axes ? frame(width, tall, sx, sy, x, y) : bare(width, tall, sx, sy);
    f.root.setAttribute('aria-label', title || '');
    for (const g of groups) {
      if (lines && g.fit) {
        const xs = g.points.map((p) => p.x), [a, b] = [Math.min(...xs), Math.max(...xs)];
        const line = (v) => g.fit.intercept + g.fit.slope * v;
        f.root.append(svg('line', { x1: f.X(a), y1: f.Y(line(a)), x2: f.X(b), y2: f.Y(line(b)), stroke: colour(g.colour), 'stroke-width': 1.5, 'stroke-dasharray': '6 4' }));
      }
      for (const p of g.points) {
        const dot = marker(g.marker || 'circle', f.X(p.x), f.Y(p.y), g.fill || colour(g.colour), size);
        dot.addEventListener('pointerenter', (event) => showTip(event.clientX, event.clientY, p.text));
        dot.addEventListener('pointerleave', hideTip);
        f.root.append(dot);
      }
    }
    return f.root;
  }));
  if (note) card.append(el('p.soft.small', {}, note));
  return card;
}

function bare(width, height, sx, sy) {
  const X = (v) => 8 + sx.at(v) * (width - 16), Y = (v) => 8 + (1 - sy.at(v)) * (height - 16);
  return { root: svg('svg', { class: 'chart', viewBox: `0 0 ${width} ${height}`, height, role: 'img' }), X, Y };
}

/** A small curve without axes. */
function sparkline(values, index = 0, width = 96, height = 24) {
  const good = values.filter(isNumber);
  if (good.length < 2) return el('span.soft', {}, '–');
  const sy = scale(good), step = (width - 4) / (good.length - 1);
  const points = good.map((v, i) => `${(2 + i * step).toFixed(1)},${(height - 3 - sy.at(v) * (height - 6)).toFixed(1)}`);
  return svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' },
    svg('polyline', { points: points.join(' '), fill: 'none', stroke: colour(index), 'stroke-width': 1.8 }));
}
