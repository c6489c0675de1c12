// What a model sees: pictures/STAGE.json, taken while the stage trained.

const png = (data) => 'data:image/png;base64,' + data;

function picture(data, size, alt, caption) {
  const image = el('img.pixels' + (size > 96 ? '.smooth' : ''), { src: png(data), alt });
  return el('figure.figure', {}, image, caption ? el('figcaption', { title: caption }, caption) : null);
}

const labelOf = (p, label) => (label >= 0 && p.classes && p.classes[label] != null ? p.classes[label] : '');

function bytes(base64) {
  const text = atob(base64), list = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) list[i] = text.charCodeAt(i);
  return list;
}

/** Which patches are seen and which are predicted, over the image. */
function maskPicture(p, i) {
  const [gh, gw] = p.grid, unit = 8;
  const canvas = el('canvas.pixels.smooth', { width: gw * unit, height: gh * unit, role: 'img', 'aria-label': 'mask' });
  const image = new Image();
  image.onload = () => {
    const c = canvas.getContext('2d');
    const style = getComputedStyle(document.documentElement);
    c.imageSmoothingEnabled = false;
    c.drawImage(image, 0, 0, canvas.width, canvas.height);
    [...p.masks[i]].forEach((kind, n) => {
      const x = (n % gw) * unit, y = Math.floor(n / gw) * unit;
      if (kind === '0') { c.fillStyle = 'rgba(110,115,125,.92)'; c.fillRect(x, y, unit, unit); }
      if (kind === '2') {
        c.globalAlpha = 0.78; c.fillStyle = style.getPropertyValue('--c1'); c.fillRect(x, y, unit, unit);
        c.globalAlpha = 1; c.strokeStyle = 'rgba(255,255,255,.35)'; c.strokeRect(x + .5, y + .5, unit - 1, unit - 1);
      }
    });
  };
  image.src = png(p.images[i].png);
  return el('figure.figure', {}, canvas);
}

function reconstructions(p) {
  const columns = [['original', (i) => picture(p.images[i].png, p.size[0], 'original')]];
  if (p.masks) columns.push(['mask', (i) => maskPicture(p, i)]);
  if (p.reconstructions) {
    for (const key of ['masked', 'predicted', 'composite']) {
      columns.push([key, (i) => picture(p.reconstructions[i][key], p.size[0], key)]);
    }
  }
  if (p.pca) columns.push(['patch PCA', (i) => picture(p.pca[i], p.grid[0], 'first three components of patch tokens')]);
  // One column an image, so that a phone scrolls sideways inside the strip and nowhere else.
  const count = p.images.length;
  const strip = el('div.strip', { style: `grid-template-columns: 68px repeat(${count}, minmax(62px, 1fr))` });
  for (const [name, make] of columns) {
    strip.append(el('div.head.small', { style: 'align-self:center' }, name));
    for (let i = 0; i < count; i++) strip.append(make(i));
  }
  strip.append(el('div'));
  for (const image of p.images) strip.append(el('div.head', { style: 'overflow:hidden;text-overflow:ellipsis;white-space:nowrap' }, labelOf(p, image.label)));
  const legend = p.masks ? el('div.legend', {}, el('span', {}, 'mask: plain patches are seen,'), el('span', {}, el('i', { style: 'width:12px;height:12px;border-radius:3px;background:var(--c1)' }), 'these are predicted,'), el('span', {}, el('i', { style: 'width:12px;height:12px;border-radius:3px;background:#7a7f89' }), 'these neither')) : null;
  return el('section.card', {}, el('h3', {}, p.reconstructions ? 'Reconstructions' : 'Masks and patch tokens'), strip, legend,
    p.pca ? el('p.soft.small', {}, 'Patch PCA: the patch tokens’ first three principal components as red, green and blue; one basis for all images, so that a colour means the same everywhere.') : null);
}

/** The map of one query over the image, brighter where it looks. */
function drawAttention(canvas, p, image, values, query) {
  const [gh, gw] = p.grid, c = canvas.getContext('2d');
  c.imageSmoothingEnabled = p.size[0] > 96;
  c.globalAlpha = 1;
  c.drawImage(image, 0, 0, canvas.width, canvas.height);
  const uw = canvas.width / gw, uh = canvas.height / gh;
  values.forEach((v, n) => {
    c.fillStyle = `rgba(8,10,24,${(0.82 * (1 - v / 255)).toFixed(3)})`;
    c.fillRect((n % gw) * uw, Math.floor(n / gw) * uh, uw + .5, uh + .5);
  });
  if (query != null) {
    c.strokeStyle = '#ffb000'; c.lineWidth = 3;
    c.strokeRect((query % gw) * uw + 1.5, Math.floor(query / gw) * uh + 1.5, uw - 3, uh - 3);
  }
}

