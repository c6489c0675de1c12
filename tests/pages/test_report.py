"""report.html of runs that go well, go wrong, or were tampered with."""

import json
import shutil

import pytest
from conftest import LONG, Run, saltworks

STUDENT = "student"


def percent(share):
    return f"{100 * share:.1f}\u202f%"


@pytest.mark.parametrize("width,dark", [(1400, False), (1400, True), (390, False), (390, True)])
def test_a_report_is_one_file_with_all_its_parts(look, run, width, dark):
    seen = look(run.report(), width, dark)
    seen.page.wait_for_timeout(500)
    assert len(seen.asked) == 1 or all(url.startswith(("data:", "blob:")) for url in seen.asked[1:])
    assert seen.page.locator("main").count() == 1
    assert seen.page.locator(".plot svg.chart").count() >= 9
    for words in ["Accuracy of frozen features", "Attention of the last block", "Nearest training images", "Recipe"]:
        assert words in seen.text(), words
    pictures = "[...document.images].every((image) => image.complete && image.naturalWidth > 0 && image.alt)"
    assert seen.page.evaluate(pictures)


def test_the_verdict_comes_first_and_its_table_has_all_accuracies(look, run):
    seen = look(run.report())
    said = seen.text(".verdict")
    assert said.startswith("The student is ") and "than a random encoder: " in said
    table = seen.page.locator("table.data").first.inner_text()
    for row in run.json("probes.json"):
        for key in ["knn_mean", "linear_mean", "knn_cls", "linear_cls"]:
            assert row[key] is None or percent(row[key]) in table
    images = f"{run.json('probes.json')[0]['images']:,} images".replace(",", "\u202f")
    assert images in table and "95 % interval" in seen.text("main section")


def test_during_training_online_probes_are_compared_with_online_probes(look, run):
    run.unfinished()
    probes = [line["probe"] for line in run.log() if line["stage"] == STUDENT and "probe" in line]
    first, last = probes[0]["knn_mean"], probes[-1]["knn_mean"]
    seen = look(run.report())
    said = seen.text(".verdict")
    assert said.startswith("After step 120, on 200 held-out images, the student is "), said
    assert "before training" in said and "random encoder" not in said, "that one is of all images"
    table = seen.page.locator("table.data").first
    for name, share in [("student, before training", first), ("student, step 120", last)]:
        cells = table.locator(f'tr:has-text("{name}") td').all_inner_texts()
        assert "200 images" in cells[0] and percent(share) in cells[1], cells
    assert "Compare only rows of as many images" in seen.text()


def test_an_untrained_encoder_makes_no_headline(look, run):
    run.unfinished()
    run.write_log([line for line in run.log() if line["stage"] == "teacher" or line["step"] <= 5])
    seen = look(run.report())
    assert seen.text(".verdict") == "The student is not probed yet."
    assert "student, step" not in seen.page.locator("table.data").first.inner_text()
    assert "The teacher is " in seen.text("main")


def with_probes(run, pairs):
    """The student's probes become these losses and accuracies."""
    lines, pairs = [], iter(pairs)
    for line in run.log():
        if line["stage"] == STUDENT and "probe" in line and line["step"] > 0:
            pair = next(pairs, None)
            if pair is None:
                continue
            line["probe"]["loss"], line["probe"]["knn_mean"] = pair
        lines.append(line)
    run.write_log(lines)


def test_a_loss_that_rises_with_accuracy_is_not_praised(look, run):
    with_probes(run, [(0.1 * i, 0.1 * i) for i in range(1, 8)])
    seen = look(run.report())
    assert "loss misleads" in seen.text(".sign")
    assert "Wrong direction" in seen.text()


def test_the_loss_is_compared_with_an_accuracy_with_a_name(look, run):
    with_probes(run, [(0.8 - 0.1 * i, 0.1 * i) for i in range(1, 8)])
    said = look(run.report()).text(".sign")
    assert "the online kNN accuracy of the mean token, which rises as the loss falls (R² 1.00, 7 probes)" in said


