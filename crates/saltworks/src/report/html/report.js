// The report of one run, and the comparison of several.

const METRICS = [
  ['knn_mean', 'kNN, mean token', 'kNN mean'], ['knn_cls', 'kNN, class token', 'kNN class'],
  ['linear_mean', 'linear, mean token', 'linear mean'], ['linear_cls', 'linear, class token', 'linear class'],
];
const metricName = (key) => METRICS.find(([k]) => k === key)[1];

/** The page's data: window.saltworks = {runs, live}; `update` shows new runs without losing the reader's place. */
let state = { runs: [], live: false };
let drawn = new Map();

function update(runs) {
  state.runs = runs;
  draw();
}

/** Builds the parts whose data or choice changed; the others stay as they are, hover and scroll too. */
function draw() {
  const page = document.getElementById('page');
  const parts = state.runs.length === 1 ? single(state.runs[0]) : comparison(state.runs);
  if (state.runs.length === 1) document.title = `${state.runs[0].name} · saltworks`;
  const wanted = parts.map(([key, depends, build]) => {
    const seen = JSON.stringify(depends);
    const old = drawn.get(key);
    if (old && old.seen === seen) return [key, old];
    return [key, { seen, node: build() }];
  });
  drawn = new Map(wanted);
  const nodes = wanted.map(([, part]) => part.node);
  nodes.forEach((node, i) => { if (page.children[i] !== node) page.insertBefore(node, page.children[i] || null); });
  while (page.children.length > nodes.length) page.lastChild.remove();
}

const main = (...children) => el('main', {}, children);

function single(run) {
  const stage = currentStage(run);
  const light = ({ series, pictures: p, ...rest }) => ({ ...rest, length: series.step.length });
  const base = run.stages.map(light);
  return [
    ['head', [run.name, run.status, run.tags, run.updated, base], () => header(run)],
    ['verdict', [run.table, base, run.status], () => main(verdict(run))],
    ['curves', [chosen.stage, chosen.log, run.status, stage && light(stage), run.table], () => main(curves(run, stage))],
    ['foretell', [chosen.stage, chosen.metric, chosen.start, stage && [stage.probes, stage.fits]], () => main(foretell(run, stage))],
    ['pictures', [chosen.stage, chosen.head, stage && stage.pictures && [stage.pictures.step, stage.name]], () => main(pictureSection(stage))],
    ['about', [run.recipe, run.environment, run.plan, run.table], () => main(about(run))],
  ];
}

/** The stage the reader chose, else the last one that has begun. */
function currentStage(run) {
  const begun = run.stages.filter((s) => s.step > 0 || s.probes.length);
  return begun.find((s) => s.name === chosen.stage) || begun.at(-1);
}

// Header: name, state, progress.

function remaining(run) {
  let left = 0;
  for (const s of run.stages) {
    if (!s.steps) return null;
    const todo = s.steps - s.step;
    if (!todo) continue;
    // A stage that has not begun is taken to be as fast as the last one that has.
    const like = s.step > 0 ? s : run.stages.filter((o) => o.step > 0).at(-1);
    if (!like || !isNumber(like.began) || like.updated <= like.began) return null;
    left += (todo * (like.updated - like.began)) / like.step;
  }
  return left;
}

function header(run) {
  const total = run.stages.reduce((sum, s) => sum + (s.steps || s.step || 0), 0) || 1;
  const bars = run.stages.map((s) => {
    const all = s.steps || Math.max(s.step, 1);
    return el('div', { style: `flex:${all / total} 1 0`, title: `${s.name}: step ${s.step} of ${s.steps || '?'}` },
      el('i', { style: `width:${Math.min(100, (100 * s.step) / all)}%` }));
  });
  const now = currentlyTraining(run), left = run.status === 'training' ? remaining(run) : null;
  const began = Math.min(...run.stages.map((s) => s.began).filter(isNumber));
  const facts = [
    now && run.status !== 'finished' ? `stage ${now.name}, step ${number(now.step, 9)} of ${number(now.steps, 9)}` : null,
    isNumber(left) ? duration(left) + ' left' : null,
    now && now.series.images_per_second.length ? `${number(now.series.images_per_second.at(-1))} images/s` : null,
    Number.isFinite(began) && run.updated ? `trained ${duration(run.updated - began)}` : null,
    run.updated ? 'last word ' + time(run.updated) : null,
  ].filter(Boolean);
  return el('header', {}, el('div.top', {},
    state.live ? el('a.brand', { href: '/' }, '‹ all runs') : el('span.brand', {}, 'saltworks'),
    el('h1', {}, run.name), statusPill(run.status), run.tags.map((t) => el('span.tag', {}, t)), themeButton()),
  el('main', {}, el('div.progress', { role: 'img', 'aria-label': 'progress by stage' }, bars),
    el('p.soft.small', { style: 'margin:2px 0 0' }, facts.join(' · '))));
}

