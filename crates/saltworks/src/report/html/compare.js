// Several runs side by side. Seeds of one recipe count as one.

/** Names that differ: as many last parts of the folders as necessary. */
function distinct(runs) {
  if (new Set(runs.map((r) => r.name)).size === runs.length) return runs.map((r) => r.name);
  const parts = runs.map((r) => (r.folder || r.name).split('/').filter(Boolean));
  for (let n = 2; n < 20; n++) {
    const names = parts.map((p) => p.slice(-n).join('/'));
    if (new Set(names).size === runs.length) return names;
  }
  return runs.map((r, i) => `${r.name} (${i + 1})`);
}

/** A recipe without its seed. */
const seedless = (run) => run.recipe.split('\n').filter((line) => !/^\s*(seed|tags)\s*=/.test(line)).join('\n').trim();

/** Groups of runs whose recipes differ only in the seed. A copy of a run is a group of its own. */
function groupsOf(runs) {
  const groups = new Map(), seen = new Set();
  runs.forEach((run, i) => {
    const recipe = seedless(run), seed = JSON.stringify([recipe, keys(run.recipe).get('seed')]);
    const name = seen.has(seed) ? `copy ${i}` : recipe;
    seen.add(seed);
    groups.set(name, [...(groups.get(name) || []), i]);
  });
  return [...groups.values()];
}

const meanOf = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;
const deviation = (xs) => Math.sqrt(xs.reduce((sum, x) => sum + (x - meanOf(xs)) ** 2, 0) / (xs.length - 1));

function comparison(runs) {
  const names = distinct(runs);
  const stages = [...new Set(runs.flatMap((r) => r.stages.filter(hasBegun).map((s) => s.name)))];
  // The last stage that most runs have begun.
  const having = (name) => runs.filter((r) => r.stages.some((s) => s.name === name && hasBegun(s))).length;
  const usual = stages.findLast((name) => 2 * having(name) > runs.length) ?? stages.at(-1);
  const stage = stages.includes(chosen.stage) ? chosen.stage : usual;
  const of = runs.map((run, i) => ({ run, name: names[i], stage: run.stages.find((s) => s.name === stage && hasBegun(s)) })).filter((o) => o.stage);
  return [
    el('header', {}, el('div.top', {}, state.live ? el('a.brand', { href: '/' }, '‹ all runs') : el('span.brand', {}, 'saltworks'), el('h1', {}, `${runs.length} runs compared`), themeButton())),
    el('main', {}, state.missing ? el('div.alarm', { role: 'alert' }, state.missing) : null,
      part('Verdict', () => [otherData(runs), el('p.verdict', {}, compareVerdict(runs, names, stage))]),
      part('Recipes', () => differences(runs, names)),
      part('Curves', () => compareCurves(of, stages, stage)),
      part('Frozen features', () => compareTables(runs, names)), el('footer', {}, 'Made by saltworks.'))];
}

/** The best run, and whether chance explains its lead. */
function compareVerdict(runs, names, stage) {
  if (!stage) return 'No steps yet.';
  const finals = runs.map((run, i) => ({ i, r: row(run, stage) })).filter((o) => o.r).map((o) => ({ ...o, n: o.r.images }));
  const online = runs.map((run, i) => ({ i, stage: run.stages.find((s) => s.name === stage) })).filter((o) => o.stage?.probes.length && heldOut(o.stage))
    .map((o) => ({ i: o.i, r: o.stage.probes.at(-1), n: o.stage.probes.at(-1).test_images }));
  // Only accuracies of one kind are compared.
  const all = finals.length > 1 ? finals : online;
  const said = KINDS.map(([key, kind]) => {
    const known = all.filter((o) => isNumber(o.r[key])).sort((a, b) => b.r[key] - a.r[key]), [best] = known;
    if (known.length < 2) return null;
    // Among seeds of one recipe the best is chance, so the next is of another recipe if there is one.
    const others = known.filter((o) => seedless(runs[o.i]) !== seedless(runs[best.i])), next = others[0] || known[1];
    const apart = !(best.n > 0 && next.n > 0) || differ(best.r[key], best.n, next.r[key], next.n);
    const chance = best.r[key] === next.r[key] ? 'as many' : apart ? `${gain(best.r[key] - next.r[key])} less` : 'which chance may explain';
    return `${kind} ${names[best.i]}, ${percent(best.r[key])}${around(best.r[key], best.n)}, the next${others.length && others[0] !== known[1] ? ' of another recipe' : ''} ${names[next.i]}, ${percent(next.r[key])}, ${chance}`;
  }).filter(Boolean);
  if (!said.length) return `No accuracy of the ${stage} is known of two runs.`;
  const left = runs.length - all.length;
  return `Best frozen features of the ${stage} (mean token, ${all === finals ? 'after training' : 'by the last online probe'}): ${said.join('; ')}.${left ? ` ${left === 1 ? 'One run has' : `${left} runs have`} none to compare.` : ''}`;
}

