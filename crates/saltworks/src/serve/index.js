// The table of all runs.

const given = JSON.parse(document.getElementById('data').textContent);
let rows = given.rows, { version, epoch, reading, limited } = given, settings = { keys: [], values: {} };

const COLUMNS = [
  { key: 'id', name: 'run', sort: (r) => r.id.toLowerCase() },
  { key: 'status', name: 'state', sort: (r) => ['training', 'stopped', 'unreadable', 'finished'].indexOf(r.status) },
  { key: 'share', name: 'progress', sort: (r) => r.share ?? -1 },
  { key: 'knn', name: 'kNN mean', sort: (r) => accuracy(r, 'knn') ?? -1, down: true },
  { key: 'linear', name: 'linear mean', sort: (r) => accuracy(r, 'linear') ?? -1, down: true },
  { key: 'trace', name: 'kNN mean over training', sort: (r) => r.trace.length },
  { key: 'held_out_loss', name: 'held-out loss', sort: (r) => r.held_out_loss ?? Infinity },
  { key: 'rank_me', name: 'RankMe', sort: (r) => r.rank_me ?? -1, down: true },
  { key: 'images_per_second', name: 'images/s', sort: (r) => r.images_per_second ?? -1, down: true },
  { key: 'updated', name: 'updated', sort: (r) => r.updated ?? 0, down: true },
];

/** An accuracy after training or, before that is known, of the last online probe. */
const accuracy = (r, key) => r['final_' + key] ?? r[key];

const filter = { words: '', status: null, tags: new Set(), picked: new Set(), all: false };
/** The most rows shown at first. */
const SHOWN = 200;

/** Only own keys: a run may be called `constructor`. */
const own = (of, key) => (of && Object.hasOwn(of, key) ? of[key] : undefined);
const settingOf = (r, key) => own(own(settings.values, r.id), key);
/** The columns of the table, with the recipe keys that the reader chose. */
function columns() {
  const more = (chosen.columns || []).filter((key) => settings.keys.includes(key)).map((key) => ({
    key: 'set ' + key, name: key, sort: (r) => { const v = settingOf(r, key); return v == null ? -Infinity : isNaN(v) ? v : Number(v); },
  }));
  return [...COLUMNS.slice(0, -1), ...more, COLUMNS.at(-1)];
}

function wanted(r) {
  const text = [r.id, r.stage, r.status, ...r.tags].join(' ').toLowerCase();
  return filter.words.toLowerCase().split(/\s+/).every((word) => text.includes(word))
    && (!filter.status || r.status === filter.status)
    && [...filter.tags].every((tag) => r.tags.includes(tag));
}

function sorted(of) {
  const column = columns().find((c) => c.key === chosen.sort) || COLUMNS.at(-1);
  const sign = (column.down ? -1 : 1) * (chosen.back ? -1 : 1);
  const order = (a, b) => { const [x, y] = [column.sort(a), column.sort(b)]; return x < y ? -1 : x > y ? 1 : 0; };
  return [...of].sort((a, b) => sign * order(a, b) || (a.id < b.id ? -1 : 1));
}

function ago(unix) {
  if (!isNumber(unix)) return '–';
  const seconds = Date.now() / 1000 - unix;
  return seconds < 5 ? 'now' : duration(seconds) + ' ago';
}

/** The least range of a small curve: less is mostly chance, and should look flat. */
const LEAST_SPAN = 0.1;

function spark(values) {
  const ends = span(values);
  if (values.length < 2 || !ends) return '–';
  const spare = Math.max(0, LEAST_SPAN - (ends[1] - ends[0])) / 2, least = ends[0] - spare, most = ends[1] + spare;
  const words = `online kNN mean: from ${percent(values[0])} to ${percent(values.at(-1))} in ${counted(values.length, 'probe')}, at most ${percent(ends[1])}`;
  const x = (i) => 2 + (86 * i) / (values.length - 1), y = (v) => 20 - (16 * (v - least)) / (most - least);
  const line = svg('polyline', { points: values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(' '), fill: 'none', stroke: 'var(--c0)', 'stroke-width': 2, 'stroke-linejoin': 'round' });
  const end = svg('circle', { cx: x(values.length - 1), cy: y(values.at(-1)), r: 2.5, fill: 'var(--c0)' });
  return svg('svg', { viewBox: '0 0 92 24', width: 92, height: 24, role: 'img', 'aria-label': words }, svg('title', {}, words), line, end);
}

