// What the live pages share: they are told when something changed, and then ask for it.

/** Says what is wrong above the page, until `say(null)`. */
function say(problem) {
  document.getElementById('problem')?.remove();
  if (problem) document.body.prepend(el('div.alarm', { id: 'problem', role: 'status', style: 'margin:10px 20px' }, problem));
}

async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

/** Calls `refresh` now and whenever the server says that something changed, one call after another. */
function follow(path, refresh) {
  let asking = false, again = false;
  const ask = async () => {
    if (asking) { again = true; return; }
    asking = true;
    try { await refresh(); say(null); } catch (error) { say(error.message); }
    asking = false;
    if (again) { again = false; setTimeout(ask, 1000); }
  };
  const news = new EventSource(path);
  news.onmessage = ask;
  news.onerror = () => say('The connection was lost; trying again.');
}
