"""The commands of the studies, end to end: files in the layout of Broden, an untrained network and a checkpoint."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ccx
from ccx import clustering, studies
from ccx.cli import app
from ccx.datasets import demo
from tests.support.broden_layout import LABELS, write_broden

pytestmark = [pytest.mark.needs("torch"), pytest.mark.needs("matplotlib")]

N_IMAGES = 12
FOLDER = "ade20k/resnet18_none_0"
FEW = ["--pretrained", "none", "--random_units", "3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with data/dataset/broden1_224, and data/model/resnet18_places365.pth.tar."""
    import torch

    folder = tmp_path_factory.mktemp("studies")
    write_broden(folder / "data" / "dataset", N_IMAGES)
    network = ccx.models.load("resnet18", weights="none", classes=365, seed=5)
    state = {f"module.{name}": tensor for name, tensor in network.module.state_dict().items()}
    (folder / "data" / "model").mkdir()
    content = {"epoch": 1, "arch": "resnet18", "state_dict": state, "best_prec1": 0.5}
    torch.save(content, folder / "data" / "model" / "resnet18_places365.pth.tar")
    return folder


@pytest.fixture
def ccx_(place, monkeypatch):
    """Return what runs a command in that folder."""
    monkeypatch.chdir(place)

    def run(*arguments, status=0):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        assert result.exit_code == status, result.output + repr(result.exception)
        return result.output

    return run


def rows(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def label_masks(root, n):
    """Return the masks of an image by name, read as the layout says."""
    row = rows(root / "index.csv")[n]
    masks = {name: np.zeros((112, 112), bool) for _, name, _ in LABELS}
    names = {number: name for number, name, _ in LABELS}
    for kind in ("color", "object", "part"):
        pixels = np.asarray(Image.open(root / "images" / row[kind])).astype(int)
        for number, name in names.items():
            masks[name] |= pixels[..., 0] + 256 * pixels[..., 1] == number
    masks[names[int(row["scene"])]][:] = True
    return masks


def test_run_finds_what_the_files_say(ccx_, place):
    import torch

    output = ccx_("run_clustering", *FEW, "--num_clusters=2", "--length=2")
    (folder,) = (place / "data" / "results" / FOLDER).glob("layer4_2_2_5_beam_3_units_0")
    found = ccx.load(folder / "explanations.json")
    assert f"{len(found.explained)} of 6 ranges of 3 units explained" in output
    assert len(found.explained) > 3
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["network"]["name"] == "resnet18"
    assert manifest["settings"]["length"] == 2
    assert manifest["concepts"] == found.concepts_hash
    # The network, the activations and the masks once more, by hand.
    network = ccx.models.load("resnet18", weights="none", classes=365)
    root = place / "data" / "dataset" / "broden1_224"
    pixels = [np.asarray(Image.open(root / "images" / row["image"])) for row in rows(root / "index.csv")]
    batch = torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    body = torch.nn.Sequential(*list(network.module.children())[:-2])
    with torch.no_grad():
        maps = body((batch - 0.5) / 0.5)
        upsampled = torch.nn.functional.interpolate(maps, (112, 112), mode="bilinear", align_corners=False).numpy()
    masks = [label_masks(root, n) for n in range(N_IMAGES)]
    for item in found.explained:
        fires = (upsampled[:, item.unit] > item.range[0]) & (upsampled[:, item.unit] < item.range[1])
        holds = np.stack([item.formula.evaluate(one.__getitem__) for one in masks])
        assert (fires & holds).sum() / (fires | holds).sum() == pytest.approx(item.iou, abs=0.002)
    assert "<figure tabindex" in (folder / "report.html").read_text(encoding="utf-8")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "timings.jsonl"}
    ccx_("run", *FEW, "--num-clusters", 2, "--length", 2)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_every_shared_flag_of_the_published_scripts(ccx_, place, tmp_path):
    output = ccx_(
        "run_clustering", "--subset=ade20k", "--model=resnet18", "--pretrained=places365", "--length=1",
        "--beam_limit=3", "--num_clusters=1", "--device=cpu", "--random_units=2", "--root_models=data/model/",
        "--root_datasets=data/dataset/", f"--root_segmentations={tmp_path}/s/", f"--root_activations={tmp_path}/a/",
        f"--root_results={tmp_path}/r/", "--seed=4", "--pre_load_masks=true", "--dataset=places365", "--no-report",
    )  # fmt: skip
    folder = tmp_path / "r" / "ade20k" / "resnet18_places365" / "layer4_1_1_3_beam_2_units_4"
    assert str(folder) in output
    assert not (folder / "report.html").exists()
    found = ccx.load(folder / "explanations.json")
    assert found.settings["length"] == 1
    assert all(item.formula.length == 1 for item in found.explained)
    assert (tmp_path / "s" / "ade20k" / "112x112.safetensors").exists()
    assert (tmp_path / "a" / "ade20k" / "resnet18_places365" / "layer4").is_dir()
    chosen = sorted(int(unit) for unit in np.random.default_rng(4).choice(512, 2, replace=False))
    assert list(found.units) == chosen