const address = (ids) => '/run?' + ids.map((id) => 'id=' + encodeURIComponent(id)).join('&');

function cell(r, key) {
  switch (key) {
    case 'id': return [
      el('label.pick', {}, el('input', { type: 'checkbox', 'aria-label': `compare ${r.id}`, checked: filter.picked.has(r.id), onchange: (e) => { e.target.checked ? filter.picked.add(r.id) : filter.picked.delete(r.id); draw(); } })),
      el('span', {}, el('a', { href: address([r.id]) }, r.id), r.tags.map((t) => [' ', el('span.tag', {}, t)]),
        r.alarms ? [' ', el('b.warned', { title: 'signs that something goes wrong' }, counted(r.alarms, 'alarm'))] : null,
        r.problem ? el('div.soft.small.why', {}, clamped(r.problem, 48)) : null)];
    case 'status': return el('span', { title: r.problem }, statusPill(r.status));
    case 'share': return el('div.far', {}, el('div.soft.small', {}, r.doing || (r.stage ? `${r.stage} ${thousands(r.step)}${r.steps ? ' / ' + thousands(r.steps) : ''}` : '–')),
      isNumber(r.share) ? el('div.progress', { style: 'margin:2px 0 0' }, el('div', { style: 'flex:1' }, el('i', { style: `width:${100 * Math.min(1, r.share)}%` }))) : null);
    case 'knn': case 'linear': return [percent(accuracy(r, key)), isNumber(r[key]) && !isNumber(r['final_' + key]) ? el('div.soft.small', { title: 'the last probe while training, on some of the images' }, 'online') : null];
    case 'trace': return spark(r.trace);
    case 'held_out_loss': return aligned(r[key], 4);
    case 'rank_me': return aligned(r[key], 1);
    case 'images_per_second': return isNumber(r[key]) ? thousands(r[key]) : '–';
    case 'updated': return ago(r[key]);
    default: return key.startsWith('set ') ? el('span.value', { title: settingOf(r, key.slice(4)) }, settingOf(r, key.slice(4)) ?? '–') : number(r[key]);
  }
}

const missing = (r, key) => (key === 'trace' ? r.trace.length < 2 : key.startsWith('set ') ? settingOf(r, key.slice(4)) == null : !['id', 'status', 'share'].includes(key) && !isNumber(['knn', 'linear'].includes(key) ? accuracy(r, key) : r[key]));

function heading(c) {
  const on = (chosen.sort || 'updated') === c.key, down = !!c.down !== !!chosen.back;
  return el('th', { title: meaning(c.name) || c.name, class: c.key.startsWith('set ') ? 'is-set' : null, 'aria-sort': on ? (down ? 'descending' : 'ascending') : null },
    el('button', { onclick: () => { chosen.back = on && !chosen.back; choose('sort', c.key); } }, c.key.startsWith('set ') ? breakable(c.name) : c.name, on ? (down ? ' ↓' : ' ↑') : ''));
}

