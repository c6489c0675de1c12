// The report of one run, and the comparison of several.

/** The accuracies and their names, as in the terminal. */
const METRICS = [['knn_mean', 'kNN mean'], ['knn_cls', 'kNN CLS'], ['linear_mean', 'linear mean'], ['linear_cls', 'linear CLS']];
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

function header(run) {
  const total = run.stages.reduce((sum, s) => sum + (s.steps || s.step || 0), 0) || 1;
  const bars = run.stages.map((s) => {
    const all = s.steps || Math.max(s.step, 1);
    return el('div', { style: `flex:${all / total} 1 0`, title: `${s.name}: step ${s.step} of ${s.steps || '?'}` },
      el('i', { style: `width:${Math.min(100, (100 * s.step) / all)}%` }));
  });
  const now = lastBegun(run) || run.stages[0], silent = silentSince(run), training = run.status === 'training' && !silent;
  const seconds = run.stages.reduce((sum, s) => sum + s.seconds, 0);
  const facts = [
    training && run.doing ? el('b', {}, run.doing) : null,
    now && run.status !== 'finished' ? `stage ${now.name}, step ${thousands(now.step)} of ${now.steps ? thousands(now.steps) : '?'}` : null,
    training ? run.left : null,
    now && isNumber(now.images_per_second) ? `${thousands(now.images_per_second)} images/s, mean of the ${now.name}` : null,
    seconds > 0 ? `trained ${duration(seconds)}` : null,
    run.updated ? 'last update ' + time(run.updated) : null,
  ].filter(Boolean);
  const ended = silent ? `No update since ${time(silent)}. This file is written again while a run trains, so the run was stopped or killed, or the file is a copy.`
    : run.status === 'stopped' ? (run.ended ? `${run.ended.why} (${time(run.ended.unix_seconds)})` : `It stopped${run.updated ? ` after ${time(run.updated)}` : ''}; no reason was written (killed?). \`saltworks pretrain --resume --out ${run.folder}\` resumes it.`) : null;
  return el('header', {}, el('div.top', {},
    state.live ? el('a.brand', { href: '/' }, '‹ all runs') : el('span.brand', {}, 'saltworks'),
    el('h1', {}, run.name), statusPill(silent ? 'silent' : run.status), run.tags.map((t) => el('span.tag', {}, t)), themeButton()),
  el('div.wide', {}, el('div.progress', { role: 'img', 'aria-label': `progress: ${run.left || run.doing || run.status}` }, bars),
    el('p.soft.small', { style: 'margin:2px 0 0' }, facts.flatMap((fact, i) => (i ? [' · ', fact] : [fact]))), [...list(run.problems), ended].filter(Boolean).map((text) => el('div.small.ended', {}, clamped(text)))));
}

const statusPill = (status) => el(`span.pill.${status}`, {}, el('i'), status);

// The verdict in a sentence, what fell, alarms, and the accuracies behind it.

const gain = (x) => `${Math.abs(100 * x).toFixed(1)} points`;
const around = (share, n) => { const range = wilson(share, n); return range ? `, 95 % interval ${(100 * range[0]).toFixed(1)} to ${(100 * range[1]).toFixed(1)}` : ''; };

const KINDS = [['knn_mean', 'by kNN'], ['linear_mean', 'by a linear probe']];

/** Numbers and their unit stay on one line. */
const whole = (text) => text.replace(/(\d) %/g, '$1\u202f%');

function verdict(run) {
  const now = run.verdicts.at(-1), earlier = run.verdicts.slice(0, -1);
  const details = (v) => v.details.map((text) => el(/ fell /.test(text) ? 'p.fallen' : 'p', {}, whole(text)));
  return [
    el('p.verdict', {}, now ? whole(now.text) : nothingYet(run)), el('div.details', {}, now ? details(now) : null),
    earlier.map((v) => el('details.soft.earlier', {}, el('summary', {}, whole(v.text)), details(v))), alarmList(run), table(run)];
}

/** What is known of a run in which no stage has begun. */
const nothingYet = (run) => (run.status === 'training' && run.doing ? `Nothing is trained yet: ${run.doing}.` : 'No steps yet.');

/** The rows of the table: accuracies after training and, of a stage that trains, online ones. */
function accuracyRows(run) {
  const stage = lastBegun(run), rows = run.table.map((r) => ({ ...r, name: r.features, final: true, judged: stage?.name === r.features }));
  const last = stage?.probes.at(-1), first = stage?.probes[0];
  if (!last || row(run, stage.name) || !isNumber(last.knn_mean)) return rows;
  const online = (p, when) => ({ ...p, name: `${stage.name}, ${when}`, images: p.test_images, judged: p === last && p.step > 0 });
  if (first.step === 0) rows.push({ ...online(first, 'before training'), features: 'before training' });
  if (last.step > 0) rows.push(online(last, `step ${thousands(last.step)}`));
  return rows;
}

