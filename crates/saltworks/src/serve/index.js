// The table of all runs.

const given = JSON.parse(document.getElementById('data').textContent);
let rows = given.rows;

const COLUMNS = [
  { key: 'id', name: 'run', sort: (r) => r.id.toLowerCase() },
  { key: 'status', name: 'state', sort: (r) => ['training', 'stopped', 'unreadable', 'finished'].indexOf(r.status) },
  { key: 'share', name: 'progress', sort: (r) => r.share ?? -1 },
  { key: 'knn', name: 'online kNN', sort: (r) => r.knn ?? -1, down: true },
  { key: 'linear', name: 'online linear', sort: (r) => r.linear ?? -1, down: true },
  { key: 'trace', name: 'over training', sort: (r) => r.trace.length },
  { key: 'held_out_loss', name: 'held-out loss', sort: (r) => r.held_out_loss ?? Infinity },
  { key: 'r_squared', name: 'R²', sort: (r) => r.r_squared ?? -1, down: true },
  { key: 'rank_me', name: 'RankMe', sort: (r) => r.rank_me ?? -1, down: true },
  { key: 'images_per_second', name: 'images/s', sort: (r) => r.images_per_second ?? -1, down: true },
  { key: 'updated', name: 'last word', sort: (r) => r.updated ?? 0, down: true },
];

const filter = { words: '', status: null, tags: new Set(), picked: new Set() };

function wanted(r) {
  const text = [r.id, r.stage, r.status, ...r.tags].join(' ').toLowerCase();
  return filter.words.toLowerCase().split(/\s+/).every((word) => text.includes(word))
    && (!filter.status || r.status === filter.status)
    && [...filter.tags].every((tag) => r.tags.includes(tag));
}

function sorted(list) {
  const column = COLUMNS.find((c) => c.key === chosen.sort) || COLUMNS.at(-1);
  const sign = (column.down ? -1 : 1) * (chosen.back ? -1 : 1);
  const order = (a, b) => { const [x, y] = [column.sort(a), column.sort(b)]; return x < y ? -1 : x > y ? 1 : 0; };
  return [...list].sort((a, b) => sign * order(a, b) || (a.id < b.id ? -1 : 1));
}

function ago(unix) {
  if (!isNumber(unix)) return '–';
  const seconds = Date.now() / 1000 - unix;
  return seconds < 5 ? 'now' : duration(seconds) + ' ago';
}

function spark(values) {
  if (values.length < 2) return '–';
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const x = (i) => 2 + (86 * i) / (values.length - 1), y = (v) => 20 - (16 * (v - least)) / (most - least || 1);
  const line = svg('polyline', { points: values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(' '), fill: 'none', stroke: 'var(--c0)', 'stroke-width': 2, 'stroke-linejoin': 'round' });
  const end = svg('circle', { cx: x(values.length - 1), cy: y(values.at(-1)), r: 2.5, fill: 'var(--c0)' });
  return svg('svg', { viewBox: '0 0 92 24', width: 92, height: 24, role: 'img', 'aria-label': `${values.length} probes` }, line, end);
}

const address = (list) => '/run?' + list.map((id) => 'id=' + encodeURIComponent(id)).join('&');

function cell(r, key) {
  switch (key) {
    case 'id': return [
      el('label.pick', {}, el('input', { type: 'checkbox', 'aria-label': `compare ${r.id}`, checked: filter.picked.has(r.id), onchange: (e) => { e.target.checked ? filter.picked.add(r.id) : filter.picked.delete(r.id); draw(); } })),
      el('span', {}, el('a', { href: address([r.id]) }, r.id), r.tags.map((t) => [' ', el('span.tag', {}, t)]),
        r.alarms ? [' ', el('b.warned', { title: 'signs that something goes wrong' }, r.alarms === 1 ? '1 alarm' : `${r.alarms} alarms`)] : null,
        r.problem ? el('div.soft.small', {}, r.problem) : null)];
    case 'status': return statusPill(r.status);
    case 'share': return el('div.far', {}, el('div.soft.small', {}, r.stage ? `${r.stage} ${number(r.step, 9)}${r.steps ? ' / ' + number(r.steps, 9) : ''}` : '–'),
      isNumber(r.share) ? el('div.progress', { style: 'margin:2px 0 0' }, el('div', { style: 'flex:1' }, el('i', { style: `width:${100 * Math.min(1, r.share)}%` }))) : null);
    case 'knn': case 'linear': return percent(r[key]);
    case 'trace': return spark(r.trace);
    case 'held_out_loss': return number(r[key], 4);
    case 'r_squared': return isNumber(r[key]) ? r[key].toFixed(2) : '–';
    case 'updated': return ago(r[key]);
    default: return number(r[key]);
  }
}

