"""Plants faults in a copy of the sources, one at a time, and shows which of them a test finds.

Usage: python3 tests/mutations/run.py [--only SUBSTRING ...] [--jobs-dir DIR] [--table FILE]

The table lists the faults: a text that occurs once in a file, what replaces it, and the commands of
`cargo test` of which one should fail. The commands of a fault run until one fails. Before the first
fault, all commands run once on the sources as they are.

Results are appended to `results.jsonl` in the scratch folder. A run that was interrupted continues
where it stopped, if neither the sources nor the fault have changed.

Exit code: 0 if at least 95 % of the faults are caught, 1 if fewer are or a test fails without a
fault, 2 if the table is wrong.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMEOUT = 15 * 60  # seconds for the tests of one command, built before
WANTED = 0.95
PROFILE = {
    "CARGO_PROFILE_DEV_OPT_LEVEL": "1",
    "CARGO_PROFILE_DEV_DEBUG": "0",
    "CARGO_PROFILE_TEST_OPT_LEVEL": "1",
    "CARGO_INCREMENTAL": "1",
    "CARGO_TERM_COLOR": "never",
}
CAUGHT = ("caught", "caught by time")
ERRORS = ("does not compile", "no test ran")


def main():
    options = arguments()
    root = Path(git(HERE, "rev-parse", "--show-toplevel").strip())
    tracked = [name for name in git(root, "ls-files", "-z").split("\0") if (root / name).is_file()]
    table = tomllib.loads(options.table.read_text())["mutation"]
    problems = [problem for mutation in table for problem in wrong(mutation, root, tracked)]
    names = [mutation["name"] for mutation in table]
    problems += [f"two faults are named {n!r}" for n in sorted(set(names)) if names.count(n) > 1]
    if problems:
        fail(2, "\n".join(problems))
    chosen = [m for m in table if not options.only or any(o in m["name"] for o in options.only)]
    if not chosen:
        fail(2, "no name of a fault contains what --only asks for")
    tree = options.jobs_dir / "tree"
    sources = copy(root, tracked, tree)
    log = Results(options.jobs_dir / "results.jsonl", sources)
    cargo = Cargo(tree, options.target or options.jobs_dir / "target")
    if not options.skip_baseline:
        baseline(chosen, cargo, log)
    run_all(chosen, tree, cargo, log)
    sys.exit(summary(chosen, log))


def arguments():
    scratch = Path(tempfile.gettempdir()) / "saltworks-mutations"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", nargs="+", metavar="SUBSTRING", help="faults whose name contains one of these")
    add("--jobs-dir", type=Path, default=scratch, metavar="DIR", help="the scratch folder")
    add("--table", type=Path, default=HERE / "mutations.toml", metavar="FILE", help="the faults")
    add("--target", type=Path, metavar="DIR", help="cargo's target folder, else a scratch folder")
    add("--skip-baseline", action="store_true", help="do not test the sources without a fault")
    options = parser.parse_args()
    options.jobs_dir.mkdir(parents=True, exist_ok=True)
    options.jobs_dir = options.jobs_dir.resolve()
    return options


def git(folder, *words):
    return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True,
                          text=True).stdout


def fail(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)


def wrong(mutation, root, tracked):
    """What is wrong with an entry of the table."""
    name, file = mutation["name"], mutation["file"]
    if file not in tracked:
        yield f"{name}: {file} is not a tracked file"
        return
    found = (root / file).read_text().count(mutation["find"])
    if found != 1:
        yield f"{name}: its text occurs {found} times in {file}, expected once"
    if mutation["find"] == mutation["replace"]:
        yield f"{name}: it replaces its text by itself"
    if not mutation["tests"]:
        yield f"{name}: it lists no tests"


def copy(root, tracked, tree):
    """Copies the tracked files, and returns a checksum of them all.

    New files keep their times. A file that differs from an earlier copy gets the current time.
    Otherwise cargo would not build it again after an interrupted run.
    """
    checksum = hashlib.sha256()
    for name in tracked:
        source, target = root / name, tree / name
        content = source.read_bytes()
        # Its own files and pages change no result.
        if not name.startswith("tests/mutations/") and not name.endswith(".md"):
            checksum.update(f"{name}\0{len(content)}\0".encode() + content)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        elif target.read_bytes() != content:
            target.write_bytes(content)
    known = {tree / name for name in tracked}
    for target in list(tree.rglob("*")):
        if target.is_file() and target not in known:
            target.unlink()
    return checksum.hexdigest()


class Results:
    """The results so far, in a file of JSON lines."""

    def __init__(self, path, sources):
        self.path, self.sources = path, sources
        lines = path.read_text().splitlines() if path.exists() else []
        # Entries that were wrong are tried again.
        results = [line for line in map(json.loads, lines) if line["outcome"] not in ERRORS]
        self.known = {line["key"]: line for line in results}

    def key(self, what):
        text = self.sources + json.dumps(what, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, what):
        return self.known.get(self.key(what))

    def add(self, what, **result):
        line = {"key": self.key(what), **result}
        self.known[line["key"]] = line
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def cut(words):
    """The number of words that choose what is built: the rest chooses tests."""
    options = [at for at, word in enumerate(words) if word.startswith("-")]
    last = options[-1] if options else -1
    return last + (1 if words[last] == "--lib" else 2)


class Cargo:
    """Runs `cargo test` in the copy."""

    def __init__(self, tree, target):
        self.tree, self.output = tree, ""
        self.environment = {**os.environ, **PROFILE, "CARGO_TARGET_DIR": str(target.resolve())}

    def test(self, words):
        """The outcome of a command, and the test that failed or what is wrong."""
        # The time limit is for the tests alone.
        subprocess.run(["cargo", "test", "--no-run", *words[: cut(words)]], cwd=self.tree,
                       env=self.environment, capture_output=True)
        process = subprocess.Popen(["cargo", "test", *words], cwd=self.tree, env=self.environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace", start_new_session=True)
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return "caught by time", f"{TIMEOUT // 60} min"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if "could not compile" in output:
            errors = re.findall(r"^error.*(?:\n.*){0,4}", output, re.MULTILINE)
            return "does not compile", "\n".join(errors[:1])
        count = sum(map(int, re.findall(r"^running (\d+) tests?", output, re.MULTILINE)))
        if count == 0:
            tail = output[-1000:] if process.returncode else ""
            return "no test ran", " ".join(words) + "\n" + tail
        if process.returncode == 0:
            return "missed", ""
        failed = re.findall(r"^test (\S+).* \.\.\. FAILED", output, re.MULTILINE)
        failed += re.findall(r"^---- (\S+) stdout ----", output, re.MULTILINE)
        self.output = output
        return "caught", failed[0] if failed else "the test process ended"


def baseline(chosen, cargo, log):
    """Runs the commands of all faults on the sources as they are."""
    commands = list(dict.fromkeys(tuple(words) for m in chosen for words in m["tests"]))
    for number, words in enumerate(commands, 1):
        if log.get(words):
            continue
        outcome, why = cargo.test(words)
        show = f"[{number:3}/{len(commands)}] without a fault: {' '.join(words)}"
        if outcome != "missed":
            print(cargo.output[-4000:], file=sys.stderr)
            code = 2 if outcome == "no test ran" else 1
            fail(code, f"{show}\n  {outcome}, expected to pass: {why}")
        print(f"{show}: passed", flush=True)
        log.add(words, outcome="passed")


def run_all(chosen, tree, cargo, log):
    left = [m for m in chosen if not log.get(m)]
    print(f"{len(chosen)} faults, {len(chosen) - len(left)} of them tested before", flush=True)
    begun = time.monotonic()
    for number, mutation in enumerate(left, 1):
        start = time.monotonic()
        outcome, why = planted(mutation, tree, cargo)
        now = time.monotonic()
        log.add(mutation, name=mutation["name"], outcome=outcome, why=why, seconds=now - start)
        minutes = (now - begun) / number * (len(left) - number) / 60
        print(f"[{number:3}/{len(left)}] {outcome:8} {now - start:4.0f} s  {mutation['name']}"
              f"  ({why})  {minutes:.0f} min left", flush=True)


def planted(mutation, tree, cargo):
    """The outcome of the first command that does not pass with this fault."""
    path = tree / mutation["file"]
    text = path.read_text()
    try:
        path.write_text(text.replace(mutation["find"], mutation["replace"]))
        for words in mutation["tests"]:
            outcome, why = cargo.test(words)
            if outcome != "missed":
                break
    finally:
        # Its time is now, so that cargo builds it again.
        path.write_text(text)
    return outcome, why


def summary(chosen, log):
    """Prints all outcomes. Returns the exit code."""
    results = [(mutation, log.get(mutation)) for mutation in chosen]
    width = max(len(mutation["name"]) for mutation in chosen)
    print(f"\n{'fault':{width}}  outcome")
    for mutation, result in results:
        why = (result["why"].splitlines() or [""])[0]
        print(f"{mutation['name']:{width}}  {result['outcome']}  {why}")
    outcomes = [result["outcome"] for _, result in results]
    caught = sum(outcome in CAUGHT for outcome in outcomes)
    print(f"\n{caught} of {len(outcomes)} faults are caught: {100 * caught / len(outcomes):.1f} %")
    errors = sum(outcome in ERRORS for outcome in outcomes)
    if errors:
        print(f"{errors} entries of the table are wrong")
        return 2
    return 0 if caught >= WANTED * len(outcomes) else 1


if __name__ == "__main__":
    main()
