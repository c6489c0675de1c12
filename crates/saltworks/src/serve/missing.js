// The page of an address without a run: what is missing, and a way back.

document.title = 'no such page · saltworks';
show(document.getElementById('page'), [
  el('header', {}, el('div.top', {}, el('a.brand', { href: '/' }, '‹ all runs'), el('h1', {}, 'There is no such page or run'), themeButton())),
  el('main', {}, el('p', {}, 'A run may have been moved, renamed or removed since this address was made.'),
    el('p', {}, el('a.button', { href: '/' }, 'Show all runs')))]);
