// The page of one run, or of several compared, that stays as new as they are.

const ids = JSON.parse(document.getElementById('data').textContent).ids;
const known = new Map();

/** Pictures are large: they are asked for again only when they were made anew. */
async function withPictures(id, stage) {
  if (!stage.pictures) return;
  const key = JSON.stringify([id, stage.name]), version = stage.pictures.version;
  if (known.get(key)?.version !== version) {
    const made = await fetched(`/api/pictures?id=${encodeURIComponent(id)}&stage=${encodeURIComponent(stage.name)}`);
    known.set(key, { version, made });
  }
  stage.pictures = known.get(key).made;
}

async function run(id) {
  const data = await fetched('/api/run?id=' + encodeURIComponent(id));
  if (ids.length === 1) await Promise.all(data.stages.map((stage) => withPictures(id, stage).catch(() => { stage.pictures = null; })));
  return data;
}

state = { runs: [], live: true };
follow('/events?' + ids.map((id) => 'id=' + encodeURIComponent(id)).join('&'), async () => {
  const asked = await Promise.allSettled(ids.map(run));
  const gone = ids.filter((_, i) => asked[i].status === 'rejected');
  const found = asked.filter((a) => a.status === 'fulfilled').map((a) => a.value);
  if (!found.length) throw asked[0].reason;
  state.missing = gone.length ? `Not there any more, or not readable: ${gone.join(', ')}.` : null;
  update(found);
});
