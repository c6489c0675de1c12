"""A browser, and runs to look at."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = ROOT / "target" / "release" / "saltworks"


def saltworks(*words, **more):
    return subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, check=True, **more)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as play:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path=os.environ.get("CHROMIUM") or None, args=arguments)
        yield browser
        browser.close()


class Look:
    """A page, its errors and its requests."""

    def __init__(self, context, address):
        self.page = context.new_page()
        self.errors, self.asked = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("h1")
        self.page.wait_for_timeout(300)

    def text(self, selector="body"):
        return self.page.inner_text(selector)

    def chart(self, title):
        return self.page.locator(f'[data-view$="{title}"] .plot')


@pytest.fixture
def look(browser, serve):
    """Opens an address. No page may have an error or be wider than its window.

    Pages are judged before their server ends, for its end cuts their streams of events.
    """
    looks, contexts = [], []

    def opened(address, width=1400, dark=False, fine=True, **more):
        height = 900 if width > 600 else 844
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **more
        )
        contexts.append(context)
        seen = Look(context, address if "://" in str(address) else pathlib.Path(address).as_uri())
        seen.fine, seen.width = fine, width
        looks.append(seen)
        return seen

    yield opened
    for seen in looks:
        if seen.fine and not seen.page.is_closed():
            assert not seen.errors, seen.errors
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= seen.width
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of the built-in images with a dozen probes a stage."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    short = ["teacher.steps=60", "student.steps=120", "probe.every_steps=10", "probe.images=200"]
    sets = [word for one in short for word in ("--set", one)]
    saltworks("pretrain", "--out", folder, *sets)
    return folder


class Run:
    """A copy of a run to change."""

    def __init__(self, folder):
        self.folder = folder

    def log(self):
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def write_log(self, lines):
        (self.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def json(self, name):
        return json.loads((self.folder / name).read_text())

    def write(self, name, value):
        (self.folder / name).write_text(value if isinstance(value, str) else json.dumps(value))

    def unfinished(self):
        """As if the student had been stopped before its last probes."""
        state = self.json("state.json")
        state["finished"] = False
        self.write("state.json", state)
        self.write("probes.json", [row for row in self.json("probes.json") if row["features"] != "student"])

    def tagged(self, tag):
        path = self.folder / "recipe.toml"
        text = path.read_text()
        assert "tags = []" in text
        path.write_text(text.replace("tags = []", f"tags = [{json.dumps(tag)}]", 1))

    def stopped(self, why=None):
        """As if its last process had ended before the run did, with or without a reason."""
        state = self.json("state.json")
        state["finished"] = False
        if why:
            state["ended"] = {"unix_seconds": 1.7e9, "signal": None, "why": why}
        self.write("state.json", state)

    def report(self):
        saltworks("report", self.folder)
        return self.folder / "report.html"


# The reason of a run that met a number that is not finite.
LONG = f"stage student, step 3: not finite. Images of the batch: {list(range(100, 164))}. Lower the learning rate"


@pytest.fixture
def run(trained, tmp_path):
    copy = Run(pathlib.Path(shutil.copytree(trained, tmp_path / "run")))
    # Such a short training may have alarms.
    copy.write_log([line for line in copy.log() if "alarm" not in line])
    return copy


class Server:
    def __init__(self, folder, port=0):
        command = [PROGRAM, "serve", folder, "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = re.search(r"http://\S+", self.process.stdout.readline()).group()

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def serve():
    servers = []

    def started(folder):
        servers.append(Server(folder))
        return servers[-1].address

    yield started
    for server in servers:
        server.end()