const statusPill = (status) => el(`span.pill.${status}`, {}, el('i'), status);
const currentlyTraining = (run) => run.stages.filter((s) => s.step > 0).at(-1) || run.stages[0];

// Is it learning: a sentence, tiles, the table as dots.

const best = (stage, key = 'knn_mean') => stage && stage.probes.map((p) => p[key]).filter(isNumber).at(-1);
const row = (run, name) => run.table.find((r) => r.features === name);

function verdict(run) {
  const alarms = run.stages.flatMap((s) => s.alarms.map((a) => el('div.alarm', { role: 'alert' },
    el('b', {}, `${s.name}, step ${a.step}: ${a.kind}. `), a.text)));
  const random = row(run, 'random encoder'), pixels = row(run, 'raw pixels');
  const done = run.stages.map((s) => ({ stage: s, row: row(run, s.name) })).filter((d) => d.row);
  const last = currentlyTraining(run);
  const now = (last && row(run, last.name)?.knn_mean) ?? best(last);
  const start = random ? random.knn_mean : last && last.probes[0]?.step === 0 ? last.probes[0].knn_mean : null;
  const sentences = [];
  if (last && isNumber(now)) {
    const gain = isNumber(start) ? 100 * (now - start) : null;
    sentences.push(`The ${last.name}’s frozen features put ${percent(now)} of the held-out images into the right class by kNN` +
      (gain != null ? `, ${Math.abs(gain).toFixed(1)} points ${gain >= 0 ? 'more' : 'fewer'} than a random encoder’s.` : '.'));
    const f = last.fits.find((f) => f.x === 'loss' && f.y === 'knn_mean' && !f.from_start);
    if (f) sentences.push(`Its held-out loss tells ${percent(f.r_squared, 0)} of the change in accuracy (R² ${f.r_squared.toFixed(2)}, ${f.n} probes).`);
  } else if (last && last.probes.length) {
    const p = last.probes.at(-1);
    sentences.push(`No classes to judge by: RankMe ${number(p.rank_me)}, feature std ${number(p.feature_std)}, held-out loss ${number(p.loss)}.`);
  } else sentences.push('No probe yet.');
  const tile = (name, r, lead) => el('div.card.tile' + (lead ? '.lead' : ''), {}, el('div.soft.small', {}, name),
    el('div.value', {}, isNumber(r.knn_mean) ? (100 * r.knn_mean).toFixed(1) : '–', el('span.unit', {}, ' % kNN')),
    el('div.soft.small', {}, isNumber(r.linear_mean) ? `${percent(r.linear_mean)} linear` : ''));
  const tiles = [
    pixels && tile('raw pixels', pixels), random && tile('random encoder', random),
    ...done.map((d, i) => tile(d.stage.name, d.row, i === done.length - 1)),
    ...(last && !row(run, last.name) && last.probes.length ? [tile(`${last.name}, step ${last.probes.at(-1).step}`, last.probes.at(-1), true)] : []),
  ].filter(Boolean);
  return [alarms, el('p.verdict', {}, sentences.join(' ')), el('div.tiles', {}, tiles)];
}

// Curves of one stage.

function stageSwitcher(run, stage) {
  const begun = run.stages.filter((s) => s.step > 0 || s.probes.length);
  return begun.length > 1 ? switcher('stage', begun.map((s) => [s.name, s.name]), stage && stage.name, 'stage') : null;
}

const zip = (xs, ys) => xs.map((x, i) => [x, ys[i]]).filter(([, y]) => isNumber(y));
const probePoints = (stage, key) => zip(stage.probes.map((p) => p.step), stage.probes.map((p) => p[key]));
const logButton = () => el('button', { 'aria-pressed': String(!!chosen.log), onclick: () => choose('log', !chosen.log) }, 'log');
const many = (x) => number(x, 9);
/** A share at an axis: 45 %, 47.5 %. */
const tick = (share) => `${Number((100 * share).toFixed(2))} %`;