/** A warning if the runs have different data. */
function otherData(runs) {
  const parsed = runs.map((run) => keys(run.recipe));
  const all = [...new Set(parsed.flatMap((k) => [...k.keys()]))].filter((key) => /^data\.(path|source\b.*|holdout|holdout_seed)$/.test(key));
  const unlike = all.filter((key) => new Set(parsed.map((k) => k.get(key))).size > 1);
  return unlike.length ? el('div.alarm', { role: 'note' }, el('b', {}, 'Other data. '), `The runs differ in ${unlike.join(', ')}: their accuracies are of different images and may not be comparable.`) : null;
}

/** One curve of several runs: mean and range where all have values, interpolated linearly. */
function together(curves) {
  const all = curves.filter((c) => c.length);
  if (!all.length) return { points: [], band: [] };
  const end = Math.min(...all.map((c) => c.at(-1)[0])), begin = Math.max(...all.map((c) => c[0][0]));
  const xs = [...new Set(all.flatMap((c) => c.map((p) => p[0])))].filter((x) => x >= begin && x <= end).sort((a, b) => a - b);
  const at = (c, x) => {
    const i = nearest(c.map((p) => p[0]), x), j = c[i][0] > x ? i - 1 : i + 1, [a, b] = [c[i], c[j]];
    return !b || b[0] === a[0] ? a[1] : a[1] + ((b[1] - a[1]) * (x - a[0])) / (b[0] - a[0]);
  };
  const some = xs.length > 400 ? xs.filter((_, i) => i % Math.ceil(xs.length / 400) === 0) : xs;
  const rows = some.map((x) => [x, all.map((c) => at(c, x))]);
  return { points: rows.map(([x, ys]) => [x, meanOf(ys)]), band: rows.map(([x, ys]) => [x, Math.min(...ys), Math.max(...ys)]) };
}

