// The report of one run, and the comparison of several.

const METRICS = [
  ['knn_mean', 'kNN, mean token', 'kNN mean'], ['knn_cls', 'kNN, class token', 'kNN class'],
  ['linear_mean', 'linear, mean token', 'linear mean'], ['linear_cls', 'linear, class token', 'linear class'],
];
const metricName = (key) => METRICS.find(([k]) => k === key)[1];

/**
 * The page's data: window.saltworks = {runs, live, again}. `update` shows new runs and keeps the
 * reader's choices and scrolling.
 */
let state = { runs: [], live: false };

function update(runs) {
  state.runs = runs;
  draw();
}

function draw() {
  const page = document.getElementById('page');
  if (!state.runs.length) return;
  const one = state.runs.length === 1;
  document.title = `${one ? state.runs[0].name : `${state.runs.length} runs`} · saltworks`;
  show(page, one ? single(state.runs[0]) : comparison(state.runs));
}

function single(run) {
  const stage = currentStage(run);
  return [header(run), el('main', {},
    part('Verdict', () => verdict(run)),
    part('Curves', () => curves(run, stage)),
    part('Loss and accuracy', () => predicts(stage)),
    part('Pictures', () => pictureSection(stage)),
    part('The run', () => about(run)))];
}

const hasBegun = (s) => s.step > 0 || s.probes.length > 0;
/** The stage that the reader chose, or the last one that has begun. */
function currentStage(run) {
  const begun = run.stages.filter(hasBegun);
  return begun.find((s) => s.name === chosen.stage) || begun.at(-1);
}
const lastBegun = (run) => run.stages.filter(hasBegun).at(-1);
/** Whether loss and accuracy of a stage's probes are of held-out images. */
const heldOut = (stage) => stage.probes.at(-1)?.held_out !== false;
const imagesOf = (stage) => (heldOut(stage) ? 'held-out images' : 'fixed training images');
const row = (run, name) => run.table.find((r) => r.features === name);

// Header: name, state, progress.

/** Time of the last update, if the file should have been written again but was not. */
function silentSince(run) {
  const quiet = Date.now() / 1000 - run.updated;
  return run.status === 'training' && !state.live && run.updated && quiet > Math.max(300, 4 * (state.again || 0)) ? run.updated : null;
}

