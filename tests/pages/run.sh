#!/usr/bin/env bash
# Looks at report.html and the live pages in a headless Chromium: what they say, and what they do when pointed
# at, tapped, typed at and left alone. Needs Python 3.9; takes a minute.
#
#   cargo build --release && tests/pages/run.sh
#
# CHROMIUM names a browser; without it and without `chromium` in the path, playwright's own is installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${PAGES_VENV:-$here/../../target/pages-venv}
[ -x "$venv/bin/pytest" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q -r "$here/requirements.txt"; }
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
[ -n "$CHROMIUM" ] || "$venv/bin/playwright" install chromium
export CHROMIUM
exec "$venv/bin/pytest" -q "$here" "$@"