def with_table(run, images=1000, **shares):
    """probes.json becomes rows of these accuracies."""
    names = {"random": "random encoder"}
    rows = [
        {"features": names.get(name, name), "images": images, "knn_mean": share, "linear_mean": None, "knn_cls": None, "linear_cls": None}
        for name, share in shares.items()
    ]
    run.write("probes.json", rows)


def test_a_student_is_compared_with_its_teacher_and_a_random_encoder(look, run):
    with_table(run, random=0.5, teacher=0.6, student=0.3)
    seen = look(run.report())
    said = seen.text(".verdict").replace("\u202f", " ")
    assert said.startswith("The student is worse than a random encoder: kNN 30.0 % against 50.0 %. Train longer")
    assert "It is worse than its teacher: kNN 30.0\u202f% against 60.0\u202f%." in seen.text(".details")
    assert "The teacher is better than a random encoder" in seen.text("main")
    with_table(run, random=0.3, teacher=0.6, student=0.61)
    seen = look(run.report())
    said = seen.text(".verdict").replace("\u202f", " ")
    assert said == "The student is better than a random encoder: kNN 61.0 % against 30.0 %."
    assert "It equals its teacher within chance: kNN 61.0\u202f% against 60.0\u202f%." in seen.text(".details")


def test_the_table_marks_what_chance_does_not_explain(look, run):
    with_table(run, 300, random=0.2, teacher=0.317, student=0.333)
    marks = look(run.report()).page.locator("table.data [title*='beyond chance']")
    assert [mark.get_attribute("title").split(" ")[0] for mark in marks.all()] == ["lower"]
    with_table(run, 300, random=0.2, teacher=0.633, student=0.333)
    marks = look(run.report()).page.locator("table.data [title*='beyond chance']")
    assert [mark.get_attribute("title").split(" ")[0] for mark in marks.all()] == ["lower", "higher"]


def test_what_salt_finds_is_said_of_students_alone(look, run):
    seen = look(run.report())
    assert "SALT finds" in seen.text()
    seen.page.locator('[aria-label="stage"] button:has-text("teacher")').click()
    assert "Curves of the teacher" in seen.text() and "SALT finds" not in seen.text()


@pytest.mark.parametrize("width", [1400, 390])
def test_a_long_reason_is_two_lines_until_it_is_asked_for(look, run, width):
    run.stopped(LONG)
    seen = look(run.report(), width)
    reason = seen.page.locator(".ended")
    assert reason.bounding_box()["height"] < 60
    reason.locator("summary").click()
    assert "163]. Lower" in reason.inner_text() and reason.bounding_box()["height"] > 55


def test_a_run_that_stopped_without_a_reason_says_how_to_resume_it(look, run):
    run.stopped()
    said = look(run.report()).text("header")
    assert "no reason was written" in said and f"`saltworks pretrain --resume --out {run.folder}` resumes it" in said


def test_few_probes_draw_no_line(look, run):
    with_probes(run, [(0.5, 0.3), (0.4, 0.4), (0.3, 0.5), (0.2, 0.6)])
    seen = look(run.report())
    assert seen.page.locator(".sign").count() == 0
    assert "4 probes: a line is drawn through 5 or more" in seen.text()


def test_nothing_is_called_held_out_that_trains(look, run):
    lines = run.log()
    for line in lines:
        if "probe" in line:
            kept = {key: value for key, value in line["probe"].items() if not key.startswith(("knn", "linear"))}
            line["probe"] = {**kept, "held_out": False}
    run.write_log(lines)
    run.write("probes.json", [])
    for stage in ["teacher", STUDENT]:
        run.write(f"pictures/{stage}.json", {**run.json(f"pictures/{stage}.json"), "held_out": False})
    text = look(run.report()).text("main").split("Recipe")[0]
    assert "Nothing is held out" in text and "fixed training images" in text
    assert "held-out" not in text.lower(), [line for line in text.splitlines() if "held-out" in line.lower()]


