"""Event files and offline runs, read by TensorBoard's and Weights & Biases' own packages."""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import zlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ.get("SALTWORKS_BIN", ROOT / "target/release/saltworks")
EventAccumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
SCALARS = ["loss", "lr", "weight_decay", "grad_norm", "images_per_second", "data_wait_share"]
SET = ["model.width=48", "model.depth=2", "teacher.steps=6", "student.steps=9", "teacher.batch=16", "student.batch=16",
       "data.holdout=200", "probe.images=100", "probe.every_steps=4", "log.tensorboard=true", "log.wandb=true",
       'tags=["a","b c"]']


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loggers") / "run"
    settings = [part for setting in SET for part in ("--set", setting)]
    subprocess.run([BINARY, "pretrain", "--out", folder, *settings], check=True, capture_output=True)
    return folder


def lines(run, stage):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["stage"] == stage]


def events(run, stage):
    found = EventAccumulator(str(run / "tensorboard" / stage), size_guidance=dict(scalars=0, images=0, histograms=0))
    return found.Reload()


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_tensorboard_reads_every_number(run, stage):
    found = events(run, stage)
    steps = [line for line in lines(run, stage) if "loss" in line]
    for name in SCALARS:
        points = found.Scalars(name)
        assert [point.step for point in points] == [line["step"] for line in steps]
        for point, line in zip(points, steps):
            assert math.isclose(point.value, line[name], rel_tol=1e-6, abs_tol=1e-30)
            assert point.wall_time == line["unix_seconds"]
    probes = [line for line in lines(run, stage) if "probe" in line]
    assert len(probes) >= 3
    numbers = [name for name, value in probes[0]["probe"].items() if type(value) in (int, float)]
    assert {"knn_mean", "linear_mean", "rank_me", "lidar", "feature_std", "loss"} <= set(numbers)
    for name in numbers:
        points = found.Scalars(f"probe/{name}")
        assert [point.step for point in points] == [line["step"] for line in probes]
        for point, line in zip(points, probes):
            assert math.isclose(point.value, line["probe"][name], rel_tol=1e-6)


def test_tensorboard_reads_histograms_pictures_and_settings(run):
    for stage in ["teacher", "student"]:
        found = events(run, stage)
        probes = [line for line in lines(run, stage) if "probe" in line]
        assert probes[0]["probe"]["histograms"]
        for name, wanted in probes[0]["probe"]["histograms"].items():
            first = found.Histograms(name)[0].histogram_value
            assert first.bucket == wanted["counts"] and first.num == sum(wanted["counts"])
            assert first.bucket_limit == pytest.approx(wanted["edges"][1:])
            assert first.min == pytest.approx(wanted["edges"][0])
        tags = {"original", "patch_pca"} | ({"masked", "predicted", "composite"} if stage == "teacher" else set())
        assert {tag.split("/")[0] for tag in found.Tags()["images"]} == tags
        image = found.Images("original/0")[-1]
        assert (image.width, image.height) == (28, 28) and image.step == probes[-1]["step"]
        assert image.encoded_image_string.startswith(b"\x89PNG")


def test_tensorboards_hparams_know_the_settings(run):
    metadata = pytest.importorskip("tensorboard.plugins.hparams.metadata")
    content = events(run, "student").PluginTagToContent("hparams")
    session = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    settings = session.hparams
    assert settings["stage.steps"].number_value == 9 and settings["stage.method"].string_value == "salt"
    assert settings["model.width"].number_value == 48 and settings["log.tensorboard"].bool_value
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    assert {info.name for info in experiment.hparam_infos} == set(settings)
    assert "final/knn_mean" in [info.name.tag for info in experiment.metric_infos]
    end = metadata.parse_session_end_info_plugin_data(content[metadata.SESSION_END_INFO_TAG])
    assert end.status == 1


def near(value):
    """Numbers are read and written as text on the way."""
    return pytest.approx(value, rel=1e-14, abs=0)


def wandb_file(run):
    [file] = run.glob("wandb/offline-run-*/run-*.wandb")
    return file


def pieces(data):
    """Records of LevelDB's log: pieces in blocks, each with checksum, length and kind."""
    assert data[:7] == b":W&B\xe1\xbe\0"
    at, record, inside = 7, b"", False
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        checksum, length, kind = (int.from_bytes(data[at + a : at + b], "little") for a, b in [(0, 4), (4, 6), (6, 7)])
        assert zlib.crc32(data[at + 6 : at + 7 + length]) == checksum
        # The first piece of a record has no bytes if a block has room for its head alone.
        assert inside != (kind in (1, 2)) and at % 32768 + 7 + length <= 32768
        record, at, inside = record + data[at + 7 : at + 7 + length], at + 7 + length, kind in (2, 3)
        if kind in (1, 4):
            yield record
            record = b""
    assert not inside


def records(run):
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    for data in pieces(wandb_file(run).read_bytes()):
        record = messages.Record()
        record.ParseFromString(data)
        yield record


READER = """
import sys
from wandb.sdk.internal.datastore import DataStore
store = DataStore()
store.open_for_scan(sys.argv[1])
while (data := store.scan_data()) is not None:
    print(data.hex())
"""


def test_wandbs_own_reader_reads_the_same(run):
    """Releases after 0.19 read these files in Go alone: test.sh installs an older one beside."""
    place = pathlib.Path(os.environ.get("SALTWORKS_WANDB_READER", ROOT / "crates/python/.venv/wandb-reader"))
    if not place.is_dir():
        pytest.skip(f"no W&B 0.19 in {place}")
    command = [sys.executable, "-c", READER, str(wandb_file(run))]
    environment = {**os.environ, "PYTHONPATH": str(place)}
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert found.split() == [data.hex() for data in pieces(wandb_file(run).read_bytes())]