function table(run) {
  const rows = accuracyRows(run), columns = METRICS.filter(([key]) => rows.some((r) => isNumber(r[key]))), judged = rows.find((r) => r.judged);
  if (!rows.length) return null;
  const interval = (r, key) => { const i = wilson(r[key], r.images); return i && el('div.soft.small', {}, `${(100 * i[0]).toFixed(1)} to ${(100 * i[1]).toFixed(1)}`); };
  const differences = judged ? run.verdicts.at(-1)?.differences ?? [] : [];
  const mark = (r, key) => {
    const found = differences.find((d) => d.features === r.features && d.metric === key), higher = found?.higher;
    if (!found) return null;
    return el(higher ? 'span.higher' : 'span.soft', { title: `${higher ? 'higher' : 'lower'} than ${judged.name}, beyond chance` }, higher ? '▲ ' : '▼ ');
  };
  const cell = (r, key) => el('td', {}, mark(r, key), isNumber(r[key]) && r.judged ? el('b', {}, percent(r[key])) : percent(r[key]), interval(r, key));
  const notes = ['Below each accuracy: its 95 % interval, from the choice of test images only.', judged ? `▲ higher and ▼ lower than ${judged.name}, beyond chance.` : '',
    rows.some((r) => r.final) && rows.some((r) => !r.final) ? 'While a stage trains, probes use fewer images and score lower. Compare only rows of as many images.' : ''];
  return el('section.card', {}, el('h3', {}, 'Accuracy of frozen features on held-out images'),
    el('div.scroll', {}, el('table.data.pinned', {},
      el('thead', {}, el('tr', {}, el('th', {}, 'features'), columns.map(([, name]) => el('th', {}, term(name))))),
      el('tbody', {}, rows.map((r) => el(r.judged ? 'tr.judged' : 'tr', {}, el('td', {}, r.name, r.images ? el('div.soft.small', {}, counted(r.images, 'image')) : null), columns.map(([key]) => cell(r, key))))))),
    el('p.soft.small', {}, notes.filter(Boolean).join(' ')));
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
  if (!stage) return [];
  const s = stage.series, x = axis(run, stage), link = `${run.name} ${stage.name} ${x.label}`, last = stage.probes.at(-1);
  const begun = run.stages.filter(hasBegun), done = run.status === 'finished';
  const waits = stage.probes.length > 1 ? null : last ? 'Accuracy, rank and spread are drawn from the second probe on.' : done || stage.step === stage.steps ? 'Online probes are off in this run (probe.online).' : 'Not probed yet.';
  const step = (title, key, name, y = {}) => lineChart({ title, x, y, link, series: [{ name, colour: 0, rough: true, points: stepPoints(stage, x, key) }] });
  // A single probe draws no curve.
  const probe = (title, keys, y, note) => {
    const series = keys.map(([key, name], i) => ({ name, colour: i, dash: dash(i), marker: markerOf(i), points: probePoints(stage, x, key) }));
    return series.some((one) => one.points.length > 1) ? lineChart({ title, x, y, link, note, series }) : null;
  };
  const few = last?.train_images ? `On ${thousands(last.test_images)} held-out images, with ${thousands(last.train_images)} training images: lower than after training, when more images are used${isNumber(spread(last)) ? `, and each with a 95 % interval of ± ${(100 * spread(last)).toFixed(1)} points` : ''}. Step 0 is before training.` : null;
  // If a run diverged, a linear axis shows only its last step.
  const log = chosen.log ?? ranAway(s.loss), labelled = stage.probes.some((p) => METRICS.some(([key]) => isNumber(p[key])));
  const varies = s.weight_decay.some((v) => v !== s.weight_decay[0]);
  return [
    el('div.row.spread.section', {}, el('h2', {}, `Curves of the ${stage.name}`),
      curveTools(begun.length > 1 ? switcher('stage', begun.map((b) => [b.name, b.name]), stage.name, 'stage') : null)),
    el('div.grid', {},
      lineChart({ title: 'Loss', x, y: { log }, link, extra: logButton(log), note: last ? `The loss on ${imagesOf(stage)} is measured under fixed masks.` : null, series: [
        { name: s.width > 1 ? `training, mean of ${s.width} steps and range` : 'training', colour: 0, rough: true, points: stepPoints(stage, x, 'loss'), band: s.width > 1 ? s.step.map((v, i) => [x.of(v), s.loss_min[i], s.loss_max[i]]) : null },
        { name: imagesOf(stage), colour: 1, marker: 'square', points: probePoints(stage, x, 'loss') }] }),
      labelled || !last ? probe('Accuracy of frozen features', METRICS, { tick: tickPercent, exact: percent }, few)
        : el('section.card', {}, el('h3', {}, 'Accuracy of frozen features'), el('p.soft', {}, heldOut(stage) ? NO_CLASSES : 'Nothing is held out, so no accuracy is known. Either data.holdout is 0, or some images have no class, or all have the same.')),
      probe('Rank of features', [['rank_me', 'RankMe'], ['lidar', 'LiDAR']], { min: 0 }, 'RankMe and LiDAR: higher is better, up to the width. A fall to 1 is a collapse. RankMe below 1.5 is an alarm.'),
      probe('Spread of features', [['feature_std', 'feature std']], { min: 0 }, 'A feature std below 0.01 is an alarm.'),
      step('Learning rate', 'lr', 'learning rate', { min: 0 }),
      varies ? step('Weight decay', 'weight_decay', 'weight decay', { min: 0 }) : null,
      step('Gradient norm', 'grad_norm', 'L2 norm before clipping', { min: 0 }),
      step('Throughput', 'images_per_second', 'images/s', { min: 0 }),
      step('Waiting for data', 'data_wait_share', 'share of a step', { min: 0, tick: tickPercent, exact: percent })),
    waits ? el('p.soft.small', {}, waits) : null];
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
  // With a single point, nothing can be predicted yet.
  if (stage.probes.filter((p) => p.step > 0 && isNumber(p[metric])).length < 2) return [];
  const cards = [['loss', 'Held-out loss'], ['train_loss', 'Training loss since the last probe']].map(([key, name]) => {
    const f = stage.fits.find((o) => o.x === key && o.y === metric && o.from_start === start);
    const found = stage.probes.filter((p) => (start || p.step > 0) && isNumber(p[key]) && isNumber(p[metric]))
      .map((p) => ({ x: p[key], y: p[metric], text: `step ${thousands(p.step)}: loss ${number(p[key], 4)}, ${percent(p[metric])}` }));
    const wrong = f && f.slope > 0 ? ' Wrong direction: accuracy rises with the loss.' : '';
    return scatter({
      title: f ? `${name}: R² ${f.r_squared.toFixed(3)}` : name,
      note: f ? `${f.n} probes; least squares.${wrong}` : `${counted(found.length, 'probe')}: a line is drawn through ${LEAST} or more.`,
      groups: [{ name: metric, colour: 0, points: found, fit: f }], x: { label: name.toLowerCase() }, y: { tick: tickPercent }, height: 280,
    });
  });
  return [
    el('h2', {}, 'Does the loss predict accuracy?'),
    lossAsSign(stage) ? el('p.sign', {}, lossAsSign(stage)) : null,
    el('div.row.spread', { style: 'margin-bottom:10px' },
      switcher('metric', METRICS.filter(has), metric, 'accuracy'),
      el('button', { 'aria-pressed': String(start), onclick: () => choose('start', !start) }, 'with step 0')),
    el('div.grid', {}, cards),
    el('p.soft.small', {}, stage.method === 'salt' ? 'SALT finds R² of 0.95 to 0.98 for students of one frozen teacher (arXiv 2509.24317). ' : '', 'Step 0 comes before learning and is far from the others, so it is left out by default.')];
}

