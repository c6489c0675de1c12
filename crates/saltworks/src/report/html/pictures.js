// The pictures of a stage: pictures/STAGE.json, written while it trains.

const png = (data) => 'data:image/png;base64,' + data;
const list = (value) => (Array.isArray(value) ? value : []);

function picture(data, size, alt, caption) {
  const image = el('img.pixels' + (size > 96 ? '.smooth' : ''), { src: png(data), alt });
  return el('figure.figure', {}, image, caption ? el('figcaption', { title: caption }, caption) : null);
}

const labelOf = (p, label) => (label >= 0 && p.classes && p.classes[label] != null ? p.classes[label] : '');
/** The kind of images shown. */
const shownImages = (p) => (p.held_out === false ? 'training images' : 'held-out images');

function bytes(base64) {
  const text = atob(base64), all = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) all[i] = text.charCodeAt(i);
  return all;
}

/** [rows, columns] of patches, checked: the file may be damaged. */
function gridOf(p) {
  const good = list(p.grid).length === 2 && p.grid.every((n) => Number.isInteger(n) && n > 0 && n <= 1024);
  if (!good) throw new Error(`the grid of patches is ${JSON.stringify(p.grid)}, not two counts`);
  return p.grid;
}

/** A canvas that `paint(context, image, spec)` fills once its image is loaded. */
function canvas(name, size, spec, paint, more = {}) {
  return view(name, (node) => {
    const surface = el('canvas.pixels.smooth', { width: size[0], height: size[1], role: 'img' });
    node.append(surface);
    let last = null, source = null;
    const fillIn = () => guarded(node, () => paint(surface.getContext('2d'), source, node.spec, node));
    node.paint = fillIn;
    more.setup?.(node, surface);
    return (now) => {
      surface.setAttribute('aria-label', now.label || name);
      const key = JSON.stringify([now.png, now.key]);
      if (key === last) return;
      last = key;
      source = new Image();
      source.onload = fillIn;
      source.src = png(now.png);
    };
  }, spec);
}

/** The image with its seen and predicted patches marked. */
function maskPicture(p, i) {
  const [gh, gw] = gridOf(p), unit = 8;
  return canvas('mask ' + i, [gw * unit, gh * unit], { png: p.images[i].png, key: p.masks[i], label: 'mask' }, (c, image, spec) => {
    const orange = getComputedStyle(document.documentElement).getPropertyValue('--c1');
    c.imageSmoothingEnabled = false;
    c.globalAlpha = 1;
    c.drawImage(image, 0, 0, gw * unit, gh * unit);
    [...spec.key].slice(0, gh * gw).forEach((kind, n) => {
      const x = (n % gw) * unit, y = Math.floor(n / gw) * unit;
      if (kind === '0') { c.fillStyle = 'rgba(110,115,125,.92)'; c.fillRect(x, y, unit, unit); }
      if (kind === '2') {
        c.globalAlpha = 0.78; c.fillStyle = orange; c.fillRect(x, y, unit, unit);
        c.globalAlpha = 1; c.strokeStyle = 'rgba(255,255,255,.35)'; c.strokeRect(x + .5, y + .5, unit - 1, unit - 1);
      }
    });
  });
}

function reconstructions(p) {
  const rows = [['original', (i) => picture(p.images[i].png, p.size[0], 'original')]];
  if (p.masks) rows.push(['mask', (i) => maskPicture(p, i)]);
  if (p.reconstructions) {
    for (const key of ['masked', 'predicted', 'composite']) {
      rows.push([key, (i) => picture(p.reconstructions[i][key], p.size[0], key)]);
    }
  }
  if (p.pca) rows.push(['patch PCA', (i) => picture(p.pca[i], gridOf(p)[0], 'first three components of patch tokens')]);
  // Each image is a column, so on a phone only the strip scrolls sideways.
  const strip = el('div.strip', { tabindex: '0', role: 'group', 'aria-label': 'images, one per column', style: `grid-template-columns: 68px repeat(${p.images.length}, minmax(62px, 1fr))` });
  for (const [name, make] of rows) {
    strip.append(el('div.head.small', { style: 'align-self:center' }, name));
    p.images.forEach((_, i) => strip.append(make(i)));
  }
  strip.append(el('div'));
  for (const image of p.images) strip.append(el('div.head.cut', {}, labelOf(p, image.label)));
  const key = (colour, text) => el('span', {}, el('i.key-colour', { style: `background:${colour}` }), text);
  const legend = p.masks ? el('div.legend', {}, el('span', {}, 'mask: plain patches are seen,'), key('var(--c1)', 'these are predicted,'), key('#7a7f89', 'these neither')) : null;
  return el('section.card', {}, el('h3', {}, `${p.reconstructions ? 'Reconstructions' : 'Masks and patch tokens'} of ${shownImages(p)}`), strip, legend,
    p.pca ? el('p.soft.small', {}, 'Patch PCA: the patch tokens’ first three principal components as red, green and blue. All images share one basis, so a colour means the same everywhere.') : null);
}

