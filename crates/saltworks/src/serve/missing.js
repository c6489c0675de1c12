// The page of an address without a run: what is missing, and a way back. While the runs are read,
// the run may still be found, and the server has the page loaded again.

const { reading } = JSON.parse(document.getElementById('data').textContent);

document.title = (reading ? 'reading the runs' : 'no such page') + ' · saltworks';
show(document.getElementById('page'), [
  el('header', {}, el('div.top', {}, el('a.brand', { href: '/' }, '‹ all runs'), el('h1', {}, reading ? 'The runs are still being read' : 'There is no such page or run'), themeButton())),
  el('main', {}, el('p', {}, reading ? readingWords(reading) + ' This page loads again by itself.' : 'A run may have been moved, renamed or removed since this address was made.'),
    el('p', {}, el('a.button', { href: '/' }, 'Show all runs')))]);
