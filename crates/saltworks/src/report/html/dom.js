'use strict';
// All texts of a run (names, labels, recipes) enter the page as text, never as HTML.

/** An element: `el('div.card', {title: 'x'}, child, 'text', ...)`. */
function el(spec, attributes, ...children) {
  const [tag, ...classes] = spec.split('.');
  const node = document.createElement(tag || 'div');
  if (classes.length) node.className = classes.join(' ');
  return fill(node, attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith('on')) listen(node, key.slice(2), value);
    else if (key === 'style') node.style.cssText = value;
    else if (key === 'checked') node.checked = value;
    else if (value === true) node.setAttribute(key, '');
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  for (const child of children.flat(9)) if (child != null && child !== false) node.append(child);
  return node;
}

/** The current handlers of a node: a redraw replaces the handler and keeps the listener. */
function listen(node, kind, handler) {
  node.handlers ||= {};
  if (!node.handlers[kind]) node.addEventListener(kind, (event) => node.handlers[kind]?.(event));
  node.handlers[kind] = handler;
}

/**
 * A part that keeps its node while the page is drawn again, and so focus, pointer and scrolling.
 * `make(node)` returns the function that shows each new `spec`.
 */
function view(name, make, spec) {
  const node = el('div', { 'data-view': name });
  return Object.assign(node, { make, spec });
}