def test_compare_heuristics(ccx_, place):
    output = ccx_("compare_heuristics", *FEW, "--heuristic=mmesh", "--num_clusters=1", "--length=2")
    folder = place / "data" / "results" / FOLDER / "layer4_1_2_5_beam_3_units_0"
    (row,) = rows(folder / "heuristics.csv")
    runs = rows(folder / "heuristics_runs.csv")
    assert row["search"] == "mmesh"
    assert float(row["visited mean"]) == pytest.approx(np.mean([int(run["visited"]) for run in runs]))
    assert "mmesh" in output
    with Image.open(folder / "heuristics.png") as figure:
        assert figure.size[0] > 400
    ccx_("compare_heuristics", *FEW, "--length=2", "--no-figure", "--format", "jsonl")
    lines = (folder / "heuristics.jsonl").read_text().splitlines()
    assert [json.loads(line)["search"] for line in lines] == list(studies.SEARCHES)
    assert "--heuristic" in ccx_("compare-heuristics", "--heuristic", "best", status=2)


def test_compare_thresholds(ccx_, place):
    ccx_("compare_thresholds", *FEW, "--length=1", "--filename_figure=grid.png")
    folder = place / "data" / "results" / FOLDER / "layer4_5_1_5_beam_3_units_0"
    table = rows(folder / "thresholds.csv")
    units = rows(folder / "thresholds_units.csv")
    kinds = {name: kind for _, name, kind in LABELS}
    assert [float(row["quantile"]) for row in table] == list(studies.QUANTILES)
    for row in table:
        named = [kinds[unit["formula"]] for unit in units if unit["quantile"] == row["quantile"]]
        assert all(int(row[kind]) == named.count(kind) for kind in ("color", "object", "part", "scene"))
    assert (folder / "grid.png").exists()


def test_metrics_compute_what_is_missing(ccx_, place):
    output = ccx_("compute_metrics", *FEW, "--num_clusters=2", "--length=1", "--seed=1")
    folder = place / "data/results/ade20k/resnet18_none_1/layer4_2_1_5_beam_3_units_1"
    found = ccx.load(folder / "explanations.json")
    units = rows(folder / "metrics_units.csv")
    assert [float(row["iou"]) for row in units] == [item.iou for item in found]
    for row in rows(folder / "metrics.csv"):
        own = [unit for unit in units if row["range"] in ("all", str(int(unit["range_index"])))]
        values = [float(unit[row["metric"]]) for unit in own]
        assert float(row["mean"]) == pytest.approx(np.mean(values))
        assert float(row["sd"]) == pytest.approx(np.std(values))
    assert "concept_masking" in output
    assert "concept_masking" not in ccx_("metrics", *FEW, "--clusters=2", "--length=1", "--seed=1", "--no-masking")


def test_ranges_importance(ccx_, place):
    ccx_("compute_ranges_importance", *FEW, "--num_clusters=2", "--alone")
    folder = place / "data" / "results" / FOLDER / "layer4_2_3_5_beam_3_units_0"
    together = rows(folder / "ranges_importance.csv")
    assert [row["range"] for row in together] == ["1", "2"]
    assert all(int(row["samples"]) == N_IMAGES for row in together)
    maps = np.load(place / "data/cache/activations" / FOLDER / "layer4/probe/layer4.npy", mmap_mode="r")
    units = np.random.default_rng(0).choice(512, 3, replace=False)
    ranges = [clustering.unit_ranges(np.array(maps[:, unit]), clusters=2) for unit in units]
    alone = rows(folder / "ranges_importance_units.csv")
    assert len(alone) == sum(lower < upper for one in ranges for lower, upper in one)
    assert {int(row["unit"]) for row in alone} <= set(units.tolist())


def test_analyze_activations_runs_both_networks(ccx_, place):
    output = ccx_("analyze_activations", "--pretrained=places365", "--random_units=3", "--length=1", "--clusters=2")
    for weights in ("places365", "none_0"):
        assert (place / "data/results/ade20k" / f"resnet18_{weights}" / "layer4_2_1_5_beam_3_units_0/run").is_dir()
    folder = place / "data/results/ade20k/resnet18_places365/layer4_2_1_5_beam_3_units_0"
    shares = rows(folder / "specialization.csv")
    kinds = [row["kind"] for row in rows(folder / "specialization_units.csv")]
    assert float(shares[-1]["unspecialized"]) == pytest.approx(kinds.count("unspecialized") / len(kinds))
    assert "unspecialized" in output
    assert "--pretrained" in ccx_("analyze_activations", "--pretrained=none", status=2)


