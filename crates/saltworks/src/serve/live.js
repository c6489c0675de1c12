// The live page of one run, or of several that are compared.

const ids = JSON.parse(document.getElementById('data').textContent).ids;
const known = new Map();

/** Adds pictures. They are large, so they are fetched again only when they changed. */
async function withPictures(id, stage) {
  if (!stage.pictures) return;
  const key = JSON.stringify([id, stage.name]), version = stage.pictures.version;
  if (known.get(key)?.version !== version) {
    const pictures = await fetched(`/api/pictures?id=${encodeURIComponent(id)}&stage=${encodeURIComponent(stage.name)}`);
    known.set(key, { version, pictures });
  }
  stage.pictures = known.get(key).pictures;
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
  state.missing = gone.length ? `Missing or unreadable: ${gone.join(', ')}.` : null;
  update(found);
});