// Colours of attention: dark blue to yellow in even steps, also in grey (after viridis, Smith and
// van der Walt 2015).
const HEAT = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
function heat(share) {
  const at = Math.max(0, Math.min(1, share)) * (HEAT.length - 1), i = Math.min(HEAT.length - 2, Math.floor(at));
  return HEAT[i].map((v, k) => Math.round(v + (HEAT[i + 1][k] - v) * (at - i)));
}

/** The map of one query over the image in grey. */
function drawAttention(c, p, image, values, query) {
  const [gh, gw] = gridOf(p), { width, height } = c.canvas;
  c.imageSmoothingEnabled = p.size[0] > 96;
  c.globalAlpha = 1;
  c.filter = 'grayscale(1) contrast(.9)';
  c.drawImage(image, 0, 0, width, height);
  c.filter = 'none';
  const uw = width / gw, uh = height / gh;
  for (let n = 0; n < gh * gw; n++) {
    const share = values[n] / 255, [r, g, b] = heat(share);
    c.fillStyle = `rgba(${r},${g},${b},${(0.5 + 0.25 * share).toFixed(3)})`;
    c.fillRect((n % gw) * uw, Math.floor(n / gw) * uh, uw + .5, uh + .5);
  }
  if (query != null) {
    c.strokeStyle = '#fff'; c.lineWidth = 3;
    c.strokeRect((query % gw) * uw + 1.5, Math.floor(query / gw) * uh + 1.5, uw - 3, uh - 3);
  }
}

/** The bytes of one query's map. Without a query: the class token's, of one head or the mean. */
function attended(p, i, head, query) {
  const [gh, gw] = gridOf(p), n = gh * gw, a = p.attention, cls = a.cls ? bytes(a.cls[i]) : null;
  if (query != null || !cls) {
    const patches = bytes(a.patches[i]), at = query ?? n >> 1;
    return patches.subarray(at * n, at * n + n);
  }
  if (head >= 0) return cls.subarray(head * n, head * n + n);
  const heads = Math.floor(cls.length / n), mean = new Float32Array(n);
  for (let k = 0; k < heads * n; k++) mean[k % n] += cls[k] / heads;
  const most = Math.max(1e-9, span(mean)[1]);
  return mean.map((v) => (255 * v) / most);
}

function attentionPicture(p, i, head) {
  const [gh, gw] = gridOf(p), n = gh * gw, size = [224, Math.round((224 * gh) / gw)];
  const words = `attention over image ${i + 1}; arrow keys choose a patch`;
  let query = null;
  const paint = (c, image, spec) => drawAttention(c, spec.p, image, attended(spec.p, i, spec.head, query), query ?? (spec.p.attention.cls ? null : n >> 1));
  const setup = (node, surface) => {
    surface.tabIndex = 0;
    const ask = (patch) => { query = patch; node.paint(); };
    const point = (event) => {
      const box = surface.getBoundingClientRect(), share = (a, b, of) => Math.max(0, Math.min(of - 1, Math.floor((a / b) * of)));
      ask(share(event.clientY - box.top, box.height, gh) * gw + share(event.clientX - box.left, box.width, gw));
    };
    surface.addEventListener('pointermove', (event) => { if (event.pointerType === 'mouse') point(event); });
    surface.addEventListener('pointerdown', point);
    surface.addEventListener('pointerleave', (event) => { if (event.pointerType === 'mouse') ask(null); });
    surface.addEventListener('keydown', (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -gw, ArrowDown: gw }[event.key];
      if (event.key === 'Escape') ask(null);
      if (!by) return;
      event.preventDefault();
      ask(Math.max(0, Math.min(n - 1, (query ?? n >> 1) + by)));
      say(`patch in row ${Math.floor(query / gw) + 1}, column ${(query % gw) + 1} is the query`);
    });
  };
  const picture = canvas('attention ' + i, size, { png: p.images[i].png, key: [p.step, head, i], label: words, p, head }, paint, { setup });
  return el('figure.figure.attends', {}, picture, el('figcaption', {}, labelOf(p, p.images[i].label)));
}