@pytest.mark.parametrize(
    "name,value",
    [
        ("environment.json", {"command": "x", "threads": "two"}),
        ("plan.json", {"stages": {"a": 1}}),
        ("plan.json", {"stages": [None]}),
        ("probes.json", {"rows": 5}),
        ("state.json", "[1, 2"),
        ("pictures/student.json", {"step": 1, "images": 5}),
        ("pictures/student.json", {"step": 1, "images": [{"png": "x"}], "grid": [2, 2], "size": [4, 4], "masks": 7}),
        ("recipe.toml", "this is no recipe"),
    ],
)
def test_a_damaged_file_takes_no_other_part_along(look, run, name, value):
    run.write(name, value)
    seen = look(run.report(), fine=False)
    seen.page.wait_for_timeout(300)
    assert not [error for error in seen.errors if "ERR_INVALID_URL" not in error], seen.errors
    for words in ["Curves of the student", "Accuracy of frozen features", "Recipe"]:
        assert words in seen.text(), words
    assert seen.page.locator(".plot svg.chart").count() >= 8
    # The page says what is missing, in that part or above.
    if not name.startswith("pictures"):
        assert name in seen.text("header")


@pytest.mark.parametrize(
    "name,value",
    [
        ("grid", [0, "x"]),
        ("grid", [1e9, 1e9]),
        ("grid", None),
        ("map", {"kind": "t-SNE", "x": [1], "y": "none", "label": [1, 2]}),
        ("attention", {"patches": [1, 2], "cls": None}),
    ],
)
def test_damaged_pictures_show_an_error_in_their_part(look, run, name, value):
    run.write("pictures/student.json", {**run.json("pictures/student.json"), name: value})
    seen = look(run.report())
    seen.page.wait_for_timeout(300)
    assert "cannot be shown" in seen.text()
    assert "Nearest training images" in seen.text() and "Recipe" in seen.text()


def test_numbers_at_the_ends_of_the_world_are_drawn(look, run):
    lines = run.log()
    for place, line in enumerate(lines):
        if "loss" in line:
            line["loss"] = [1e308, -1e308, 5e-324, 1.0][place % 4]
            line["grad_norm"] = 1.7e308
    lines.append({"stage": STUDENT, "step": 120, "alarm": "odd", "text": ""})
    for line in lines:
        if "probe" in line:
            line["probe"]["test_images"] = 0
    run.write_log(lines)
    seen = look(run.report())
    for _ in range(2):
        drawn = seen.page.evaluate("[...document.querySelectorAll('svg.chart')].map((chart) => chart.outerHTML).join()")
        assert "NaN" not in drawn and "Infinity" not in drawn
        seen.page.click('button:has-text("log")')
    assert "NaN" not in seen.text() and "odd" in seen.text(".alarm") and "student" in seen.text(".verdict")


def test_attention_of_absurd_sizes_hangs_nothing(look, run):
    pictures = run.json("pictures/student.json")
    pictures["attention"]["heads"] = 1e9
    run.write("pictures/student.json", pictures)
    assert "Attention of the last block" in look(run.report()).text()


def test_texts_of_a_run_are_texts(look, run):
    evil = "</script><img src=x onerror=window.broken=1>"
    pictures = run.json("pictures/student.json")
    pictures["classes"] = [evil] * 10
    run.write("pictures/student.json", pictures)
    lines = run.log()
    lines.append({"stage": STUDENT, "step": 120, "alarm": evil, "text": f"{evil}\u2028<!--"})
    run.write_log(lines)
    run.tagged(evil)
    seen = look(run.report())
    assert seen.page.evaluate("window.broken") is None
    assert seen.page.locator("img[src=x]").count() == 0
    assert evil in seen.text(".alarm") and evil in seen.text(".tag")


