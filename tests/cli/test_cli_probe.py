"""``ccx probe``: networks by name and by function, folders of pictures, options, errors."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import ccx
from ccx.cli import app
from ccx.probing import picture_files

pytestmark = pytest.mark.needs("torch")
NETS = """
import ccx
from tests.support import probed_models

def make():
    return probed_models.net()

def named():
    prepare = ccx.models.Preprocessing((9, 11), (0.5,) * 3, (0.5,) * 3)
    return ccx.models.NamedModel("mine", "none", probed_models.net(), ("layer1", "layer2"), prepare)

def text():
    return "no model"
"""


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(11):
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "nets_of_test.py").write_text(NETS)

    def run(*arguments, status=0):
        result = CliRunner().invoke(app, ["probe", *map(str, arguments)])
        assert result.exit_code == status, result.output
        return result.output

    return run


def test_a_function_that_makes_a_network(run, pictures, tmp_path):
    from tests.support import probed_models

    output = run(
        "nets_of_test:make", pictures, "--layer", "layer1", "--layer", "head", "--size", "9x11", "--batch-size", 4,
        "--units", "0-1", "--out", "out",
    )  # fmt: skip
    assert "layer1  float32[11, 2, 4, 5]  out/layer1.npy" in output
    assert "head  float32[11, 2]  out/head.npy" in output
    assert "11 pictures, in" in output
    files = [pictures / f"{number}.png" for number in range(11)]
    prepare = ccx.models.Preprocessing((9, 11))
    want = ccx.probe(probed_models.net(), files, ["layer1", "head"], preprocessing=prepare, batch_size=4, units=[0, 1])
    for layer, array in want.items():
        assert np.array_equal(np.load(tmp_path / "out" / f"{layer}.npy"), array)


def test_a_named_model_from_a_function(run, pictures, tmp_path):
    output = run("nets_of_test:named", pictures, "--out", "out", "--dtype", "float16")
    assert "layer1  float16[11, 4, 4, 5]" in output
    assert "layer2  float16[11, 4, 4, 5]" in output
    run("nets_of_test:named", pictures, "--out", "other", "--mean", "0,0,0", "--std", "1,1,1", "--layer", "layer1")
    first, other = (np.load(tmp_path / name / "layer1.npy") for name in ("out", "other"))
    assert not np.allclose(first, other, atol=0.01)


@pytest.mark.needs("torchvision")
def test_a_network_by_name(run, pictures, tmp_path):
    output = run("squeezenet1_1", pictures, "--weights", "none", "--layer", "features", "--size", 32, "--out", "out")
    assert "features  float32[11, 512, 1, 1]  out/features.npy" in output
    output = run("squeezenet1_1", pictures, "--weights", "none", "--size", 32, "--out", "out", status=2)
    assert "layers: expected a layer, got None" in output
    message = run("resnet8", pictures, "--out", "new", status=2)
    assert "did you mean resnet18" in message


def test_it_goes_into_explain(run, pictures, tmp_path):
    run("nets_of_test:named", pictures, "--layer", "layer1", "--out", "out")
    np.save(tmp_path / "masks.npy", np.random.default_rng(0).random((3, 11, 4, 5)) < 0.4)
    arguments = ["explain", "out/layer1.npy", "--masks", "masks.npy", "--out", "found", "--no-report"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert len(ccx.load(tmp_path / "found" / "explanations.json")) == 20


def test_what_does_not_fit(run, pictures):
    named = ("nets_of_test:named", pictures, "--out", "out")
    for arguments, message in [
        (("nets_of_test:nope", pictures, "--out", "out"), "MODEL: expected module:function, got 'nets_of_test:nope'"),
        (("no_such_module:make", pictures, "--out", "out"), "No module named 'no_such_module'"),
        (("nets_of_test:text", pictures, "--layer", "x", "--out", "out"), "model: expected a torch.nn.Module, got str"),
        ((*named, "--checkpoint", pictures), "MODEL: expected no --checkpoint or --classes beside module:function"),
        ((*named, "--layer", "layer3"), "did you mean layer"),
        ((*named, "--tokens", "3"), "tokens: expected a layer that puts out tokens"),
        ((*named, "--tokens", "3x"), "--tokens: expected a number, or two with an x between, got '3x'"),
        ((*named, "--size", "0"), "--size: expected a number, or two with an x between, got '0'"),
        ((*named, "--mean", "a"), "--mean: expected three numbers"),
        ((*named, "--std", "1,2"), "std: expected three positive numbers"),
        ((*named, "--units", "x"), "--units"),
        ((*named, "--device", "nowhere"), "device: expected a device of this machine"),
        ((*named, "--precision", "half"), "precision: expected"),
    ]:
        assert message in run(*arguments, status=2)


def test_bad_pictures_are_all_named_before_the_work(run, pictures, tmp_path):
    for number in (3, 7):
        path = pictures / f"{number}.png"
        path.write_bytes(path.read_bytes()[:50])
    output = run("nets_of_test:named", pictures, "--out", "out", status=2)
    assert "2 problems" in output
    assert "3.png: truncated" in output
    assert "7.png: truncated" in output
    assert not (tmp_path / "out").exists()


def test_a_data_set(run, pictures, tmp_path):
    from PIL import Image

    (tmp_path / "labels").mkdir()
    for number in (2, 10, 5):  # the other pictures have no label map, and so are left out
        Image.fromarray(np.ones((9, 11), np.uint8)).save(tmp_path / "labels" / f"{number}.png")
    (tmp_path / "names.txt").write_text("sky")
    output = run("nets_of_test:named", "folder:pictures,labels,names.txt", "--layer", "layer1", "--out", "some")
    assert "layer1  float32[3, 4, 4, 5]" in output
    run("nets_of_test:named", pictures, "--layer", "layer1", "--out", "all")
    some, whole = (np.load(tmp_path / name / "layer1.npy") for name in ("some", "all"))
    np.testing.assert_allclose(some, whole[[2, 5, 10]], atol=1e-6)
    (pictures / "5.png").write_bytes(b"")
    assert "5.png: empty" in run("nets_of_test:named", "folder:pictures,labels,names.txt", "--out", "new", status=2)
    for wrong in ("nowhere", "film:pictures"):
        assert "folder:IMAGES,LABELS,NAMES" in run("nets_of_test:named", wrong, "--out", "new", status=2)


def test_stale_folders_and_overwrite(run, pictures):
    run("nets_of_test:named", pictures, "--out", "out")
    (pictures / "0.png").write_bytes((pictures / "1.png").read_bytes())
    output = run("nets_of_test:named", pictures, "--out", "out", status=2)
    assert "sample 0 (0.png) of the data is not the one that was probed there" in output
    run("nets_of_test:named", pictures, "--out", "out", "--overwrite")


def test_a_name_for_the_images_spares_reading_more_than_a_batch(run, pictures):
    command = ("nets_of_test:named", pictures, "--out", "out", "--data-id", "pictures of July", "--batch-size", 1)
    run(*command)
    for path in picture_files(pictures)[1:]:
        path.write_bytes(b"")
    assert "layer1  float32" in run(*command)


def test_ctrl_c(run, pictures, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ccx.probing.recording.model_hashes", stop)
    assert "stopped; the same command goes on where it stopped" in run(
        "nets_of_test:named", pictures, "--out", "out", status=130
    )