const missing = (r, key) => (key === 'trace' ? r.trace.length < 2 : !['id', 'status', 'share'].includes(key) && !isNumber(r[key]));

function heading(c) {
  const on = (chosen.sort || 'updated') === c.key;
  return el('th', { 'aria-sort': on ? ((!!c.down !== !!chosen.back) ? 'descending' : 'ascending') : null },
    el('button', { onclick: () => { chosen.back = on && !chosen.back; choose('sort', c.key); } }, c.name, on ? ((!!c.down !== !!chosen.back) ? ' ↓' : ' ↑') : ''));
}

const tools = {};
function buildTools() {
  tools.search = el('input', { type: 'search', placeholder: 'filter by name, tag, stage', 'aria-label': 'filter', oninput: (e) => { filter.words = e.target.value; draw(); } });
  tools.states = el('div.row', { role: 'group', 'aria-label': 'state' });
  tools.tags = el('div.row', { role: 'group', 'aria-label': 'tags' });
  tools.compare = el('a.button', {}, '');
  tools.head = el('header', {}, el('div.top', {}, el('span.brand', {}, 'saltworks'), tools.title = el('h1', {}, ''), themeButton()));
  tools.bar = el('div.row', { style: 'margin:14px 0 12px' }, tools.search, tools.states, tools.tags, tools.compare);
  tools.sort = el('select', { 'aria-label': 'order', onchange: (e) => { chosen.back = false; choose('sort', e.target.value); } }, COLUMNS.map((c) => el('option', { value: c.key, selected: c.key === (chosen.sort || 'updated') }, 'by ' + c.name)));
  tools.bar.append(tools.sort);
  tools.sort.className = 'narrow-only';
  tools.table = el('section.card.runs');
  document.getElementById('page').append(tools.head, el('main', {}, tools.bar, tools.table, el('footer', {}, 'Updates itself while runs train.')));
}

function draw() {
  const toggle = (set, value, text, count) => el('button', { 'aria-pressed': String(set), onclick: value }, text, count == null ? '' : ` ${count}`);
  const states = ['training', 'finished', 'stopped', 'unreadable'].map((s) => [s, rows.filter((r) => r.status === s).length]).filter(([, n]) => n);
  if (filter.status && !states.some(([s]) => s === filter.status)) filter.status = null;
  tools.states.replaceChildren(...(states.length > 1 ? states.map(([s, n]) => toggle(filter.status === s, () => { filter.status = filter.status === s ? null : s; draw(); }, s, n)) : []));
  const tags = [...new Set(rows.flatMap((r) => r.tags))].sort();
  tools.tags.replaceChildren(...tags.map((t) => toggle(filter.tags.has(t), () => { filter.tags.has(t) ? filter.tags.delete(t) : filter.tags.add(t); draw(); }, '#' + t)));
  for (const id of filter.picked) if (!rows.some((r) => r.id === id)) filter.picked.delete(id);
  const picked = [...filter.picked], list = sorted(rows.filter(wanted));
  tools.compare.textContent = picked.length > 12 ? 'at most 12 can be compared' : picked.length > 1 ? `compare ${picked.length} runs` : 'tick runs to compare';
  tools.compare.setAttribute('aria-disabled', String(picked.length < 2 || picked.length > 12));
  if (picked.length >= 2 && picked.length <= 12) tools.compare.href = address(picked); else tools.compare.removeAttribute('href');
  tools.title.textContent = rows.length === 1 ? '1 run' : `${rows.length} runs`;
  const training = rows.filter((r) => r.status === 'training').length;
  document.title = (training ? `${training} training · ` : '') + 'saltworks';
  const body = list.map((r) => el('tr', {}, COLUMNS.map((c) => el('td', { 'data-name': c.name, class: 'is-' + c.key + (missing(r, c.key) ? ' none' : '') }, cell(r, c.key)))));
  const empty = rows.length ? 'No run fits the filter.' : 'No runs here yet. `saltworks pretrain --out` a folder below this one begins one.';
  const focus = document.activeElement?.getAttribute('aria-label');
  tools.table.replaceChildren(list.length
    ? el('div.scroll', {}, el('table.data', {}, el('thead', {}, el('tr', {}, COLUMNS.map(heading))), el('tbody', {}, body)))
    : el('p.soft', {}, empty));
  if (focus) [...tools.table.querySelectorAll('[aria-label]')].find((node) => node.getAttribute('aria-label') === focus)?.focus();
}

buildTools();
draw();
follow('/events', async () => { rows = await fetched('/api/runs'); draw(); });