def test_alarms_that_are_over_do_not_shout(look, run):
    lines, probes = run.log(), 0
    for place, line in enumerate(lines):
        if line["stage"] == STUDENT and "probe" in line:
            probes += 1
            if probes == 3:
                lines.insert(place + 1, {"stage": STUDENT, "step": line["step"], "alarm": "flat", "text": "no gain"})
                break
    run.write_log(lines)
    seen = look(run.report())
    assert seen.page.locator(".alarm").count() == 0
    assert "1 alarm that is over" in seen.text()


def test_a_file_of_a_run_that_fell_silent_says_so(look, run):
    page = run.report()
    text = page.read_text()
    old = json.dumps(run.log()[-1]["unix_seconds"])
    assert old in text and '"status":"finished"' in text
    page.write_text(text.replace('"status":"finished"', '"status":"training"').replace(old, "1700000000.5"))
    seen = look(page)
    assert "No update since" in seen.text("header") and "left" not in seen.text("header").split("No update")[0]
    assert seen.page.locator(".pill.silent").count() == 1


def test_one_step_is_a_point(look, run):
    run.write_log([line for line in run.log() if line["step"] <= 1 and line["stage"] == "teacher" and "probe" not in line])
    seen = look(run.report())
    assert seen.chart("Learning rate").locator("circle").count() == 1


def test_zeros_are_not_drawn_on_a_logarithmic_axis(look, run):
    lines = run.log()
    for line in lines:
        if "loss" in line and line["step"] % 3 == 0:
            line["loss"] = 0.0
    run.write_log(lines)
    seen = look(run.report())
    seen.page.click('button:has-text("log")')
    assert "are not on a logarithmic axis" in seen.text()
    line = seen.chart("Loss").locator("polyline").first.get_attribute("points")
    assert all(0 <= float(point.split(",")[1]) <= 250 for point in line.split())


def test_ticks_of_a_plateau_differ(look, run):
    lines = run.log()
    for place, line in enumerate(lines):
        if "loss" in line:
            line["loss"] = 0.12345 + 1e-6 * (place % 10)
        elif "probe" in line:
            line["probe"]["loss"] = 0.12345
    run.write_log(lines)
    seen = look(run.report())
    texts = seen.chart("Loss").locator("text[text-anchor=end]").all_text_contents()[:-1]
    assert len(texts) >= 3 and len(set(texts)) == len(texts), texts


def points_of(seen, title):
    return seen.chart(title).locator("polyline").first.get_attribute("points")


def test_values_by_pointer_in_every_linked_chart(look, run):
    seen = look(run.report())
    # The verdict above it may be long.
    seen.chart("Loss").scroll_into_view_if_needed()
    seen.page.wait_for_timeout(200)
    box = seen.chart("Loss").bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80)
    assert "step" in seen.text(".tip") and "training" in seen.text(".tip")
    shown = seen.page.locator('.plot line.cross[visibility="visible"]').count()
    assert shown >= 6, "the same step in the others"
    seen.page.mouse.move(box["x"] - 30, box["y"] - 60)
    assert seen.page.locator(".tip").count() == 0


def test_values_by_touch_until_the_next_tap_elsewhere(look, run):
    seen = look(run.report(), 390, has_touch=True, is_mobile=True)
    for title in ["Loss", "Held-out loss"]:
        chart = seen.page.locator(f'[data-view*="{title}"] .plot').first
        chart.scroll_into_view_if_needed()
        seen.page.wait_for_timeout(200)
        box = chart.bounding_box()
        seen.page.touchscreen.tap(box["x"] + box["width"] * 0.6, box["y"] + 60)
        if title == "Loss":
            assert "step" in seen.text(".tip")
    seen.page.locator("h1").tap()
    assert seen.page.locator(".tip").count() == 0


