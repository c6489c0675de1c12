// Shared by the live pages: the server reports that something changed, and the page fetches it.

/** Shows a problem above the page, until `problem(null)`. */
function problem(text) {
  document.getElementById('problem')?.remove();
  if (text) document.body.prepend(el('div.alarm', { id: 'problem', role: 'status', style: 'margin:10px 20px' }, text));
}

/** How far the first reading of the runs is, in words. */
const readingWords = ({ folders, found, read }) => (read
  ? `${thousands(read)} of ${counted(found, 'run')} are read so far.`
  : `${counted(folders, 'folder')} searched so far, ${counted(found, 'run')} found.`);

async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

/**
 * Calls `refresh` now and whenever the server reports a change, one call after another. A hidden
 * page does not listen: browsers open few connections to one server.
 */
function follow(path, refresh) {
  let asking = false, again = false, news = null;
  const ask = async () => {
    if (asking) { again = true; return; }
    asking = true;
    try { await refresh(); problem(null); } catch (error) { problem(error.message); }
    asking = false;
    if (again) { again = false; setTimeout(ask, 1000); }
  };
  // If no run trains, the server ends the connection, and the page asks again later.
  const later = () => { news?.close(); news = null; setTimeout(listen, 10000); };
  const listen = () => {
    if (document.visibilityState === 'hidden') { news?.close(); news = null; return; }
    if (news) return;
    news = new EventSource(path);
    news.onmessage = ask;
    news.addEventListener('end', later);
    news.onerror = () => problem('The connection was lost; trying again.');
  };
  document.addEventListener('visibilitychange', listen);
  addEventListener('pagehide', () => { news?.close(); news = null; });
  addEventListener('pageshow', listen);
  listen();
}