function tools() {
  const toggle = (on, act, text, count) => el('button', { 'aria-pressed': String(on), onclick: act }, text, count == null ? '' : ` ${count}`);
  const states = ['training', 'finished', 'stopped', 'unreadable'].map((s) => [s, rows.filter((r) => r.status === s).length]).filter(([, n]) => n);
  if (filter.status && !states.some(([s]) => s === filter.status)) filter.status = null;
  const tags = [...new Set(rows.flatMap((r) => r.tags))].sort();
  const picked = [...filter.picked], many = picked.length > 12;
  return el('div.row', { style: 'margin:14px 0 12px' },
    el('input', { type: 'search', placeholder: 'filter by name, tag, stage', 'aria-label': 'filter', oninput: (e) => { filter.words = e.target.value; draw(); } }),
    el('div.row', { role: 'group', 'aria-label': 'state' }, states.length > 1 ? states.map(([s, n]) => toggle(filter.status === s, () => { filter.status = filter.status === s ? null : s; draw(); }, s, n)) : []),
    el('div.row', { role: 'group', 'aria-label': 'tags' }, tags.slice(0, 60).map((t) => toggle(filter.tags.has(t), () => { filter.tags.has(t) ? filter.tags.delete(t) : filter.tags.add(t); draw(); }, '#' + t))),
    el('a.button', { href: picked.length > 1 && !many ? address(picked) : null, 'aria-disabled': String(picked.length < 2 || many) }, many ? 'at most 12 can be compared' : picked.length > 1 ? `compare ${picked.length} runs` : 'tick runs to compare'),
    settings.keys.length ? el('details.menu', {}, el('summary.button', {}, 'columns'), el('div.card.choices', {}, el('p.soft.small', {}, 'Keys that differ among the recipes:'),
      settings.keys.map((key) => el('label', {}, el('input', { type: 'checkbox', checked: (chosen.columns || []).includes(key), onchange: (e) => choose('columns', e.target.checked ? [...(chosen.columns || []), key] : (chosen.columns || []).filter((k) => k !== key)) }), ' ', key)))) : null,
    el('select.narrow-only', { 'aria-label': 'order', onchange: (e) => { chosen.back = false; choose('sort', e.target.value); } }, columns().map((c) => el('option', { value: c.key, selected: c.key === (chosen.sort || 'updated') }, 'by ' + c.name))));
}

function draw() {
  for (const id of filter.picked) if (!rows.some((r) => r.id === id)) filter.picked.delete(id);
  const found = sorted(rows.filter(wanted)), some = filter.all ? found : found.slice(0, SHOWN), all = columns();
  const training = rows.filter((r) => r.status === 'training').length;
  document.title = (training ? `${training} training · ` : '') + 'saltworks';
  const body = some.map((r) => el('tr', { 'data-key': r.id }, all.map((c) => el('td', { 'data-name': c.name, class: (c.key.startsWith('set ') ? 'is-set' : 'is-' + c.key) + (missing(r, c.key) ? ' none' : '') }, cell(r, c.key)))));
  const empty = reading ? 'The runs are being read.' : rows.length ? 'No run fits the filter.' : 'No runs here yet. Begin one with `saltworks pretrain --out FOLDER`, in a folder below this one.';
  show(document.getElementById('page'), [
    el('header', {}, el('div.top', {}, el('span.brand', {}, 'saltworks'), el('h1', {}, counted(rows.length, 'run')), themeButton())),
    el('main', {}, reading ? el('p', { role: 'status' }, readingWords(reading)) : null,
      limited ? el('p', { role: 'status' }, 'There are more folders than are searched for runs. Serve a folder further down to see all.') : null,
      tools(), el('section.card.runs', {}, found.length
      ? el('div.scroll', {}, el('table.data.pinned', {}, el('thead', {}, el('tr', {}, all.map(heading))), el('tbody', {}, body)))
      : el('p.soft', {}, empty),
    found.length > some.length ? el('p', {}, el('button', { onclick: () => { filter.all = true; draw(); } }, `show ${found.length - some.length} more`)) : null),
    el('details.small.soft.words', {}, el('summary', {}, 'What the columns mean'), ['kNN mean', 'linear mean', 'held-out loss', 'RankMe'].map((word) => el('p', {}, el('b', {}, word), ': ', meaning(word))),
      el('p', {}, 'An accuracy is that after training. Before it is known, it is marked “online”: the last probe while training, on some of the images.')),
    el('footer', {}, 'Updates itself while runs train.'))]);
}

/** Fetches the rows that changed, and removes those of runs that disappeared. */
async function refresh() {
  const news = await fetched(`/api/runs?since=${version}&epoch=${encodeURIComponent(epoch)}`);
  const changed = new Map(news.rows.map((r) => [r.id, r])), before = new Map(rows.map((r) => [r.id, r]));
  rows = news.ids.map((id) => changed.get(id) || before.get(id)).filter(Boolean);
  ({ version, epoch, reading, limited } = news);
  if (!reading && (news.ids.length !== before.size || news.ids.some((id) => !before.has(id)) || !settings.asked)) {
    settings = { asked: true, ...(await fetched('/api/settings')) };
  }
  draw();
}

draw();
setInterval(draw, 10000);
follow('/events', refresh);