@pytest.mark.parametrize("how", ["pointer", "tap", "keys"])
def test_terms_explain_themselves(look, run, how):
    seen = look(run.report(), 390 if how == "tap" else 1400, has_touch=how == "tap", is_mobile=how == "tap")
    term = seen.page.locator(".term:has-text('RankMe')").first
    term.scroll_into_view_if_needed()
    seen.page.wait_for_timeout(200)
    {"pointer": term.hover, "tap": term.tap, "keys": term.focus}[how]()
    assert "effective rank" in seen.text(".tip")
    if how == "keys":
        seen.page.keyboard.press("Escape")
    elif how == "tap":
        seen.page.locator("p").last.tap()
    else:
        seen.page.mouse.move(2, 2)
    assert seen.page.locator(".tip").count() == 0


def test_a_single_probe_draws_no_curve_and_its_pictures_say_when(look, run):
    run.unfinished()
    run.write_log([line for line in run.log() if line["stage"] == "teacher" or line["step"] <= 5])
    run.write("pictures/student.json", {**run.json("pictures/student.json"), "step": 0})
    seen = look(run.report())
    assert "What the student sees before training" in seen.text("main")
    assert "untrained student" in seen.text("main")
    assert "Rank of features" not in seen.text("main") and "from the second probe on" in seen.text("main")


def test_values_by_keys_are_said(look, run):
    seen = look(run.report())
    seen.chart("Loss").focus()
    seen.page.keyboard.press("ArrowLeft")
    seen.page.keyboard.press("ArrowLeft")
    assert "training" in seen.text("#live") and seen.page.locator(".tip").count() == 1
    scatter = seen.page.locator('[data-view*="Held-out loss"] .plot')
    scatter.focus()
    seen.page.keyboard.press("ArrowRight")
    assert "loss" in seen.text("#live")
    seen.page.keyboard.press("Escape")
    assert seen.page.locator(".tip").count() == 0


def test_a_drag_zooms_all_curves_and_one_button_undoes_it(look, run):
    seen = look(run.report())
    before, other = points_of(seen, "Loss"), points_of(seen, "Learning rate")
    seen.chart("Loss").scroll_into_view_if_needed()
    seen.page.wait_for_timeout(200)
    box = seen.chart("Loss").bounding_box()
    seen.page.mouse.move(box["x"] + 200, box["y"] + 80)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + 350, box["y"] + 80, steps=4)
    seen.page.mouse.up()
    assert points_of(seen, "Loss") != before and points_of(seen, "Learning rate") != other
    assert seen.page.evaluate("getSelection().toString()") == ""
    loose = "[...document.querySelectorAll('.plot polyline')].filter((line) => !line.closest('[clip-path]')).length"
    assert seen.page.evaluate(loose) == 0, "lines end where the axes do"
    ids = seen.page.evaluate("[...document.querySelectorAll('clipPath')].map((clip) => clip.id)")
    assert len(set(ids)) == len(ids)
    seen.page.locator('button:has-text("whole")').first.click()
    assert points_of(seen, "Loss") == before


def test_smoothing_axis_and_legend(look, run):
    seen = look(run.report())
    lines = seen.chart("Loss").locator("polyline")
    count = lines.count()
    seen.page.locator('input[type="range"]').fill("0.9")
    assert lines.count() == count + 1, "the rough line stays, faint"
    seen.page.click('button:has-text("images")')
    assert "images" in seen.chart("Loss").locator("svg").text_content()
    seen.page.click('button:has-text("time")')
    assert "minutes" in seen.chart("Loss").locator("svg").text_content()
    key = seen.page.locator('[data-view$="Accuracy of frozen features"] button.key').first
    before = seen.chart("Accuracy of frozen features").locator("polyline").count()
    key.click()
    assert seen.chart("Accuracy of frozen features").locator("polyline").count() == before - 1
    assert key.get_attribute("aria-pressed") == "false"


