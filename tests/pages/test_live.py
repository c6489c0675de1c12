"""The pages of `saltworks serve`, while a run trains."""

import fcntl
import re
import shutil
import subprocess
import time

import pytest
from conftest import LONG, PROGRAM, Run, Server


@pytest.fixture
def training(trained, tmp_path):
    """A run that trains for as long as its test."""
    folder = tmp_path / "served" / "live"
    sets = ["teacher.steps=30", "student.steps=1000000", "probe.every_steps=200", "probe.images=100"]
    sets = [word for one in sets for word in ("--set", one)]
    command = [PROGRAM, "pretrain", "--out", folder, *sets]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log, until = folder / "metrics.jsonl", time.time() + 120
    while not (log.exists() and '"student"' in log.read_text()):
        assert process.poll() is None and time.time() < until
        time.sleep(0.2)
    yield folder, process
    process.kill()
    process.wait()


def step_shown(seen):
    return int("".join(c for c in seen.text("header").split("step ")[1].split(" of")[0] if c.isdigit()))


def waits_for_news(seen, before):
    seen.page.wait_for_function(
        "(before) => Number(document.querySelector('header').innerText.split('step ')[1].split(' of')[0].replace(/\\D/g, '')) > before",
        arg=before, timeout=20000,
    )


def test_news_take_neither_focus_nor_pointer_away(look, training, serve):
    folder, _ = training
    seen = look(serve(folder.parent) + "run?id=live")
    seen.page.wait_for_selector(".plot svg")
    chart = seen.chart("Learning rate")
    chart.locator("svg").wait_for()
    chart.focus()
    seen.page.keyboard.press("ArrowLeft")
    before = step_shown(seen)
    waits_for_news(seen, before)
    focused = "document.activeElement.closest('[data-view]')?.dataset.view"
    assert seen.page.evaluate(focused).endswith("Learning rate")
    assert seen.page.locator(".tip").count() == 1
    button = seen.page.locator('button:has-text("log")')
    button.focus()
    seen.page.keyboard.press("Enter")
    waits_for_news(seen, step_shown(seen))
    assert seen.page.evaluate("document.activeElement.innerText") == "log"
    assert "student" in seen.text(".verdict")


def test_a_slow_click_opens_a_run(look, training, serve):
    folder, _ = training
    seen = look(serve(folder.parent))
    link = seen.page.locator('a:has-text("live")')
    box = link.bounding_box()
    seen.page.mouse.move(box["x"] + 5, box["y"] + 5)
    seen.page.mouse.down()
    seen.page.wait_for_timeout(2500)
    seen.page.mouse.up()
    seen.page.wait_for_url("**/run?id=live", timeout=5000)


def test_a_killed_run_is_reported_and_its_age_grows(look, training, serve):
    folder, process = training
    seen = look(serve(folder.parent))
    assert "training" in seen.text("table")
    process.kill()
    process.wait()
    seen.page.wait_for_selector(".pill.stopped", timeout=15000)
    assert "no reason was written" in seen.text("td.is-id") and "--resume" in seen.text("td.is-id")
    cell = seen.page.locator("td.is-updated")
    before = cell.inner_text()
    seen.page.wait_for_timeout(12000)
    assert cell.inner_text() != before


def test_any_number_of_tabs_are_answered(look, trained, serve):
    address = serve(trained.parent)
    first = look(address)
    pages = [first]
    for _ in range(8):
        page = first.page.context.new_page()
        page.goto(address + "run?id=trained", timeout=10000)
        page.wait_for_selector(".plot svg", timeout=10000)
        pages.append(page)


def test_the_table_sorts_filters_and_has_columns_of_recipes(look, trained, serve, tmp_path):
    for lr in ["0.001", "0.002"]:
        copy = Run(shutil.copytree(trained, tmp_path / "served" / f"lr-{lr}"))
        copy.tagged("sweep")
        recipe = (copy.folder / "recipe.toml").read_text()
        copy.write("recipe.toml", recipe.replace("seed = 0", f"seed = {lr[-1]}", 1))
    seen = look(serve(tmp_path / "served"))
    assert seen.page.locator("tbody tr").count() == 2
    seen.page.click('button:has-text("#sweep")')
    assert seen.page.locator("tbody tr").count() == 2
    seen.page.click("summary:has-text('columns')")
    seen.page.locator('label:has-text("seed") input').check()
    assert "seed" in seen.text("thead")
    seen.page.click('thead button:has-text("seed")')
    first = seen.page.locator("tbody tr").first.inner_text()
    seen.page.click('thead button:has-text("seed")')
    assert seen.page.locator("tbody tr").first.inner_text() != first
    seen.page.fill('input[type="search"]', "0.002")
    assert seen.page.locator("tbody tr").count() == 1
    assert seen.page.input_value('input[type="search"]') == "0.002"