function compareCurves(of, stages, stage) {
  if (!of.length) return [el('h2', {}, 'Curves'), el('p.soft', {}, 'No steps yet.')];
  const has = (key) => of.some((o) => o.stage.probes.some((p) => isNumber(p[key])));
  const metric = has(chosen.metric) ? chosen.metric : (METRICS.find(([k]) => has(k)) || METRICS[0])[0];
  const axes = of.map((o) => axis(o.run, o.stage)), x = axes[0], link = `compare ${stage} ${x.label}`;
  const groups = groupsOf(of.map((o) => o.run)), seeds = groups.some((g) => g.length > 1), grouped = seeds && chosen.seeds !== false;
  const curve = (points, mark, rough) => {
    const each = of.map((o, i) => points(o.stage, axes[i]));
    const lines = grouped ? groups.map((g) => ({ name: groupName(of, g), ...(g.length > 1 ? together(g.map((i) => each[i])) : { points: each[g[0]] }) }))
      : of.map((o, i) => ({ name: o.name, points: each[i] }));
    return lines.map((line, i) => ({ ...line, colour: i, dash: dash(i), marker: mark ? markerOf(i) : null, rough }));
  };
  const noClasses = of.some((o) => o.stage.probes.length) && !METRICS.some(([key]) => has(key)) ? 'No accuracy is known: nothing is held out, or the images have no classes.' : null;
  const steps = (title, key, y = {}, extra) => lineChart({ title, x, y, link, extra, series: curve((s, a) => stepPoints(s, a, key), false, true) });
  const probe = (title, key, y = {}, empty) => lineChart({ title, x, y, link, empty, series: curve((s, a) => probePoints(s, a, key), true) });
  const dots = of.map((o, i) => ({ name: o.name, colour: i, marker: markerOf(i), fit: o.stage.fits.find((f) => f.x === 'loss' && f.y === metric && !f.from_start),
    points: o.stage.probes.filter((p) => p.step > 0 && isNumber(p.loss) && isNumber(p[metric])).map((p) => ({ x: p.loss, y: p[metric], text: `${o.name}, step ${thousands(p.step)}: loss ${number(p.loss, 4)}, ${percent(p[metric])}` })) }));
  const fits = dots.filter((g) => g.fit).map((g) => `${g.name}: R² ${g.fit.r_squared.toFixed(3)}${g.fit.slope > 0 ? ', the wrong way' : ''}`);
  const loss = of.every((o) => heldOut(o.stage)) ? 'Held-out loss' : 'Loss on fixed images';
  return [
    el('div.row.spread.section', {}, el('h2', {}, `Curves of the ${stage}`), curveTools([
      stages.length > 1 ? switcher('stage', stages.map((n) => [n, n]), stage, 'stage') : null,
      seeds ? el('button', { 'aria-pressed': String(grouped), title: 'mean and range of runs that differ only in their seed', onclick: () => choose('seeds', !grouped) }, 'seeds as one') : null])),
    el('div.row', { style: 'margin-bottom:10px' }, switcher('metric', METRICS.filter(([k]) => has(k)), metric, 'accuracy')),
    el('div.grid', {},
      steps('Training loss', 'loss', { log: chosen.log, robust: true }, logButton(chosen.log)),
      probe(`Accuracy: ${metricName(metric)}`, metric, { tick: tickPercent, exact: percent }, noClasses),
      probe(loss, 'loss', { log: chosen.log, robust: true }),
      scatter({ title: `${loss} and accuracy`, groups: dots, x: { label: loss.toLowerCase() }, y: { tick: tickPercent }, height: 250, keys: 'dots ', empty: noClasses, note: fits.join(' · ') || `A line is drawn through ${LEAST} probes or more.` }),
      probe('RankMe', 'rank_me', { min: 0 }),
      probe('LiDAR', 'lidar', { min: 0 }),
      probe('Spread of features', 'feature_std', { min: 0 }),
      steps('Learning rate', 'lr', { min: 0 }),
      steps('Gradient norm', 'grad_norm', { min: 0, robust: true }),
      steps('Throughput, images/s', 'images_per_second', { min: 0 }))];
}

/** The name of runs that differ only in their seed: the common beginning of their names. */
function groupName(of, group) {
  const names = group.map((i) => of[i].name);
  if (names.length === 1) return names[0];
  let same = names.reduce((a, b) => { let n = 0; while (n < a.length && a[n] === b[n]) n++; return a.slice(0, n); });
  same = same.replace(/[-_./ ]*(seed)?[-_. ]*$/i, '');
  return `${same || names[0]}, ${names.length} seeds`;
}