def test_what_a_stage_came_to_is_in_either_log(run):
    rows = {row["features"]: row for row in json.loads((run / "probes.json").read_text())}
    [summary] = [record.summary for record in records(run) if record.WhichOneof("record_type") == "summary"][-1:]
    told = {item.key: json.loads(item.value_json) for item in summary.update}
    for stage in ["teacher", "student"]:
        found = events(run, stage)
        for key in ["knn_mean", "knn_cls", "linear_mean", "linear_cls"]:
            [point] = found.Scalars(f"final/{key}")
            assert point.value == pytest.approx(rows[stage][key], rel=1e-6)
            assert told[f"{stage}/final/{key}"] == near(rows[stage][key])


def test_wandb_reads_every_number(run):
    found = list(records(run))
    assert [record.num for record in found] == list(range(1, len(found) + 1))
    kinds = [record.WhichOneof("record_type") for record in found]
    assert kinds[:2] == ["header", "run"] and kinds[-2:] == ["summary", "exit"]
    rows = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            row = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            assert record.history.step.num == row["_step"] and row["_step"] not in rows
            rows[row["_step"]] = row
    assert list(rows) == sorted(rows) == list(range(16))
    for stage, before in [("teacher", 0), ("student", 6)]:
        for line in lines(run, stage):
            row = rows[before + line["step"]]
            if "loss" in line:
                assert all(row[f"{stage}/{name}"] == near(line[name]) for name in SCALARS)
            elif "probe" in line:
                assert row[f"{stage}/probe/knn_mean"] == near(line["probe"]["knn_mean"])
                histogram = row[f"{stage}/features"]
                assert histogram["_type"] == "histogram"
                assert histogram["values"] == line["probe"]["histograms"]["features"]["counts"]
    summary = {item.key: json.loads(item.value_json) for item in found[-2].summary.update}
    assert summary["student/loss"] == near(lines(run, "student")[-2]["loss"]) and summary["_step"] == 15


def test_a_run_that_was_cut_short_is_not_written_as_ended(tmp_path, run):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("wandb", "tensorboard"))
    state = json.loads((copy / "state.json").read_text())
    assert [done["stage"] for done in state["done"]] == ["teacher", "student"]
    (copy / "state.json").write_text(json.dumps(state | {"finished": False, "done": state["done"][:1]}))
    for program in ["wandb", "tensorboard"]:
        subprocess.run([BINARY, "log", copy, "--to", program], check=True, capture_output=True)
    assert "exit" not in {record.WhichOneof("record_type") for record in records(copy)}
    ended = ["_hparams_/session_end_info" in events(copy, stage).PluginTagToContent("hparams")
             for stage in ["teacher", "student"]]
    assert ended == [True, False]


def test_tensorboard_forgets_what_the_log_does_not_have(tmp_path, run):
    """A process killed between checkpoints leaves probes that the next one makes after other steps."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("wandb", "checkpoints"))
    found = lines(copy, "student")
    end = [line for line in found if line["step"] > 4]
    moved = [line | {"step": 6} if "probe" in line and line["step"] == 8 else line for line in end]
    kept = [line for line in found if line["step"] <= 4] + sorted(moved, key=lambda line: line["step"])
    other = lines(copy, "teacher")
    text = "".join(json.dumps(line) + "\n" for line in other + kept)
    (copy / "metrics.jsonl").write_text(text)
    state = json.loads((copy / "state.json").read_text())
    (copy / "state.json").write_text(json.dumps(state | {"finished": False, "done": []}))
    # As the next process begins: it goes on with the files that are there.
    subprocess.run([BINARY, "pretrain", "--resume", "--out", copy], check=True, capture_output=True)
    after = lines(copy, "student")
    points = events(copy, "student").Scalars("probe/knn_mean")
    assert [point.step for point in points] == [line["step"] for line in after if "probe" in line]
    steps = events(copy, "student").Scalars("loss")
    assert [point.step for point in steps] == [line["step"] for line in after if "loss" in line]


def test_wandb_reads_name_tags_and_settings(run):
    head = next(record.run for record in records(run) if record.WhichOneof("record_type") == "run")
    [folder] = run.glob("wandb/offline-run-*")
    assert head.display_name == "run" and list(head.tags) == ["a", "b c"] and head.project == "saltworks"
    assert folder.name.endswith(head.run_id)
    config = {item.key: json.loads(item.value_json) for item in head.config.update}
    assert config["model"]["width"] == 48 and [stage["name"] for stage in config["stage"]] == ["teacher", "student"]


def test_a_log_of_many_blocks_is_whole(tmp_path, run):
    """Enough steps that records cross the blocks' bounds at many places."""
    copy = tmp_path / "long"
    copy.mkdir()
    (copy / "recipe.toml").write_text((run / "recipe.toml").read_text())
    step = lines(run, "teacher")[1]
    texts = [json.dumps(step | dict(step=n, loss=1 / n)) for n in range(1, 3001)]
    (copy / "metrics.jsonl").write_text("\n".join(texts) + "\n")
    for program in ["wandb", "tensorboard"]:
        subprocess.run([BINARY, "log", copy, "--to", program], check=True, capture_output=True)
    rows = [record.history for record in records(copy) if record.WhichOneof("record_type") == "history"]
    losses = [json.loads(item.value_json) for row in rows for item in row.item if item.nested_key[0] == "teacher/loss"]
    assert losses == near([1 / n for n in range(1, 3001)])
    assert len(events(copy, "teacher").Scalars("loss")) == 3000