def test_a_comparison_outlives_a_run_that_goes(look, trained, serve, tmp_path):
    for name in ["one", "two"]:
        shutil.copytree(trained, tmp_path / "served" / name)
    seen = look(serve(tmp_path / "served") + "run?id=one&id=two&id=nope", fine=False)
    seen.page.wait_for_selector(".plot svg")
    assert "2 runs compared" in seen.text("h1") and "nope" in seen.text(".alarm")


def test_a_page_outlives_its_server(look, trained, tmp_path):
    served = tmp_path / "served"
    shutil.copytree(trained, served / "one")
    server = Server(served)
    try:
        seen = look(server.address, fine=False)
        assert seen.page.locator("tbody tr").count() == 1
        # The version of a server with many changes.
        seen.page.evaluate("version = 1000")
        server.end()
        shutil.copytree(trained, served / "two")
        server = Server(served, re.search(r":(\d+)", server.address.removeprefix("http://")).group(1))
        seen.page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 2", timeout=30000)
    finally:
        server.end()


@pytest.mark.parametrize("width", [1400, 390])
def test_rows_stay_low_and_columns_narrow(look, trained, serve, tmp_path, width):
    path = "a/path/of/many/parts/that/no/table/has/the/room/for/" + "x" * 60
    for name, where, more in [("one", "b", "0.0010000001"), ("two", path, "0.001")]:
        copy = Run(shutil.copytree(trained, tmp_path / "served" / name))
        recipe = (copy.folder / "recipe.toml").read_text()
        lr = re.search(r"\nlr = \S+", recipe).group()
        recipe = recipe.replace(lr, f"\nlr = {more}").replace("[data]\n", f'[data]\npath = "{where}"\n', 1)
        copy.write("recipe.toml", re.sub(r'(path = ".*"\n)path = .*\n', r"\1", recipe))
        copy.stopped(LONG if name == "two" else None)
    seen = look(serve(tmp_path / "served"), width)
    row = seen.page.locator('tr[data-key="two"]')
    assert row.bounding_box()["height"] < (120 if width > 600 else 420)
    row.locator(".clamped summary").click()
    assert "163]. Lower" in row.inner_text()
    seen.page.click("summary:has-text('columns')")
    labels = seen.page.locator(".choices label").all_inner_texts()
    assert "data.path" in [label.strip() for label in labels]
    assert not [label for label in labels if label.strip().endswith(".lr")], "they print alike"
    seen.page.locator('.choices label:has-text("data.path") input').check()
    seen.page.click("summary:has-text('columns')")
    cell = row.locator("td.is-set")
    assert cell.locator(".value").get_attribute("title") == path
    if width > 600:
        assert cell.bounding_box()["width"] < 220
    else:
        over = "(cell) => cell.scrollWidth > cell.clientWidth + 1"
        assert not cell.evaluate(over) and "x" * 60 in cell.inner_text()


def test_a_table_says_which_accuracy_and_how_it_went(look, trained, serve):
    for width in [1400, 390]:
        seen = look(serve(trained.parent), width)
        row = seen.page.locator("tbody tr").first
        shown = seen.text("thead") if width > 600 else row.locator("td.is-knn").get_attribute("data-name")
        assert "kNN mean" in shown
        label = row.locator("td.is-trace svg").get_attribute("aria-label")
        assert re.fullmatch(r"online kNN mean: from [\d.]+\u202f% to [\d.]+\u202f% in \d+ probes, at most [\d.]+\u202f%", label), label
        assert "1 run" == seen.text("h1")
        seen.page.click("summary:has-text('What the columns mean')")
        assert "effective rank" in seen.text(".words")


def test_an_unknown_run_is_a_page_with_a_way_back(look, trained, serve):
    address = serve(trained.parent)
    seen = look(address + "run?id=nope", fine=False)
    assert "no such page or run" in seen.text("h1")
    seen.page.click("a:has-text('Show all runs')")
    seen.page.wait_for_selector("table")


def test_a_run_that_trains_nothing_yet_says_what_it_does(look, trained, serve, tmp_path):
    run = Run(shutil.copytree(trained, tmp_path / "served" / "one"))
    for name in ["metrics.jsonl", "pictures/teacher.json", "pictures/student.json"]:
        (run.folder / name).unlink()
    (run.folder / "probes.json").unlink()
    run.stopped()
    with open(run.folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        address = serve(tmp_path / "served")
        assert "probing the teacher before training" in look(address).text("tbody")
        assert "Nothing is trained yet: probing the teacher before training." in look(address + "run?id=one").text(".verdict")
        assert "missing" not in look(address + "run?id=one").text("header")