def test_low_curves_have_ticks_and_the_last_value_is_told(look, run):
    lines = run.log()
    for line in lines:
        if "loss" in line:
            line["loss"] = 0.07 + 3.0 / line["step"] ** 2
        elif "probe" in line:
            line["probe"]["loss"] = 0.0712
    run.write_log(lines)
    seen = look(run.report())
    ticks = [float(text) for text in seen.chart("Loss").locator("text[text-anchor=end]").all_text_contents()[:-1]]
    assert 4 <= len(ticks) <= 8 and min(ticks) <= 0.07, ticks
    assert "0.0712" in seen.text('[data-view$="Loss"] .legend')


def test_values_can_be_taken_along(look, run):
    seen = look(run.report())
    with seen.page.expect_download() as started:
        seen.page.locator('[data-view$="Accuracy of frozen features"] button:has-text("csv")').click()
    text = started.value.path().read_text().splitlines()
    probes = [line for line in run.log() if line["stage"] == STUDENT and "probe" in line]
    assert text[0].startswith('"step","kNN mean"') and len(text) == len(probes) + 1
    last = text[-1].split(",")
    assert (int(last[0]), float(last[1])) == (120, probes[-1]["probe"]["knn_mean"])


def test_many_runs_are_told_apart_and_seeds_are_one(look, run, tmp_path):
    runs = []
    for seed in range(9):
        copy = tmp_path / f"abl-{seed // 3}-seed{seed % 3}"
        shutil.copytree(run.folder, copy)
        recipe = (copy / "recipe.toml").read_text().replace("seed = 0", f"seed = {seed % 3}", 1)
        sources = f'[[data.source]]\npath = "a"\nweight = 1.0\n\n[[data.source]]\npath = "b{seed // 3}"\nweight = 1.0\n'
        (copy / "recipe.toml").write_text(recipe + "\n" + sources)
        runs.append(copy)
    page = tmp_path / "all.html"
    saltworks("report", *runs, "--out", page)
    seen = look(page)
    assert "9 runs compared" in seen.text("h1")
    text = seen.text()
    assert "abl-0, 3 seeds" in text and "±" in text, "means over seeds"
    assert "data.source 2.path" in text and '"b1"' in text, "what differs in the recipes"
    assert "data.source 2.path" in seen.text(".alarm"), "accuracies of other images"
    assert text.index("What differs in the recipes") < text.index("Curves of the student")
    seen.page.click('button:has-text("seeds as one")')
    lines = seen.chart("Accuracy: kNN mean").locator("polyline").all()
    looks = {(line.get_attribute("stroke"), line.get_attribute("stroke-dasharray")) for line in lines}
    assert len(lines) == 9 and len(looks) == 9, "no two alike"


def compared(run, place, *changes):
    """A comparison of copies of a run, each with a change: its name and what stands for what in its recipe."""
    copies = []
    for name, *pairs in changes:
        copy = Run(shutil.copytree(run.folder, place / name))
        recipe = (copy.folder / "recipe.toml").read_text()
        for old, new in pairs:
            assert old in recipe
            recipe = recipe.replace(old, new, 1)
        copy.write("recipe.toml", recipe)
        copies.append(copy)
    return copies, place / "compared.html"


def test_a_comparison_begins_with_the_best_and_how_sure_that_is(look, run, tmp_path):
    runs, page = compared(run, tmp_path, ("a", ("steps = 60", "steps = 61")), ("b", ("steps = 60", "steps = 60.0")), ("constructor", ("steps = 120", "steps = 121")))
    for copy, share in zip(runs, [0.5, 0.7, 0.71]):
        with_table(copy, student=share)
    saltworks("report", *[copy.folder for copy in runs], "--out", page)
    seen = look(page)
    assert "by kNN constructor, 71.0\u202f%, 95 % interval 68.1 to 73.7, the next b, 70.0\u202f%, which chance may explain" in seen.text(".verdict")
    assert "Other data" not in seen.text()
    keys = seen.page.locator("table.named").first.locator("tbody td:first-child").all_inner_texts()
    assert keys == ["teacher.steps", "student.steps"]
    assert seen.chart("Training loss").locator("polyline").count() == 3, "also of one whose name is a word of the language"
    with_table(runs[2], student=0.8)
    saltworks("report", *[copy.folder for copy in runs], "--out", page)
    assert "the next b, 70.0\u202f%, 10.0 points less" in look(page).text(".verdict")