function compareTables(runs, names) {
  const columns = METRICS.filter(([key]) => runs.some((r) => r.table.some((t) => isNumber(t[key])) || r.stages.some((s) => isNumber(s.probes.at(-1)?.[key]))));
  const groups = groupsOf(runs);
  const head = (first) => el('thead', {}, el('tr', {}, first.map((h, i) => el(i === 1 ? 'th.text' : 'th', {}, h)), columns.map(([, name, short]) => el('th', { title: name }, short))));
  const cells = (r) => columns.map(([key]) => el('td', {}, percent(r?.[key])));
  const finals = runs.flatMap((run, i) => run.table.map((r) => el('tr', {}, el('td', {}, breakable(names[i])), el('td.text.short', {}, r.features), el('td', {}, r.images ? thousands(r.images) : '–'), cells(r))));
  const online = runs.flatMap((run, i) => run.stages.filter((s) => s.probes.length && heldOut(s) && !row(run, s.name)).map((s) => {
    const p = s.probes.at(-1);
    return el('tr', {}, el('td', {}, breakable(names[i])), el('td.text.short', {}, s.name), el('td', {}, thousands(p.step)), el('td', {}, thousands(p.test_images)), cells(p));
  }));
  const seeds = groups.filter((g) => g.length > 1).flatMap((g) => {
    const features = [...new Set(g.flatMap((i) => runs[i].table.map((r) => r.features)))];
    return features.map((f) => {
      const rows = g.map((i) => row(runs[i], f)).filter(Boolean), of = runs.map((_, i) => ({ name: names[i] }));
      const cell = (key) => {
        const xs = rows.map((r) => r[key]).filter(isNumber);
        return xs.length < 2 ? percent(xs[0]) : `${(100 * meanOf(xs)).toFixed(1)} ± ${(100 * deviation(xs)).toFixed(1)} %`;
      };
      return el('tr', {}, el('td', {}, groupName(of, g)), el('td.text.short', {}, f), el('td', {}, String(rows.length)), columns.map(([key]) => el('td', {}, cell(key))));
    });
  });
  const section = (title, note, first, rows) => (rows.length ? el('section.card', {}, el('h3', {}, title), el('div.scroll', {}, el('table.data.named.pinned', {}, head(first), el('tbody', {}, rows))), note ? el('p.soft.small', {}, note) : null) : null);
  const all = [
    section('Means over seeds', 'Mean ± standard deviation of runs whose recipes differ only in the seed.', ['runs', 'features', 'seeds'], seeds),
    section('After training', 'All training images, all held-out ones.', ['run', 'features', 'images'], finals),
    section('While training', 'The last online probe, with some of the images: not comparable with the table above.', ['run', 'stage', 'step', 'images'], online)].filter(Boolean);
  return all.length ? [el('h2', {}, 'Frozen features'), el('div.stack', {}, all)] : null;
}

/** A recipe's value as people write it: at most six digits, 30 for 30.0. Integers may be seeds. */
const printed = (text) => text.replace(/"(?:[^"\\]|\\.)*"|'[^']*'|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g,
  (token) => (/^[-+\d].*[.eE]/.test(token) ? String(Number(Number(token).toPrecision(6))) : token));

/** `section.key = value` lines that differ between recipes, as they are printed. */
function differences(runs, names) {
  const parsed = runs.map((run) => keys(run.recipe));
  const all = [...new Set(parsed.flatMap((k) => [...k.keys()]))];
  const differ = all.filter((key) => new Set(parsed.map((k) => k.get(key))).size > 1);
  const cell = (text) => el(text.length > 24 ? 'td.text.long' : 'td.text.short', {}, text);
  const body = differ.length ? el('div.scroll', {}, el('table.data.named.pinned', {},
    el('thead', {}, el('tr', {}, el('th', {}, 'key'), names.map((name) => el('th.text', {}, breakable(name))))),
    el('tbody', {}, differ.map((key) => el('tr', {}, el('td', {}, breakable(key)), parsed.map((k) => cell(k.get(key) ?? '–'))))))) : el('p.soft', {}, 'The recipes are alike.');
  return [el('h2', {}, 'What differs in the recipes'), el('section.card', {}, body)];
}

/** The keys of a recipe as it ran. Stages have their names, tables of other lists numbers. */
function keys(toml) {
  const found = new Map(), counts = new Map();
  const stages = [...toml.matchAll(/^\s*\[\[stage\]\]((?:\n(?!\s*\[).*)*)/gm)].map(([, lines]) => lines.match(/^\s*name\s*=\s*"(.*)"/m)?.[1]);
  const called = (listed, n) => (listed === 'stage' && stages[n - 1]) || `${listed} ${n}`;
  let section = '';
  for (const line of toml.split('\n')) {
    const table = line.match(/^\s*(\[{1,2})([^\]]+)\]/), pair = line.match(/^\s*([\w-]+)\s*=\s*(.*)$/);
    if (table) {
      const [, brackets, name] = table;
      if (brackets === '[[') counts.set(name, (counts.get(name) || 0) + 1);
      // The number follows the list's name, even before a table inside one of its entries.
      section = [...counts].reduce((text, [listed, n]) => (text === listed || text.startsWith(listed + '.') ? called(listed, n) + text.slice(listed.length) : text), name);
    } else if (pair) found.set((section ? section + '.' : '') + pair[1], printed(pair[2]));
  }
  return found;
}