function attention(p) {
  const n = p.grid[0] * p.grid[1], a = p.attention, heads = a.heads;
  const head = Math.min(chosen.head ?? -1, heads - 1);
  const cards = p.images.map((image, i) => {
    const canvas = el('canvas', { width: 224, height: Math.round((224 * p.grid[0]) / p.grid[1]), tabindex: '0', role: 'img', 'aria-label': `attention over image ${i + 1}; arrow keys choose a query patch` });
    const patches = bytes(a.patches[i]), cls = a.cls ? bytes(a.cls[i]) : null;
    const source = new Image();
    let query = null;
    const values = () => {
      if (query != null) return patches.subarray(query * n, query * n + n);
      if (!cls) return patches.subarray((n >> 1) * n, (n >> 1) * n + n);
      if (head >= 0) return cls.subarray(head * n, head * n + n);
      const mean = new Float32Array(n);
      for (let h = 0; h < heads; h++) for (let k = 0; k < n; k++) mean[k] += cls[h * n + k] / heads;
      const most = Math.max(...mean, 1e-9);
      return mean.map((v) => (255 * v) / most);
    };
    const paint = () => drawAttention(canvas, p, source, [...values()], query ?? (cls ? null : n >> 1));
    source.onload = paint;
    source.src = png(image.png);
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      const gx = Math.floor(((event.clientX - box.left) / box.width) * p.grid[1]);
      const gy = Math.floor(((event.clientY - box.top) / box.height) * p.grid[0]);
      query = Math.max(0, Math.min(n - 1, gy * p.grid[1] + gx));
      paint();
    };
    canvas.addEventListener('pointermove', point);
    canvas.addEventListener('pointerdown', point);
    canvas.addEventListener('pointerleave', () => { query = null; paint(); });
    canvas.addEventListener('keydown', (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -p.grid[1], ArrowDown: p.grid[1] }[event.key];
      if (event.key === 'Escape') { query = null; paint(); }
      if (!by) return;
      event.preventDefault();
      query = Math.max(0, Math.min(n - 1, (query ?? n >> 1) + by));
      paint();
    });
    return el('figure.figure', {}, canvas, el('figcaption', {}, labelOf(p, image.label)));
  });
  const options = [[-1, 'mean of heads'], ...Array.from({ length: heads }, (_, h) => [h, 'head ' + (h + 1)])];
  return el('section.card', {},
    el('div.row.spread', {}, el('h3', {}, 'Attention of the last block'), a.cls ? switcher('head', options, head, 'head of the class token') : null),
    el('p.soft.small', {}, (a.cls ? 'Where the class token looks. ' : '') + 'Point at a patch (or tap it, or use the arrow keys) to see where that patch looks, mean over heads.'),
    el('div.attention', {}, cards));
}

function neighbours(p) {
  const rows = p.neighbours.map((entry, i) => el('div.neighbours', {},
    picture(p.images[i].png, p.size[0], 'query', labelOf(p, p.images[i].label)),
    entry.near.map((near) => {
      const text = labelOf(p, near.label) || near.similarity.toFixed(2);
      const right = near.label >= 0 && near.label === p.images[i].label;
      const figure = picture(near.png, p.size[0], 'neighbour', text);
      figure.title = `${text}, similarity ${near.similarity.toFixed(3)}`;
      if (near.label >= 0) figure.firstChild.style.outline = right ? '2px solid var(--c2)' : '2px dashed var(--c1)';
      return figure;
    })));
  return el('section.card', {}, el('h3', {}, 'Nearest training images'),
    el('p.soft.small', {}, 'Held-out image first, then its neighbours by cosine similarity of mean tokens. Green: same class; orange, dashed: another.'),
    el('div', { style: 'display:grid;gap:12px' }, rows));
}

function embeddingMap(p) {
  const classes = [...new Set(p.map.label)].sort((a, b) => a - b);
  const hue = (i) => `oklch(${i % 2 ? 0.58 : 0.74} 0.15 ${((360 * i) / classes.length + 20) % 360})`;
  const groups = classes.map((label, i) => ({
    name: labelOf(p, label) || 'images', colour: i, fill: classes.length > 7 ? hue(i) : undefined, marker: MARKERS[i % MARKERS.length],
    points: p.map.x.map((x, n) => ({ x, y: p.map.y[n], label: p.map.label[n], text: labelOf(p, p.map.label[n]) })).filter((q) => q.label === label),
  }));
  const card = scatter({ title: `Held-out images, ${p.map.kind} of mean tokens`, groups, lines: false, square: true, size: 3.6, axes: false });
  if (classes.length > 1) {
    card.append(el('div.legend', {}, groups.slice(0, 24).map((g) => el('span', {}, svg('svg', { width: 14, height: 14, 'aria-hidden': 'true' }, marker(g.marker, 7, 7, g.fill || colour(g.colour), 4)), g.name))));
  }
  return card;
}

/** All pictures of a stage. */
function pictures(p) {
  const parts = [];
  if (p.images) parts.push(reconstructions(p));
  if (p.attention) parts.push(attention(p));
  if (p.neighbours || p.map) {
    parts.push(el('div.grid', {}, p.map ? embeddingMap(p) : null, p.neighbours ? neighbours(p) : null));
  }
  return el('div', { style: 'display:grid;gap:14px' }, parts);
}