function curves(run, stage) {
  if (!stage) return [el('h2', {}, 'Curves'), el('p.soft', {}, 'No step was made yet.')];
  const { series: s } = stage, x = { label: 'step', format: many };
  const train = zip(s.step, s.loss), held = probePoints(stage, 'loss');
  const last = stage.probes.at(-1), few = last && last.train_images ? `By ${many(last.train_images)} training and ${many(last.test_images)} held-out images, so lower than after training, where all are used. Step 0 is untrained.` : null;
  const accuracy = METRICS.map(([key, name], i) => ({ name, colour: i, dash: dash(i), marker: MARKERS[i], points: probePoints(stage, key) }));
  const one = (title, key, name, y = {}, c = 0) => lineChart({ title, x, y, series: [{ name, colour: c, points: zip(s.step, s[key]) }] });
  const probe = (title, list, y = {}) => lineChart({ title, x, y, series: list.map(([key, name], i) => ({ name, colour: i, dash: dash(i), marker: MARKERS[i], points: probePoints(stage, key) })) });
  return [
    el('div.row.spread', { style: 'margin-top:34px' }, el('h2', { style: 'margin:0' }, `Curves of the ${stage.name}`), stageSwitcher(run, stage)),
    el('div.grid', { style: 'margin-top:12px' },
      lineChart({ title: 'Loss', x, y: { log: chosen.log }, extra: logButton(), series: [
        { name: s.width > 1 ? `training, mean of ${s.width} steps and range` : 'training', colour: 0, points: train, band: s.width > 1 ? s.step.map((v, i) => [v, s.loss_min[i], s.loss_max[i]]) : null },
        { name: 'held-out images, fixed masks', colour: 1, marker: 'square', points: held }] }),
      lineChart({ title: 'Accuracy of frozen features', x, y: { format: tick, exact: percent }, note: few, series: accuracy }),
      probe('Directions in use', [['rank_me', 'RankMe'], ['lidar', 'LiDAR']], { min: 0 }),
      probe('Spread of features', [['feature_std', 'feature std (0: collapsed, 1: all directions alike)']], { min: 0 }),
      one('Learning rate', 'lr', 'learning rate', { min: 0 }),
      one('Gradient norm', 'grad_norm', 'L2 norm before clipping', { min: 0 }),
      one('Throughput', 'images_per_second', 'images/s', { min: 0 }),
      one('Waiting for data', 'data_wait_share', 'share of a step', { min: 0, format: percent }))];
}

// Loss against accuracy: what SALT promises.

function foretell(run, stage) {
  if (!stage || stage.probes.length < 2) return [];
  const metric = stage.probes.some((p) => isNumber(p[chosen.metric])) ? chosen.metric : METRICS.map(([k]) => k).find((k) => stage.probes.some((p) => isNumber(p[k])));
  if (!metric) return [];
  const start = !!chosen.start;
  const cards = [['loss', 'Held-out loss'], ['train_loss', 'Training loss since the last probe']].map(([key, name]) => {
    const f = stage.fits.find((f) => f.x === key && f.y === metric && f.from_start === start);
    const points = stage.probes.filter((p) => (start || p.step > 0) && isNumber(p[key]) && isNumber(p[metric]))
      .map((p) => ({ x: p[key], y: p[metric], text: `step ${p.step}: loss ${number(p[key], 4)}, ${percent(p[metric])}` }));
    return scatter({
      title: f ? `${name}: R² ${f.r_squared.toFixed(3)}` : name,
      note: f ? `${f.n} probes; least squares.` : `${points.length} probes: a line needs three that differ.`,
      groups: [{ name: metric, colour: 0, points, fit: f }], x: { label: name.toLowerCase() }, y: { format: tick }, height: 280,
    });
  });
  return [
    el('h2', {}, 'Does the loss foretell accuracy?'),
    el('div.row.spread', { style: 'margin-bottom:10px' },
      switcher('metric', METRICS.filter(([k]) => stage.probes.some((p) => isNumber(p[k]))), metric, 'accuracy'),
      el('button', { 'aria-pressed': String(start), onclick: () => choose('start', !start) }, 'with step 0')),
    el('div.grid', {}, cards),
    el('p.soft.small', {}, 'SALT finds R² of 0.95 to 0.98 for students of one frozen teacher (arXiv 2509.24317). Step 0 precedes learning and lies far off; it is left out unless asked for.')];
}

function pictureSection(stage) {
  if (!stage || !stage.pictures) return [];
  return [el('h2', {}, `What the ${stage.name} sees, step ${stage.pictures.step}`), pictures(stage.pictures)];
}