function remaining(run) {
  let left = 0;
  for (const s of run.stages) {
    if (!s.steps) return null;
    const todo = s.steps - s.step;
    if (!todo) continue;
    // A stage that has not begun is assumed to be as fast as the last one that has.
    const like = s.step > 0 ? s : run.stages.filter((o) => o.step > 0).at(-1);
    if (!like || !(like.seconds > 0)) return null;
    left += (todo * like.seconds) / like.step;
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
  const now = lastBegun(run) || run.stages[0], silent = silentSince(run), training = run.status === 'training' && !silent;
  const left = training ? remaining(run) : null, seconds = run.stages.reduce((sum, s) => sum + s.seconds, 0);
  const facts = [
    now && run.status !== 'finished' ? `stage ${now.name}, step ${thousands(now.step)} of ${now.steps ? thousands(now.steps) : '?'}` : null,
    isNumber(left) ? duration(left) + ' left' : null,
    now && isNumber(now.images_per_second) ? `${thousands(now.images_per_second)} images/s, mean of the ${now.name}` : null,
    seconds > 0 ? `trained ${duration(seconds)}` : null,
    run.updated ? 'last update ' + time(run.updated) : null,
  ].filter(Boolean);
  const ended = silent ? `No update since ${time(silent)}. This file is written again while a run trains, so the run was stopped or killed, or the file is a copy.`
    : run.status === 'stopped' ? (run.ended ? `${run.ended.why} (${time(run.ended.unix_seconds)})` : `It stopped${run.updated ? ` after ${time(run.updated)}` : ''}; no reason was written (killed?). \`saltworks pretrain --resume --out ${run.folder}\` resumes it.`) : null;
  return el('header', {}, el('div.top', {},
    state.live ? el('a.brand', { href: '/' }, '‹ all runs') : el('span.brand', {}, 'saltworks'),
    el('h1', {}, run.name), statusPill(silent ? 'silent' : run.status), run.tags.map((t) => el('span.tag', {}, t)), themeButton()),
  el('div.wide', {}, el('div.progress', { role: 'img', 'aria-label': `progress: ${facts[0] || run.status}` }, bars),
    el('p.soft.small', { style: 'margin:2px 0 0' }, facts.join(' · ')), [...list(run.problems), ended].filter(Boolean).map((text) => el('div.small.ended', {}, clamped(text)))));
}

const statusPill = (status) => el(`span.pill.${status}`, {}, el('i'), status);

// Is it learning: sentences and tiles.

const gain = (x) => `${Math.abs(100 * x).toFixed(1)} points`;
const around = (share, n) => { const range = wilson(share, n); return range ? ` (${(100 * range[0]).toFixed(0)}–${(100 * range[1]).toFixed(0)})` : ''; };

const KINDS = [['knn_mean', 'by kNN'], ['linear_mean', 'by a linear probe']];

/** Compares `a` of n images with `b` of m, in words. What chance may explain is no difference. */
function against(a, n, b, m, than) {
  if (n > 0 && m > 0 && !differ(a, n, b, m)) return `which cannot be distinguished from ${than} (${percent(b)})`;
  return `${gain(a - b)} ${a > b ? 'more' : 'less'} than ${than} (${percent(b)})`;
}

/** Compares the numbers of a row with those of other rows: [[row, its images, its name]]. */
function judged(now, n, others) {
  const kinds = KINDS.filter(([key]) => isNumber(now[key]));
  return kinds.map(([key, name]) => {
    const compared = others.filter(([other]) => isNumber(other?.[key])).map(([other, m, than]) => against(now[key], n, other[key], m, than));
    return [`${percent(now[key])} ${name}${around(now[key], n)}`, compared.join(' and ')].filter(Boolean).join(', ');
  }).join('; ');
}

/** The stage whose encoder is the teacher of this one, if it is of this run. */
function teacherOf(run, stage) {
  const name = keys(run.recipe).get(`${stage.name}.teacher`)?.replaceAll('"', '');
  return stage.method === 'salt' && name ? run.stages.find((s) => s.name === name) : null;
}

/** Sentences about stages that are worse than a random encoder. */
function worseThanRandom(run, random) {
  const worse = (r) => KINDS.filter(([key]) => random && isNumber(r?.[key]) && isNumber(random[key]) && r[key] < random[key] && differ(r[key], r.images, random[key], random.images));
  return run.stages.map((s) => [s.name, row(run, s.name)]).filter(([, r]) => worse(r).length)
    .map(([name, r]) => `The ${name} is worse than a random encoder: ${worse(r).map(([key, kind]) => `${percent(r[key])} against ${percent(random[key])} ${kind}`).join(', ')}.`);
}

function verdict(run) {
  const stage = lastBegun(run), sentences = [];
  if (!stage) sentences.push('No steps yet.');
  else {
    const final = row(run, stage.name), random = run.table.find((r) => r.features.startsWith('random')), pixels = row(run, 'raw pixels');
    const first = stage.probes[0]?.step === 0 ? stage.probes[0] : null, last = stage.probes.at(-1);
    if (final) {
      const teacher = teacherOf(run, stage), taught = teacher && row(run, teacher.name);
      sentences.push(`On ${final.images ? thousands(final.images) : 'the'} held-out images the ${stage.name}’s frozen features (mean token) reach ${judged(final, final.images,
        [[taught, taught?.images, 'its teacher’s'], [random, random?.images, 'a random encoder’s']])}.`, ...worseThanRandom(run, random));
      const better = pixels && ['knn_mean', 'linear_mean'].filter((key) => isNumber(final[key]) && pixels[key] > final[key]);
      if (better?.length) sentences.push(`Raw pixels are even better: ${better.map((key) => percent(pixels[key])).join(' and ')}.`);
    } else if (last && isNumber(last.knn_mean)) {
      const teacher = teacherOf(run, stage)?.probes.at(-1), alike = teacher?.test_images === last.test_images && teacher?.train_images === last.train_images;
      sentences.push(`After step ${thousands(last.step)} the ${stage.name}’s features (mean token) reach ${judged(last, last.test_images,
        [[alike ? teacher : null, teacher?.test_images, 'its teacher’s last'], [last.step ? first : null, first?.test_images, 'before its first step']])}; online, on ${thousands(last.test_images)} held-out images.`, ...worseThanRandom(run, random));
    } else if (last) {
      sentences.push(`${heldOut(stage) ? 'The images have no classes' : 'Nothing is held out'}, so no accuracy is known. RankMe ${number(last.rank_me)}, feature std ${number(last.feature_std)}, loss on ${imagesOf(stage)} ${number(last.loss)}.`);
    } else sentences.push('No probe yet.');
    sentences.push(lossAsSign(stage));
  }
  return [alarmList(run), el('p.verdict', {}, sentences.filter(Boolean).join(' ')), tiles(run, stage)];
}

/** How well the loss shows the accuracy, if there are enough probes. */
function lossAsSign(stage) {
  const fit = stage.fits.find((f) => f.x === 'loss' && f.y === 'knn_mean' && !f.from_start);
  if (!fit || !heldOut(stage)) return null;
  const way = `${fit.slope > 0 ? 'falls' : 'rises'} as the loss falls`, which = 'online kNN accuracy of the mean token', how = `R² ${fit.r_squared.toFixed(2)}, ${fit.n} probes`;
  if (fit.r_squared < 0.5) return `Its held-out loss says little about the ${which}, which ${way} (${how}).`;
  if (fit.slope > 0) return `Its held-out loss misleads: the ${which} ${way} (${how}).`;
  return `Its held-out loss explains ${percent(fit.r_squared, 0)} of the change in the ${which}, which ${way} (${how}).`;
}

function alarmList(run) {
  const all = run.stages.flatMap((s) => s.alarms.map((a) => ({ ...a, stage: s.name })));
  const line = (a) => [el('b', {}, `${a.stage}, step ${thousands(a.step)}: ${a.kind}. `), (a.text || '').slice(0, 1).toUpperCase() + (a.text || '').slice(1)];
  const now = all.filter((a) => a.over == null), over = all.filter((a) => a.over != null);
  return [now.map((a) => el('div.alarm', { role: 'alert' }, line(a))),
    over.length ? el('details.small.over', {}, el('summary', {}, over.length === 1 ? '1 alarm that is over' : `${over.length} alarms that are over`),
      over.map((a) => el('p.soft', {}, line(a), ` Over at step ${thousands(a.over)}.`))) : null];
}

function tiles(run, stage) {
  const tile = (name, r, n, note, lead) => {
    const range = wilson(r.knn_mean, n), key = isNumber(r.knn_mean);
    return el('div.card.tile' + (lead ? '.lead' : ''), {}, el('div.soft.small', {}, name),
      el('div.value', {}, key ? (100 * r.knn_mean).toFixed(1) : '–', el('span.unit', {}, ' % kNN')),
      el('div.soft.small', {}, [range ? `95 %: ${(100 * range[0]).toFixed(1)}–${(100 * range[1]).toFixed(1)}` : '', isNumber(r.linear_mean) ? `${percent(r.linear_mean)} linear` : ''].filter(Boolean).join(' · ')),
      note ? el('div.soft.small', {}, note) : null);
  };
  const last = stage && !row(run, stage.name) ? stage.probes.at(-1) : null;
  const all = run.table.map((r) => tile(r.features, r, r.images, null, stage && r.features === stage.name));
  if (last && isNumber(last.knn_mean)) {
    if (stage.probes[0].step === 0 && last.step > 0) all.push(tile(`${stage.name}, before step 1`, stage.probes[0], last.test_images, `online, ${last.test_images} images`));
    all.push(tile(`${stage.name}, step ${thousands(last.step)}`, last, last.test_images, `online, ${last.test_images} images`, true));
  }
  return all.length ? el('div.tiles', {}, all) : null;
}

// Curves of one stage.

const zip = (xs, ys) => xs.map((x, i) => [x, ys[i]]).filter(([, y]) => isNumber(y));

/** The x axis of the curves: steps, images or time of training. */
function axis(run, stage) {
  const s = stage.series, batch = run.plan.stages.find((p) => p.name === stage.name)?.batch;
  const kind = chosen.axis === 'images' && batch ? 'images' : chosen.axis === 'hours' && s.seconds?.at(-1) > 0 ? 'hours' : 'step';
  const between = (step) => {
    if (step <= 0 || !s.step.length) return 0;
    const i = s.step.findIndex((v) => v >= step);
    if (i < 0) return s.seconds.at(-1);
    const [x0, y0] = i ? [s.step[i - 1], s.seconds[i - 1]] : [0, 0];
    return y0 + ((s.seconds[i] - y0) * (step - x0)) / (s.step[i] - x0 || 1);
  };
  const hours = (step) => between(step) / 3600, minutes = s.seconds?.at(-1) < 7200;
  return {
    step: { label: 'step', of: (v) => v, exact: thousands },
    images: { label: 'images', name: 'image', of: (v) => v * batch, exact: thousands },
    hours: { label: minutes ? 'minutes' : 'hours', name: minutes ? 'minute' : 'hour', of: (v) => (minutes ? 60 : 1) * hours(v) },
  }[kind];
}

const probePoints = (stage, x, key) => stage.probes.filter((p) => isNumber(p[key])).map((p) => [x.of(p.step), p[key]]);
const stepPoints = (stage, x, key) => zip(stage.series.step.map(x.of), stage.series[key]);
const logButton = (log) => el('button', { 'aria-pressed': String(!!log), title: 'logarithmic axis', onclick: () => choose('log', !log) }, 'log');
const NO_CLASSES = 'No accuracy is known: the images have no classes.';
/** Whether the last losses are far above the first. */
const ranAway = (losses) => losses.length > 0 && Math.max(...losses.slice(-5)) > 1000 * Math.abs(losses[0]);

/** The choices for all curves. */
function curveTools(extra) {
  const smooth = Number(chosen.smooth) || 0;
  return el('div.row.tools', {}, extra,
    el('label.small.soft', {}, 'smoothing ', el('input', { type: 'range', min: '0', max: '0.99', step: '0.01', value: String(smooth), 'aria-label': 'smoothing', oninput: (e) => choose('smooth', e.target.value) })),
    switcher('axis', [['step', 'steps'], ['images', 'images'], ['hours', 'time']], chosen.axis || 'step', 'x axis of the curves'));
}

function curves(run, stage) {
  if (!stage) return [el('h2', {}, 'Curves'), el('p.soft', {}, 'No steps yet.')];
  const s = stage.series, x = axis(run, stage), link = `${run.name} ${stage.name} ${x.label}`, last = stage.probes.at(-1);
  const begun = run.stages.filter(hasBegun), done = run.status === 'finished';
  const none = last ? null : done || stage.step === stage.steps ? 'Online probes are off in this run (probe.online).' : 'nothing yet';
  const step = (title, key, name, y = {}) => lineChart({ title, x, y, link, series: [{ name, colour: 0, rough: true, points: stepPoints(stage, x, key) }] });
  const probe = (title, keys, y, note) => lineChart({ title, x, y, link, note, empty: none, series: keys.map(([key, name], i) => ({ name, colour: i, dash: dash(i), marker: markerOf(i), points: probePoints(stage, x, key) })) });
  const few = last?.train_images ? `On ${thousands(last.test_images)} held-out images, with ${thousands(last.train_images)} training images: lower than after training, when all images are used${isNumber(spread(last)) ? `, and each ± ${(100 * spread(last)).toFixed(1)} points (95 %)` : ''}. Step 0 is untrained.` : null;
  // If a run diverged, a linear axis shows only its last step.
  const log = chosen.log ?? ranAway(s.loss), labelled = stage.probes.some((p) => METRICS.some(([key]) => isNumber(p[key])));
  const varies = s.weight_decay.some((v) => v !== s.weight_decay[0]);
  return [
    el('div.row.spread.section', {}, el('h2', {}, `Curves of the ${stage.name}`),
      curveTools(begun.length > 1 ? switcher('stage', begun.map((b) => [b.name, b.name]), stage.name, 'stage') : null)),
    el('div.grid', {},
      lineChart({ title: 'Loss', x, y: { log }, link, extra: logButton(log), series: [
        { name: s.width > 1 ? `training, mean of ${s.width} steps and range` : 'training', colour: 0, rough: true, points: stepPoints(stage, x, 'loss'), band: s.width > 1 ? s.step.map((v, i) => [x.of(v), s.loss_min[i], s.loss_max[i]]) : null },
        { name: `${imagesOf(stage)}, fixed masks`, colour: 1, marker: 'square', points: probePoints(stage, x, 'loss') }] }),
      labelled || !last ? probe('Accuracy of frozen features', METRICS, { tick: tickPercent, exact: percent }, few)
        : el('section.card', {}, el('h3', {}, 'Accuracy of frozen features'), el('p.soft', {}, heldOut(stage) ? NO_CLASSES : 'Nothing is held out, so no accuracy is known. Either data.holdout is 0, or some images have no class, or all have the same.')),
      probe('Rank of features', [['rank_me', 'RankMe'], ['lidar', 'LiDAR']], { min: 0 }, 'Higher is better, up to the width. A fall to 1 is a collapse. Below 1.5 it is an alarm.'),
      probe('Spread of features', [['feature_std', 'feature std']], { min: 0 }, '1 if features point everywhere, 0 if all images have the same. Below 0.01 it is an alarm.'),
      step('Learning rate', 'lr', 'learning rate', { min: 0 }),
      varies ? step('Weight decay', 'weight_decay', 'weight decay', { min: 0 }) : null,
      step('Gradient norm', 'grad_norm', 'L2 norm before clipping', { min: 0 }),
      step('Throughput', 'images_per_second', 'images/s', { min: 0 }),
      step('Waiting for data', 'data_wait_share', 'share of a step', { min: 0, tick: tickPercent, exact: percent }))];
}

/** Half the 95 % interval of an online accuracy, near its middle. */
function spread(probe) {
  const range = wilson(probe.knn_mean ?? 0.5, probe.test_images);
  return range ? (range[1] - range[0]) / 2 : NaN;
}

// Loss and accuracy: the promise of SALT.

const LEAST = 5;

function predicts(stage) {
  if (!stage || !heldOut(stage) || stage.probes.length < 2) return [];
  const has = ([k]) => stage.probes.some((p) => isNumber(p[k]));
  const metric = (METRICS.find((m) => m[0] === chosen.metric && has(m)) || METRICS.find(has))?.[0];
  if (!metric) return [];
  const start = !!chosen.start;
  const cards = [['loss', 'Held-out loss'], ['train_loss', 'Training loss since the last probe']].map(([key, name]) => {
    const f = stage.fits.find((o) => o.x === key && o.y === metric && o.from_start === start);
    const found = stage.probes.filter((p) => (start || p.step > 0) && isNumber(p[key]) && isNumber(p[metric]))
      .map((p) => ({ x: p[key], y: p[metric], text: `step ${thousands(p.step)}: loss ${number(p[key], 4)}, ${percent(p[metric])}` }));
    const wrong = f && f.slope > 0 ? ' Wrong direction: accuracy rises with the loss.' : '';
    return scatter({
      title: f ? `${name}: R² ${f.r_squared.toFixed(3)}` : name,
      note: f ? `${f.n} probes; least squares.${wrong}` : `${found.length} probes: a line is drawn through ${LEAST} or more.`,
      groups: [{ name: metric, colour: 0, points: found, fit: f }], x: { label: name.toLowerCase() }, y: { tick: tickPercent }, height: 280,
    });
  });
  return [
    el('h2', {}, 'Does the loss predict accuracy?'),
    el('div.row.spread', { style: 'margin-bottom:10px' },
      switcher('metric', METRICS.filter(has), metric, 'accuracy'),
      el('button', { 'aria-pressed': String(start), onclick: () => choose('start', !start) }, 'with step 0')),
    el('div.grid', {}, cards),
    el('p.soft.small', {}, stage.method === 'salt' ? 'SALT finds R² of 0.95 to 0.98 for students of one frozen teacher (arXiv 2509.24317). ' : '', 'Step 0 comes before learning and is far from the others, so it is left out by default.')];
}

function pictureSection(stage) {
  if (!stage || !stage.pictures) return [];
  return [el('h2', {}, `What the ${stage.name} sees, step ${thousands(stage.pictures.step)}`), pictures(stage.pictures)];
}

// Table, recipe, machine.

function table(run) {
  if (!run.table.length) return null;
  const columns = METRICS.filter(([key]) => run.table.some((r) => isNumber(r[key])));
  // The best is bold only if chance does not explain it.
  const best = (r, key) => {
    const others = run.table.filter((o) => o !== r && isNumber(o[key]));
    return others.length > 0 && others.every((o) => r[key] > o[key] && differ(r[key], r.images, o[key], o.images));
  };
  const n = run.table[0].images, range = (r, key) => wilson(r[key], r.images);
  const title = (r, key) => { const i = range(r, key); return i ? `95 % interval ${percent(i[0])} to ${percent(i[1])}` : null; };
  return el('section.card', {}, el('h3', {}, `Probes after training: frozen features, ${n ? thousands(n) + ' ' : ''}held-out images`),
    el('div.scroll', {}, el('table.data.pinned', {},
      el('thead', {}, el('tr', {}, el('th', {}, 'features'), columns.map(([, name, short]) => el('th', { title: name }, short)))),
      el('tbody', {}, run.table.map((r) => el('tr', {}, el('td', {}, r.features),
        columns.map(([key]) => el('td', { title: title(r, key) }, isNumber(r[key]) && best(r, key) ? el('b', {}, percent(r[key])) : percent(r[key])))))))),
    n ? el('p.soft.small', {}, `95 % intervals are about ± ${(100 * spread({ knn_mean: run.table.at(-1).knn_mean, test_images: n })).toFixed(1)} points, from the choice of test images only (Wilson). Bold: the best, if chance does not explain its lead.`) : null);
}

function facts(run) {
  const e = run.environment, planned = run.plan.stages;
  const rows = [['command', e.command.join(' ')], ['processor', e.cpu], ['threads', e.threads || null], ['system', [e.os, e.architecture].filter(Boolean).join(' ')],
    ['saltworks', e.saltworks], ['started', e.started_unix_seconds ? time(e.started_unix_seconds) : null], ['folder', run.folder],
    ...planned.map((s) => [s.name, `${thousands(s.steps)} steps of ${s.batch} images; ${Object.entries(s.parameters).map(([k, v]) => `${k} ${thousands(v)}`).join(', ')} parameters`])];
  return el('section.card', {}, el('h3', {}, 'Environment'), el('table.data', {}, el('tbody', {}, rows.filter(([, v]) => v != null && v !== '')
    .map(([k, v]) => el('tr', {}, el('td', {}, k), el('td.text', {}, String(v)))))));
}

function about(run) {
  return [el('h2', {}, 'The run'), el('div.grid.loose', {}, table(run), facts(run)),
    el('section.card', { style: 'margin-top:14px' }, el('details', {}, el('summary', {}, 'Recipe'), el('pre', {}, run.recipe))),
    el('footer', {}, 'Generated by saltworks from metrics.jsonl, probes.json and pictures/ of the run’s folder.')];
}

// While its run trains, a file loads itself again, unless it is hidden or the reader is busy.
function begin() {
  const given = window.saltworks || JSON.parse(document.getElementById('data').textContent);
  state = { live: false, ...given };
  draw();
  if (state.live || !state.runs.some((run) => run.status === 'training' && !silentSince(run))) return;
  let touched = 0;
  ['pointermove', 'keydown', 'scroll'].forEach((kind) => addEventListener(kind, () => { touched = Date.now(); }, { passive: true }));
  setInterval(() => { if (document.visibilityState === 'visible' && Date.now() - touched > 5000) location.reload(); }, 30000);
}