def test_images(ccx_, place):
    ccx_("generate_images", *FEW, "--num_clusters=2", "--length=1", "--top_k=2", "--dir_images=figures/units/")
    figures = sorted((place / "figures" / "units").iterdir())
    assert len(figures) == 3
    assert all(path.name.startswith("unit_") and path.name.endswith("_c_2.png") for path in figures)


@pytest.mark.parametrize(
    ("command", "written"),
    [
        ("run_clustering", "report.html"), ("compare_heuristics", "heuristics.csv"),
        ("compare_thresholds", "thresholds.csv"), ("compute_metrics", "metrics.csv"),
        ("compute_ranges_importance", "ranges_importance.csv"), ("analyze_activations", "specialization.csv"),
        ("generate_images", "manifest.json"),
    ],
)  # fmt: skip
def test_every_study_with_a_checkpoint(ccx_, place, tmp_path, command, written):
    own = {"generate_images": [f"--dir_images={tmp_path}/figures"], "compare_heuristics": ["--heuristic=cfh"]}
    ccx_(command, "--pretrained=places365", "--random_units=2", "--length=1", "--num_clusters=2", *own.get(command, []))
    folder = place / "data/results/ade20k/resnet18_places365/layer4_2_1_5_beam_2_units_0"
    assert (folder / written).stat().st_size > 0
    if command == "generate_images":
        assert len(list((tmp_path / "figures").iterdir())) == 2


def test_layers_data_sets_and_configuration(ccx_, place, tmp_path):
    config = tmp_path / "study.toml"
    config.write_text(
        'pretrained = "none"\nlayer = ["layer3.0.conv1", "layer4"]\nrandom_units = 2\nlength = 3\n[run]\nlength = 2\n'
    )
    spec = "broden:data/dataset/broden1_224,subset=ade20k"
    ccx_("run", "--config", config, "--data", spec, "--max-images", 6, "--clusters", 1, "--no-report")
    (named,) = (place / "data/results").glob("broden_broden1_224_*_6")
    folders = sorted(path.name for path in (named / "resnet18_none_0").iterdir())
    assert folders == ["layer3.0.conv1_1_2_5_beam_2_units_0", "layer4_1_2_5_beam_2_units_0"]
    config.write_text("lenght = 3\n")
    assert "'lenght'" in ccx_("run", "--config", config, status=2)
    config.write_text("length =")
    assert "is no TOML" in ccx_("run", "--config", config, status=2)
    assert "--data" in ccx_("run", "--data", "pictures", status=2)
    assert "broden:ROOT" in ccx_("run", "--data", "broden:a,b", status=2)
    assert "layer9" in ccx_("run", *FEW, "--layer", "layer9", status=2)
    assert "--format" in ccx_("run", *FEW, "--format", "xlsx", status=2)
    assert "--dataset" in ccx_("run", *FEW, "--dataset", "cifar", status=2)


def test_what_cannot_be_is_refused_before_anything_runs(ccx_, tmp_path):
    for flags in (
        ["--layer", "layer4", "--layer", "layer9"], ["--search", "best"], ["--length", "0"], ["--beam", "0"],
        ["--clusters", "0"], ["--quantile", "1"], ["--random-units", "-1"], ["--max-images", "-1"],
    ):  # fmt: skip
        output = ccx_("run", *FEW, *flags, f"--root-activations={tmp_path}/a", status=2)
        assert "error: " in output
        assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("command", "library", "extra"),
    [
        (["metrics", "--format=parquet"], "pyarrow", "parquet"), (["images"], "matplotlib", "plot"),
        (["compare-heuristics"], "matplotlib", "plot"), (["compare-thresholds"], "matplotlib", "plot"),
    ],
)  # fmt: skip
def test_a_missing_library_is_named_before_anything_runs(ccx_, tmp_path, monkeypatch, command, library, extra):
    monkeypatch.setitem(sys.modules, "pandas", sys)  # there, for all that matters here
    monkeypatch.setitem(sys.modules, library, None)
    output = ccx_(*command, *FEW, f"--root-activations={tmp_path}/a", status=2)
    assert f"ccx[{extra}]" in output
    assert not (tmp_path / "a").exists()


