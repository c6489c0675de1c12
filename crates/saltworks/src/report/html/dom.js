'use strict';
// Everything a run says (names, labels, recipes) reaches the page as text, never as HTML.

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
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'style') node.style.cssText = value;
    else if (value === true) node.setAttribute(key, '');
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  for (const child of children.flat(9)) if (child != null && child !== false) node.append(child);
  return node;
}

// What the reader chose; survives a redraw and, in a file that reloads itself, a reload.
const chosen = (() => {
  try { return JSON.parse(sessionStorage.getItem('saltworks') || '{}'); } catch { return {}; }
})();
function choose(key, value) {
  chosen[key] = value;
  try { sessionStorage.setItem('saltworks', JSON.stringify(chosen)); } catch { /* a page without storage */ }
  draw();
}

// Light or dark: as the system says, unless the reader chose.
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

// Numbers as people read them.
const isNumber = (x) => typeof x === 'number' && Number.isFinite(x);
const percent = (x, digits = 1) => (isNumber(x) ? (100 * x).toFixed(digits) + ' %' : '–');
function number(x, digits = 3) {
  if (!isNumber(x)) return '–';
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return x.toExponential(1).replace('e+', 'e');
  if (size >= 1000) return Math.round(x).toLocaleString('en').replaceAll(',', '\u202f');
  return String(Number(x.toPrecision(digits)));
}
function duration(seconds) {
  if (!isNumber(seconds)) return '–';
  const s = Math.round(seconds);
  if (s < 60) return s + ' s';
  if (s < 3600) return Math.round(s / 60) + ' min';
  if (s < 172800) return Math.floor(s / 3600) + ' h ' + Math.round((s % 3600) / 60) + ' min';
  return Math.round(s / 86400) + ' d';
}
const time = (unix) => (isNumber(unix) ? new Date(1000 * unix).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' }) : '–');

/** Buttons of which one is pressed. */
function switcher(key, options, current, label) {
  return el('div.row', { role: 'group', 'aria-label': label }, options.map(([value, text]) =>
    el('button', { 'aria-pressed': String(value === current), onclick: () => choose(key, value) }, text)));
}

let tip = null;
function showTip(x, y, content) {
  hideTip();
  tip = el('div.tip', {}, content);
  document.body.append(tip);
  const box = tip.getBoundingClientRect();
  const left = x + 16 + box.width > innerWidth ? x - box.width - 12 : x + 16;
  tip.style.left = Math.max(4, left) + 'px';
  tip.style.top = Math.max(4, Math.min(y - box.height / 2, innerHeight - box.height - 4)) + 'px';
}
function hideTip() { if (tip) tip.remove(); tip = null; }
addEventListener('scroll', hideTip, { passive: true });
