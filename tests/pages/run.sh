#!/usr/bin/env bash
# Tests report.html and the live pages in a headless Chromium: their texts, and their answers to
# pointer, touch and keys. Needs Python 3.9; takes a minute.
#
#   cargo build --release && tests/pages/run.sh
#
# CHROMIUM names a browser. Without it, `chromium` in the path is used, or playwright's own is installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${PAGES_VENV:-$here/../../target/pages-venv}
[ -x "$venv/bin/pytest" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q -r "$here/requirements.txt"; }
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
[ -n "$CHROMIUM" ] || "$venv/bin/playwright" install chromium
export CHROMIUM
exec "$venv/bin/pytest" -q "$here" "$@"