function pictureSection(stage) {
  if (!stage || !stage.pictures) return [];
  const step = stage.pictures.step, when = step ? `after step ${thousands(step)}` : 'before training';
  const note = step ? null : el('p.soft', {}, `These pictures are of the untrained ${stage.name}. The next probe draws them again.`);
  return [el('h2', {}, `What the ${stage.name} sees ${when}`), note, pictures(stage.pictures)];
}

// Recipe and machine.

function facts(run) {
  const e = run.environment, planned = run.plan.stages;
  const rows = [['command', e.command.join(' ')], ['processor', e.cpu], ['threads', e.threads || null], ['system', [e.os, e.architecture].filter(Boolean).join(' ')],
    ['saltworks', e.saltworks], ['started', e.started_unix_seconds ? time(e.started_unix_seconds) : null], ['folder', run.folder],
    ...planned.map((s) => [s.name, `${thousands(s.steps)} steps of ${s.batch} images; ${Object.entries(s.parameters).map(([k, v]) => `${k} ${thousands(v)}`).join(', ')} parameters`])];
  return el('section.card', {}, el('h3', {}, 'Environment'), el('table.data', {}, el('tbody', {}, rows.filter(([, v]) => v != null && v !== '')
    .map(([k, v]) => el('tr', {}, el('td', {}, k), el('td.text', {}, String(v)))))));
}

function about(run) {
  return [el('h2', {}, 'The run'), facts(run),
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