// Table, recipe, machine.

function table(run) {
  if (!run.table.length) return null;
  const columns = METRICS.filter(([key]) => run.table.some((r) => isNumber(r[key])));
  const most = Object.fromEntries(columns.map(([key]) => [key, Math.max(...run.table.map((r) => r[key] ?? 0))]));
  return el('section.card', {}, el('h3', {}, 'Probes after training: frozen features, held-out images'),
    el('div.scroll', {}, el('table.data', {},
      el('thead', {}, el('tr', {}, el('th', {}, 'features'), columns.map(([, name, short]) => el('th', { title: name }, short)))),
      el('tbody', {}, run.table.map((r) => el('tr', {}, el('td', {}, r.features),
        columns.map(([key]) => el('td', {}, isNumber(r[key]) && r[key] === most[key] ? el('b', {}, percent(r[key])) : percent(r[key])))))))));
}

function facts(run) {
  const e = run.environment || {}, planned = run.plan?.stages || [];
  const rows = [['command', (e.command || []).join(' ')], ['processor', e.cpu], ['threads', e.threads], ['system', [e.os, e.architecture].filter(Boolean).join(' ')],
    ['saltworks', e.saltworks], ['started', e.started_unix_seconds ? time(e.started_unix_seconds) : null], ['folder', run.folder],
    ...planned.map((s) => [s.name, `${number(s.steps, 9)} steps of ${s.batch} images; ${Object.entries(s.parameters || {}).map(([k, v]) => `${k} ${number(v, 9)}`).join(', ')} parameters`])];
  return el('section.card', {}, el('h3', {}, 'Environment'), el('table.data', {}, el('tbody', {}, rows.filter(([, v]) => v != null && v !== '')
    .map(([k, v]) => el('tr', {}, el('td', {}, k), el('td.text', {}, String(v)))))));
}

function about(run) {
  return [el('h2', {}, 'The run'), el('div.grid', {}, table(run), facts(run)),
    el('section.card', { style: 'margin-top:14px' }, el('details', {}, el('summary', {}, 'Recipe'), el('pre', {}, run.recipe))),
    el('footer', {}, 'Made by saltworks from metrics.jsonl, probes.json and pictures/ of the run’s folder.')];
}

// Several runs.

function comparison(runs) {
  const names = [...new Set(runs.flatMap((r) => r.stages.map((s) => s.name)))];
  // The last of those that most runs have.
  const having = (name) => runs.filter((r) => r.stages.some((s) => s.name === name)).length;
  const usual = names.reduce((best, name) => (best && having(best) > having(name) ? best : name), null);
  const stage = names.includes(chosen.stage) ? chosen.stage : usual;
  const of = runs.map((run) => ({ run, stage: run.stages.find((s) => s.name === stage) })).filter((o) => o.stage);
  const light = of.map((o) => [o.run.name, o.stage.step, o.stage.probes.length]);
  return [
    ['compare-head', runs.map((r) => [r.name, r.status]), () => el('header', {}, el('div.top', {}, state.live ? el('a.brand', { href: '/' }, '‹ all runs') : el('span.brand', {}, 'saltworks'), el('h1', {}, `${runs.length} runs compared`), themeButton()))],
    ['compare-curves', [light, stage, chosen.log, chosen.metric], () => main(compareCurves(of, names, stage))],
    ['compare-table', [runs.map((r) => r.table), light], () => main(compareTables(runs))],
    ['compare-recipes', runs.map((r) => r.recipe), () => main(differences(runs))],
  ];
}