def test_a_bare_pre_load_masks_takes_nothing_for_its_value(ccx_):
    for flags in (["--pre_load_masks", "--model=nope"], ["--model=nope", "--pre_load_masks"],
                  ["--pre_load_masks", "True", "--model=nope"]):  # fmt: skip
        assert "'nope'" in ccx_("run_clustering", *FEW, *flags, status=2)


def test_a_table_of_the_configuration_counts_under_every_name_of_its_command(ccx_, tmp_path):
    config = tmp_path / "study.toml"
    config.write_text('layer = "layer3"\n[run]\nlength = 0\n[compare_heuristics]\nlength = 1\nlayer = "layer9"\n')
    assert "length" in ccx_("run_clustering", *FEW, "--config", config, status=2)
    for name in ("compare-heuristics", "compare_heuristics"):
        assert "'layer9'" in ccx_(name, *FEW, "--config", config, status=2)


def test_the_demo_is_a_data_set(ccx_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = ccx_("run", "--data=demo", *FEW, "--max-images=20", "--clusters=1", "--length=1", "--no-report")
    assert "on demo_20" in output
    concepts = ccx.Concepts.load(tmp_path / "data/cache/segmentations/demo_20/112x112.safetensors")
    data = demo.load()
    assert concepts.names == data.names
    cells = (2 * np.arange(112) + 1) * 64 // 224  # the label at the centre of each cell
    want = (data.labels[:20, :, cells[:, None], cells] == 1 + data.names.index("cat")).any(axis=1)
    np.testing.assert_array_equal(concepts.mask("cat"), want)


def test_data_sets_checkpoints_and_quantiles_have_folders_of_their_own(ccx_, place, tmp_path):
    (tmp_path / "mine.tar").write_bytes((place / "data/model/resnet18_places365.pth.tar").read_bytes())
    roots = [f"--root-activations={tmp_path}/a", f"--root-results={tmp_path}/r", "--no-report", "--length=1"]
    for subset in ("ade20k", "0"):
        spec = f"--data=broden:data/dataset/broden1_224,subset={subset}"
        ccx_("run", "--random-units=1", "--clusters=1", "--max-images=2", spec, *roots)
    checkpoint = f"--checkpoint={tmp_path}/mine.tar"
    ccx_("run", "--random-units=1", "--clusters=1", "--quantile=0.2", "--max-images=2", checkpoint, *roots)
    found = sorted(str(path.parent.relative_to(tmp_path / "r")) for path in (tmp_path / "r").rglob("manifest.json"))
    assert len(found) == 3
    assert found[0] == "ade20k_2/resnet18_mine.tar/layer4_1_1_5_beam_q0.2_1_units_0"
    assert all(one.startswith("broden_broden1_224_") for one in found[1:])


def test_all_bad_files_are_named_before_anything_is_probed(ccx_, place, tmp_path):
    root = write_broden(tmp_path, 4)
    (root / "images" / "ade20k" / "0001.jpg").write_bytes(b"no picture")
    (root / "images" / "ade20k" / "0002_object.png").unlink()
    roots = [f"--root-{name}={tmp_path}/{name}" for name in ("segmentations", "activations", "results")]
    output = ccx_("run", *FEW, "--data", f"broden:{root}", *roots, status=2)
    assert "0001.jpg" in output
    assert "0002_object.png" in output
    assert not list(tmp_path.rglob("*.npy*"))


# Kills and company

COMMAND = [
    "run", "--pretrained=none", "--random-units=4", "--clusters=2", "--length=2", "--root-models=m", "--threads=1",
]  # fmt: skip


def started(place, root):
    folders = [f"--root-{name}={root}/{name}" for name in ("segmentations", "activations", "results")]
    code = "from ccx.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(Path(ccx.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *COMMAND, *folders],
        cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def results(root):
    """Return the bytes of all files of a run, timings aside."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name not in ("timings.jsonl", ".lock")
    }


def finished(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


@pytest.fixture(scope="module")
def undisturbed(place, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    finished(started(place, root))
    return results(root), time.monotonic() - began


def test_killed_runs_end_like_an_undisturbed_one(place, undisturbed, tmp_path):
    want, seconds = undisturbed
    rng = np.random.default_rng(0)
    n_kills = 20 if os.environ.get("CCX_HYPOTHESIS") == "nightly" else 4
    for _ in range(n_kills):
        process = started(place, tmp_path)
        time.sleep(float(rng.uniform(0.1, 1)) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finished(started(place, tmp_path))
    assert results(tmp_path) == want


def test_two_runs_at_once_end_like_one(place, undisturbed, tmp_path):
    want, _ = undisturbed
    processes = [started(place, tmp_path) for _ in range(2)]
    notices = [finished(process) for process in processes]
    assert results(tmp_path) == want
    assert any("another run works in" in notice for notice in notices)