function attention(p) {
  const a = p.attention, [gh, gw] = gridOf(p), n = gh * gw, heads = a.cls ? Math.floor(bytes(a.cls[0]).length / n) : 0;
  const head = Math.min(chosen.head ?? -1, heads - 1);
  const options = [[-1, 'mean of heads'], ...Array.from({ length: Math.min(heads, 64) }, (_, h) => [h, 'head ' + (h + 1)])];
  return el('section.card', {},
    el('div.row.spread', {}, el('h3', {}, 'Attention of the last block'), a.cls ? switcher('head', options, head, 'head of the class token') : null),
    el('p.soft.small', {}, (a.cls ? 'Where the class token looks. ' : '') + 'Point at a patch (or tap it, or use the arrow keys) to see where that patch looks, mean over heads.'),
    el('div.attention', {}, p.images.map((_, i) => attentionPicture(p, i, head))),
    el('div.row.small.soft.heat', {}, el('span', {}, 'none'), el('i', { style: `background:linear-gradient(90deg,${HEAT.map((c) => `rgb(${c})`).join(',')})` }), el('span', {}, 'the most in that map')));
}

function neighbours(p) {
  const rows = p.neighbours.map((entry, i) => el('div.neighbours', {},
    picture(p.images[i].png, p.size[0], 'query', labelOf(p, p.images[i].label)),
    list(entry.near).map((near) => {
      const text = labelOf(p, near.label) || near.similarity.toFixed(2);
      const known = labelOf(p, near.label) && labelOf(p, p.images[i].label), right = near.label === p.images[i].label;
      const figure = picture(near.png, p.size[0], 'neighbour', text);
      figure.title = `${text}, similarity ${near.similarity.toFixed(3)}`;
      if (known) figure.firstChild.style.outline = right ? '2px solid var(--c2)' : '2px dashed var(--c1)';
      return figure;
    })));
  const classes = list(p.classes).length > 0, own = p.held_out === false;
  return el('section.card', {}, el('h3', {}, 'Nearest training images'),
    el('p.soft.small', {}, `${own ? 'An image first, then the others nearest to it' : 'Held-out image first, then its neighbours'} by cosine similarity of mean tokens.${classes ? ' Green: same class; orange, dashed: another.' : ''}`),
    el('div', { style: 'display:grid;gap:12px' }, rows));
}

function embeddingMap(p) {
  const columns = [p.map.x, p.map.y, p.map.label].map(list);
  if (columns.some((column) => column.length !== columns[0].length || !column.every(isNumber))) throw new Error('x, y and label of the map are not three lists of equally many numbers');
  const classes = [...new Set(p.map.label)].sort((a, b) => a - b);
  const hue = (i) => `oklch(${i % 2 ? 0.58 : 0.74} 0.15 ${((360 * i) / classes.length + 20) % 360})`;
  const groups = classes.map((label, i) => ({ name: labelOf(p, label) || 'images', colour: i, fill: classes.length > 7 ? hue(i) : undefined, marker: MARKERS[i % MARKERS.length], points: [] }));
  p.map.label.forEach((label, n) => groups[classes.indexOf(label)].points.push({ x: p.map.x[n], y: p.map.y[n], text: labelOf(p, label) || `image ${n + 1}` }));
  return scatter({ title: `${p.map.x.length} ${shownImages(p)}, ${p.map.kind} of mean tokens`, groups, square: true, size: 3.6, bare: true, keys: 'map ',
    note: classes.length > 1 ? 'Click a class to hide or show it.' : null });
}

/** All pictures of a stage. */
function pictures(p) {
  if (!list(p.images).length) return null;
  return el('div.stack', {},
    part('Pictures', () => reconstructions(p)),
    p.attention ? part('Attention', () => attention(p)) : null,
    p.neighbours || p.map ? el(`div.grid.loose${p.neighbours && p.map ? '.uneven' : ''}`, {}, p.map ? part('Map', () => embeddingMap(p)) : null, p.neighbours ? part('Neighbours', () => neighbours(p)) : null) : null);
}