def test_copies_of_a_run_are_no_seeds(look, run, tmp_path):
    runs, page = compared(run, tmp_path, ("base-0",), ("base-1", ("seed = 0", "seed = 1")), ("base-0-again",))
    saltworks("report", *[copy.folder for copy in runs], "--out", page)
    text = look(page).text()
    assert "base, 2 seeds" in text and "3 seeds" not in text
    for copy in runs:
        recipe = (copy.folder / "recipe.toml").read_text()
        copy.write("recipe.toml", recipe.replace("seed = 1", "seed = 0"))
    saltworks("report", *[copy.folder for copy in runs], "--out", page)
    assert "seeds" not in look(page).text().split("Recipe")[0]


def test_one_run_that_ran_away_leaves_the_others_their_axis(look, run, tmp_path):
    runs, page = compared(run, tmp_path, ("good",), ("fine",), ("away",))
    lines = runs[2].log()
    [line for line in lines if "loss" in line and line["stage"] == STUDENT][-1]["loss"] = 2e13
    runs[2].write_log(lines)
    saltworks("report", *[copy.folder for copy in runs], "--out", page)
    seen = look(page)
    ticks = seen.chart("Training loss").locator("text[text-anchor=end]").all_text_contents()[:-1]
    assert all(float(tick) < 100 for tick in ticks), ticks
    assert "Off the axis: away, up to 2.0e13" in seen.text()


def test_a_phone_shows_that_wide_things_go_on(look, run, tmp_path):
    seen = look(run.report(), 390)
    assert seen.page.locator(".strip[data-more]").count() == 1 and seen.page.locator(".scroll[data-more]").count() == 1
    pairs = [("crop_scale = [0.", "crop_scale = [0.123456")]
    runs, page = compared(run, tmp_path, *[(f"run{i}", ("seed = 0", f"seed = {i}"), *pairs[: i % 2]) for i in range(5)])
    saltworks("report", *[copy.folder for copy in runs], "--out", page)
    seen = look(page, 390)
    wide = seen.page.locator(".scroll").first
    assert wide.get_attribute("data-more") is not None
    wide.evaluate("(box) => { box.scrollLeft = 9999; }")
    seen.page.wait_for_timeout(200)
    assert wide.get_attribute("data-more") is None
    broken = """[...document.querySelectorAll('.scroll td:not(:first-child)')].filter((cell) => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return new Set([...range.getClientRects()].map((line) => line.top)).size > 1;
    }).map((cell) => cell.innerText)"""
    assert seen.page.evaluate(broken) == [], "words and numbers are whole"


def test_runs_of_one_name_have_names_of_their_own(look, run, tmp_path):
    for parent in ["a", "b"]:
        shutil.copytree(run.folder, tmp_path / parent / "seed0")
    page = tmp_path / "two.html"
    saltworks("report", tmp_path / "a/seed0", tmp_path / "b/seed0", "--out", page)
    text = look(page).text()
    assert "a/seed0" in text and "b/seed0" in text


def test_more_runs_than_anybody_looks_at(look, run, tmp_path):
    runs = [shutil.copytree(run.folder, tmp_path / f"r{i}", ignore=shutil.ignore_patterns("*.safetensors")) for i in range(150)]
    page = tmp_path / "many.html"
    saltworks("report", *runs, "--out", page)
    seen = look(page)
    assert "150 runs compared" in seen.text("h1")
    box = seen.chart("Training loss").bounding_box()
    seen.page.mouse.move(box["x"] + 300, box["y"] + 80)
    assert seen.page.locator(".tip").bounding_box()["height"] < 700