/** Makes `old` equal to `fresh` with as few changes as possible. */
function morph(old, fresh) {
  const same = old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && old.make === fresh.make
    && old.dataset?.view === fresh.dataset?.view && old.dataset?.key === fresh.dataset?.key;
  if (!same) { old.replaceWith(fresh); return; }
  if (old.nodeType === Node.TEXT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
  if (old.make) { old.spec = fresh.spec; if (old.show || old.failed) showView(old); return; }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !(name === 'open' && old.nodeName === 'DETAILS')) old.removeAttribute(name);
  // The page's policy forbids styles as attributes, so they are set by their own interface.
  for (const { name, value } of fresh.attributes) if (name !== 'style' && old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (old.style?.cssText !== fresh.style?.cssText) old.style.cssText = fresh.style.cssText;
  if (old.nodeName === 'INPUT') old.checked = fresh.checked;
  for (const kind of Object.keys(old.handlers || {})) if (!fresh.handlers?.[kind]) old.handlers[kind] = null;
  for (const [kind, handler] of Object.entries(fresh.handlers || {})) listen(old, kind, handler);
  morphChildren(old, [...fresh.childNodes]);
}

/** The key that identifies a node among its neighbours. */
const keyOf = (node) => node.dataset?.key ?? node.dataset?.view;

function morphChildren(parent, fresh) {
  const keyed = new Map([...parent.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  fresh.forEach((node, index) => {
    const known = keyOf(node) && keyed.get(keyOf(node));
    const at = parent.childNodes[index];
    if (known && known !== at) parent.insertBefore(known, at || null);
    if (known) morph(known, node);
    else if (!at) parent.append(node);
    else if (keyOf(node) || keyOf(at)) parent.insertBefore(node, at);
    else morph(at, node);
  });
  while (parent.childNodes.length > fresh.length) parent.lastChild.remove();
}

/** Shows these nodes in `parent`. Nodes that are alike stay, and so does the focus. */
function show(parent, nodes) {
  const focused = document.activeElement;
  morphChildren(parent, nodes.flat(9).filter((node) => node != null && node !== false));
  for (const node of parent.querySelectorAll('[data-view]')) if (!node.show && !node.failed) showView(node);
  edges();
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

const failure = (name, error) => el('section.card', {}, el('h3', {}, name), el('p.soft', {}, `Its files cannot be shown: ${error.message}.`));

/** A part of the page. If its data is damaged, it shows the error, and the other parts stay. */
function part(name, build) {
  const within = (children) => el('section', { 'data-key': name }, children);
  try { return within(build()); } catch (error) { return within(failure(name, error)); }
}

/** The same for a view, even if it is drawn later: once its width or its picture is known. */
function guarded(node, draw) {
  try { draw(); } catch (error) {
    node.replaceChildren(failure(node.dataset.view.replace(/^(chart|scatter) /, ''), error));
    Object.assign(node, { show: null, failed: true });
  }
}

function showView(node) {
  guarded(node, () => {
    // After an error the view is created again.
    if (!node.show) { node.replaceChildren(); node.failed = false; node.show = node.make(node); }
    node.show(node.spec);
  });
}

/** Fades the side to which a wide part can be scrolled: phones show no bar. */
function edges(boxes = document.querySelectorAll('.scroll, .strip')) {
  for (const box of boxes) {
    const more = box.scrollWidth - box.clientWidth;
    box.toggleAttribute('data-more', more - box.scrollLeft > 2);
    // Arrow keys scroll the part that has the focus.
    if (more > 2) box.tabIndex = 0;
  }
}
addEventListener('scroll', (event) => { if (event.target.matches?.('.scroll, .strip')) edges([event.target]); }, { capture: true, passive: true });
addEventListener('resize', () => edges());

/** A path or a key with possible line breaks between its parts. */
const breakable = (text) => text.split(/(?<=[._\/-])/).flatMap((part, i) => (i ? [el('wbr'), part] : [part]));

/** A text in two lines, until the reader opens the rest. */
function clamped(text, few = 100) {
  return text.length < few ? text : el('details.clamped', {}, el('summary', { title: text }, text));
}

// The reader's choices. They survive a redraw and, in a file that reloads itself, a reload.
const chosen = (() => {
  try { return JSON.parse(sessionStorage.getItem('saltworks') || '{}'); } catch { return {}; }
})();
function choose(key, value) {
  chosen[key] = value;
  try { sessionStorage.setItem('saltworks', JSON.stringify(chosen)); } catch { /* a page without storage */ }
  draw();
}

// Light or dark: as the system is, unless the reader chose.
const system = matchMedia('(prefers-color-scheme: dark)');
function theme() {
  let kept = null;
  try { kept = localStorage.getItem('saltworks-theme'); } catch { /* a page without storage */ }
  const wanted = new URLSearchParams(location.search).get('theme') || kept;
  document.documentElement.dataset.theme = wanted || (system.matches ? 'dark' : 'light');
}
system.addEventListener('change', theme);
theme();
function themeButton() {
  return el('button', {
    'aria-label': 'light or dark',
    title: 'light or dark',
    onclick: () => {
      const other = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
      try { localStorage.setItem('saltworks-theme', other); } catch { /* a page without storage */ }
      document.documentElement.dataset.theme = other;
    },
  }, '◐');
}

// Numbers for people.
const isNumber = (x) => typeof x === 'number' && Number.isFinite(x);
const percent = (x, digits = 1) => (isNumber(x) ? (100 * x).toFixed(digits) + '\u202f%' : '–');
const thousands = (x) => Math.round(x).toLocaleString('en').replaceAll(',', '\u202f');
function number(x, digits = 3) {
  if (!isNumber(x)) return '–';
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-4 || size >= 1e12)) return x.toExponential(Math.max(1, digits - 2)).replace('e+', 'e');
  if (size >= 1000) return thousands(x);
  return String(Number(x.toPrecision(digits)));
}
const exactly = (x) => number(x, 6);
/** `1 probe`, `2 probes`. */
const counted = (n, one) => `${thousands(n)} ${one}${n === 1 ? '' : 's'}`;
/** A number with the same digits behind the point as the others in its column. */
const aligned = (x, digits) => (isNumber(x) && Math.abs(x) < 1000 ? x.toFixed(digits) : number(x, digits));
function duration(seconds) {
  if (!isNumber(seconds) || seconds < 0 || seconds > 1e10) return '–';
  const s = Math.round(seconds);
  if (s < 60) return s + ' s';
  if (s < 3600) return Math.round(s / 60) + ' min';
  if (s < 172800) return Math.floor(s / 3600) + ' h ' + Math.round((s % 3600) / 60) + ' min';
  return Math.round(s / 86400) + ' d';
}
const time = (unix) => (isNumber(unix) ? new Date(1000 * unix).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' }) : '–');

/** The least and the largest of those values that are numbers. */
function span(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (isNumber(v)) { if (v < low) low = v; if (v > high) high = v; }
  return low <= high ? [low, high] : null;
}

/** The 95 % interval of a share of n (Wilson 1927), as in `eval/scores.rs`. */
function wilson(share, n) {
  if (!isNumber(share) || !(n > 0)) return null;
  const z = 1.959963984540054, w = (z * z) / n, root = z * Math.sqrt((share * (1 - share)) / n + w / (4 * n));
  return [-1, 1].map((sign) => Math.min(1, Math.max(0, (share + w / 2 + sign * root) / (1 + w))));
}
/** Whether two shares, of n and m images, surely differ: their intervals do not overlap. */
function differ(a, n, b, m) {
  const [one, other] = [wilson(a, n), wilson(b, m)];
  return !!one && !!other && (one[0] > other[1] || one[1] < other[0]);
}

/** A row of buttons; one is pressed. */
function switcher(key, options, current, label) {
  return el('div.row', { role: 'group', 'aria-label': label }, options.map(([value, text]) =>
    el('button', { 'aria-pressed': String(value === current), onclick: () => choose(key, value) }, text)));
}

/** Downloads a file that the page made. */
function download(name, text) {
  const link = el('a', { href: URL.createObjectURL(new Blob([text], { type: 'text/csv' })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

let tip = null;
/** Shows a note beside a point, or below it. */
function showTip(x, y, content, owner, below = false) {
  hideTip();
  tip = el('div.tip', {}, content);
  tip.owner = owner;
  document.body.append(tip);
  const box = tip.getBoundingClientRect();
  const beside = x + 16 + box.width > innerWidth ? x - box.width - 12 : x + 16;
  const left = below ? Math.min(x, innerWidth - box.width - 4) : beside, top = below ? y : y - box.height / 2;
  tip.style.left = Math.max(4, left) + 'px';
  tip.style.top = Math.max(4, Math.min(top, innerHeight - box.height - 4)) + 'px';
}
function hideTip(owner) {
  if (tip && (!owner || tip.owner === owner)) { tip.remove(); tip = null; }
}
// Values shown by a key stay with their chart; values shown by a pointer disappear.
addEventListener('scroll', () => {
  const owner = tip?.owner;
  hideTip();
  if (owner && owner.box === document.activeElement) owner.again();
}, { passive: true });

// Words of the field, and what they mean: shown at a pointer, at a tap and with the focus.
const TERMS = {
  'kNN mean': 'Accuracy by nearest neighbours: an image gets the class of the training images with the nearest features. Nothing is trained. Features: the mean of the patch tokens.',
  'kNN CLS': 'The same accuracy by nearest neighbours. Features: the class token (CLS).',
  'linear mean': 'Accuracy of a linear classifier that is trained on frozen features. Features: the mean of the patch tokens.',
  'linear CLS': 'The same accuracy of a linear classifier. Features: the class token (CLS).',
  'RankMe': 'How many directions the features use (their effective rank): 1 to the width of the model.',
  'LiDAR': 'How many directions distinguish images while augmented views of one image stay together.',
  'feature std': 'Spread of the features over images: 1 if they point everywhere, 0 if all images have the same.',
  'fixed masks': 'Each probe hides the same patches of the same images, so its losses can be compared.',
  'held-out loss': 'The loss of the stage on images that it does not train on, under the same masks at each probe.',
  'R²': 'The share of the changes in accuracy that a straight line through the loss explains: 0 to 1.',
};
const ANY_TERM = new RegExp(`(${Object.keys(TERMS).join('|')})`, 'i');
const meaning = (word) => Object.entries(TERMS).find(([term]) => term.toLowerCase() === word.toLowerCase())?.[1];

/** A text whose terms explain themselves. */
const explained = (text) => text.split(ANY_TERM).filter(Boolean).map((words) => (meaning(words) ? term(words) : words));

function term(word) {
  const open = (event) => {
    const node = event.currentTarget, box = node.getBoundingClientRect();
    const owner = { box: node, again: () => open({ currentTarget: node }) };
    showTip(box.left, box.bottom + 8, meaning(word), owner, true);
  };
  const close = (event) => { if (tip?.owner.box === event.currentTarget) hideTip(); };
  return el('button.term', { type: 'button', 'aria-label': `${word}: ${meaning(word)}`, onpointerenter: open, onpointerleave: (event) => { if (event.pointerType === 'mouse') close(event); }, onfocus: open, onclick: open, onblur: close, onkeydown: (event) => { if (event.key === 'Escape') hideTip(); } }, word);
}
addEventListener('pointerdown', (event) => { if (tip?.owner.box?.matches('.term') && !tip.owner.box.contains(event.target)) hideTip(); });

/** Announces a text to screen readers. */
function say(text) {
  let live = document.getElementById('live');
  if (!live) document.body.append(live = el('div.hidden', { id: 'live', 'aria-live': 'polite' }));
  live.textContent = text;
}