function compareCurves(of, names, stage) {
  const x = { label: 'step', format: many };
  const has = (key) => of.some((o) => o.stage.probes.some((p) => isNumber(p[key])));
  const metric = has(chosen.metric) ? chosen.metric : 'knn_mean';
  const each = (points, mark) => of.map((o, i) => ({ name: o.run.name, colour: i, dash: dash(i), marker: mark ? MARKERS[i % 7] : null, points: points(o.stage) }));
  const probe = (title, key, y = {}) => lineChart({ title, x, y, series: each((s) => probePoints(s, key), true) });
  const groups = of.map((o, i) => ({ name: o.run.name, colour: i, marker: MARKERS[i % 7], fit: o.stage.fits.find((f) => f.x === 'loss' && f.y === metric && !f.from_start),
    points: o.stage.probes.filter((p) => p.step > 0 && isNumber(p.loss) && isNumber(p[metric])).map((p) => ({ x: p.loss, y: p[metric], text: `${o.run.name}, step ${p.step}: loss ${number(p.loss, 4)}, ${percent(p[metric])}` })) }));
  return [
    el('div.row.spread', { style: 'margin:20px 0 12px' }, el('h2', { style: 'margin:0' }, `Curves of the ${stage}`), names.length > 1 ? switcher('stage', names.map((n) => [n, n]), stage, 'stage') : null),
    el('div.row', { style: 'margin-bottom:10px' }, switcher('metric', METRICS.filter(([k]) => has(k)), metric, 'accuracy')),
    el('div.grid', {},
      lineChart({ title: 'Training loss', x, y: { log: chosen.log }, extra: logButton(), series: each((s) => zip(s.series.step, s.series.loss)) }),
      probe(`Accuracy: ${metricName(metric)}`, metric, { format: tick, exact: percent }),
      probe('Held-out loss', 'loss', { log: chosen.log }),
      scatter({ title: 'Held-out loss and accuracy', groups, x: { label: 'held-out loss' }, y: { format: tick }, height: 250,
        note: groups.filter((g) => g.fit).map((g) => `${g.name}: R² ${g.fit.r_squared.toFixed(3)}`).join(' · ') }),
      probe('RankMe', 'rank_me', { min: 0 }),
      lineChart({ title: 'Throughput', x, y: { min: 0 }, series: each((s) => zip(s.series.step, s.series.images_per_second)) }))];
}

function compareTables(runs) {
  const columns = METRICS.filter(([key]) => runs.some((r) => r.table.some((t) => isNumber(t[key]))));
  const rows = runs.flatMap((run) => run.stages.map((s) => ({ run, stage: s, r: row(run, s.name) || s.probes.at(-1) }))).filter((o) => o.r);
  return [el('h2', {}, 'Frozen features'), el('section.card.scroll', {}, el('table.data', {},
    el('thead', {}, el('tr', {}, ['run', 'stage', 'step'].map((h) => el('th', {}, h)), columns.map(([, name, short]) => el('th', { title: name }, short)))),
    el('tbody', {}, rows.map((o) => el('tr', {}, el('td', {}, o.run.name), el('td', {}, o.stage.name), el('td', {}, many(o.stage.step)), columns.map(([key]) => el('td', {}, percent(o.r[key]))))))))];
}

/** `section.key = value` lines that are not alike in all recipes. */
function differences(runs) {
  const parsed = runs.map((run) => keys(run.recipe));
  const all = [...new Set(parsed.flatMap((k) => [...k.keys()]))];
  const differ = all.filter((key) => new Set(parsed.map((k) => k.get(key))).size > 1);
  const body = differ.length ? el('div.scroll', {}, el('table.data', {},
    el('thead', {}, el('tr', {}, el('th', {}, 'key'), runs.map((r) => el('th.text', {}, r.name)))),
    el('tbody', {}, differ.map((key) => el('tr', {}, el('td', {}, key), parsed.map((k) => el('td.text', {}, k.get(key) ?? '–'))))))) : el('p.soft', {}, 'The recipes are alike.');
  return [el('h2', {}, 'What differs in the recipes'), el('section.card', {}, body), el('footer', {}, 'Made by saltworks.')];
}

function keys(toml) {
  const found = new Map(), stages = [];
  let section = '';
  for (const line of toml.split('\n')) {
    const table = line.match(/^\s*\[+([^\]]+)\]+/), pair = line.match(/^\s*([\w-]+)\s*=\s*(.*)$/);
    if (table) {
      if (line.trim() === '[[stage]]') stages.push('');
      section = table[1].startsWith('stage') ? table[1].replace(/^stage/, `stage ${stages.length}`) : table[1];
    } else if (pair) found.set((section ? section + '.' : '') + pair[1], pair[2]);
  }
  return found;
}

// A file shows what is in it; while its run goes on it loads itself again, unless nobody looks or the reader is busy.
function begin() {
  const given = window.saltworks || JSON.parse(document.getElementById('data').textContent);
  state = { live: false, ...given };
  draw();
  if (state.live || !state.runs.some((run) => run.status === 'training')) return;
  let touched = 0;
  ['pointermove', 'keydown', 'scroll'].forEach((kind) => addEventListener(kind, () => { touched = Date.now(); }, { passive: true }));
  setInterval(() => { if (document.visibilityState === 'visible' && Date.now() - touched > 5000) location.reload(); }, 30000);
}
