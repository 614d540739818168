"""`arco predict` keeps the scan's geometry and never leaves half a mask; `arco demo-data` writes a cohort."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from arco_core.inference import segment_volume
from arco_core.model_package import load_package
from components.cli import main
from infra.storage import Store
from tests.components.predict.published import publish, write_scan


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published") / "model")


def volumes_ml(said: str) -> list[float]:
    """What `arco predict` told, to two digits: a volume may lie between two of them."""
    return [float(volume) for volume in re.findall(r"[ab] (\d+\.\d\d) ml", said)]


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The message with which the command fails, without traceback."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    return message


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_mask_lies_on_the_scans_own_grid(
    model: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = nib.load(write_scan(tmp_path / f"scan{suffix}"))
    output = tmp_path / f"mask{suffix}"
    main(["predict", "--model", str(model), str(tmp_path / f"scan{suffix}"), "-o", str(output)])
    mask = nib.load(output)
    assert mask.get_data_dtype() == np.uint8
    assert mask.shape == scan.shape
    np.testing.assert_array_equal(mask.affine, scan.affine)
    assert mask.header.get_zooms() == scan.header.get_zooms()
    assert mask.header.get_xyzt_units() == scan.header.get_xyzt_units()
    for form in ("get_qform", "get_sform"):
        np.testing.assert_allclose(getattr(mask, form)(), getattr(scan, form)(), atol=1e-5)
    assert mask.header["qform_code"] == scan.header["qform_code"]
    assert mask.header["sform_code"] == scan.header["sform_code"]
    assert float(mask.header["cal_max"]) == 0
    voxels = np.asanyarray(mask.dataobj)
    assert voxels.dtype == np.uint8 and len(np.unique(voxels)) == 3
    expected = segment_volume(load_package(model), scan.get_fdata(dtype=np.float32), scan.affine).mask
    np.testing.assert_array_equal(voxels, expected)
    wanted = [np.count_nonzero(voxels == number) * 1.25 * 1.5 * 8 / 1000 for number in (1, 2)]
    assert volumes_ml(capsys.readouterr().out) == pytest.approx(wanted, abs=0.006)
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted([f"scan{suffix}", f"mask{suffix}"])


def test_a_scan_in_micrometres(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mask lies on the file's own grid, in its unit; volumes are told in ml."""
    reference = nib.load(write_scan(tmp_path / "mm.nii"))
    image = nib.Nifti1Image(reference.get_fdata(), np.diag([1000.0, 1000.0, 1000.0, 1.0]) @ reference.affine)
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "um.nii")
    said = []
    for name in ("mm", "um"):
        scan, output = tmp_path / f"{name}.nii", tmp_path / f"{name}_mask.nii"
        main(["predict", "--model", str(model), str(scan), "-o", str(output)])
        said.append(volumes_ml(capsys.readouterr().out))
    assert len(said[0]) == 2 and said[0] == pytest.approx(said[1], abs=0.011)
    masks = [nib.load(tmp_path / f"{name}_mask.nii") for name in ("mm", "um")]
    np.testing.assert_array_equal(*(np.asanyarray(mask.dataobj) for mask in masks))
    np.testing.assert_allclose(masks[1].affine, image.affine)
    assert masks[1].header.get_xyzt_units()[0] == "micron"


def test_the_affine_that_agrees_with_the_voxel_size_counts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ACDC's files: the sform has voxels of 1 mm, the qform the true ones. Training reads them alike."""
    scan = write_scan(tmp_path / "scan.nii")
    image = nib.load(scan)
    qform = image.get_qform()
    image = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    image.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code=1, update_affine=True)
    image.header.set_zooms((1.25, 1.5, 8.0))
    nib.save(image, scan)
    main(["predict", "--model", str(model), str(scan), "-o", str(tmp_path / "mask.nii")])
    mask = nib.load(tmp_path / "mask.nii")
    np.testing.assert_allclose(mask.affine, qform, atol=1e-5)
    volume_ml = np.count_nonzero(np.asarray(mask.dataobj) == 1) * 1.25 * 1.5 * 8 / 1000
    assert f"a {volume_ml:.2f} ml" in capsys.readouterr().out


def test_a_model_of_two_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = publish(tmp_path / "model", channels=2)
    scan = write_scan(tmp_path / "scan.nii.gz", (20, 24, 6, 2))
    main(["predict", "--model", str(model), str(scan), "-o", str(tmp_path / "mask.nii.gz")])
    assert nib.load(tmp_path / "mask.nii.gz").shape == (20, 24, 6)
    flat = write_scan(tmp_path / "flat.nii.gz")
    message = fails(capsys, "predict", "--model", model, flat, "-o", tmp_path / "mask.nii.gz")
    assert "flat.nii.gz" in message and "the model was trained on 2" in message


def test_a_3d_model_on_an_oblique_scan_larger_than_a_patch(tmp_path: Path) -> None:
    model = publish(tmp_path / "model", size=(16, 16, 16))
    path = write_scan(tmp_path / "scan.nii.gz", (40, 24, 6))
    main(["predict", "--model", str(model), str(path), "-o", str(tmp_path / "mask.nii.gz")])
    scan, mask = nib.load(path), nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, scan.affine)
    voxels = np.asanyarray(mask.dataobj)
    assert len(np.unique(voxels)) > 1
    expected = segment_volume(load_package(model), scan.get_fdata(dtype=np.float32), scan.affine).mask
    np.testing.assert_array_equal(voxels, expected)


def test_a_series_where_a_volume_is_meant(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_scan(tmp_path / "cine.nii.gz", (20, 24, 6, 5))
    message = fails(capsys, "predict", "--model", model, scan, "-o", tmp_path / "mask.nii.gz")
    assert "(20, 24, 6, 5)" in message and "pick one volume" in message


@pytest.mark.s3
@pytest.mark.usefixtures("aws")
def test_a_model_in_an_object_store(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"s3://arco/{tmp_path.name}/model"
    scan = write_scan(tmp_path / "scan.nii.gz")
    message = fails(capsys, "predict", "--model", url, scan, "-o", tmp_path / "mask.nii.gz")
    assert f"{url} is not a published model" in message
    Store(f"s3://arco/{tmp_path.name}").upload_folder(model, "model")
    for name, where in (("remote", url), ("local", str(model))):
        main(["predict", "--model", where, str(scan), "-o", str(tmp_path / f"{name}.nii")])
    assert (tmp_path / "remote.nii").read_bytes() == (tmp_path / "local.nii").read_bytes()


def test_a_scan_that_is_not_there(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "predict", "--model", model, tmp_path / "no.nii", "-o", tmp_path / "mask.nii")
    assert "no.nii: there is no such file" in message


def test_a_truncated_scan_leaves_an_earlier_mask_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, output = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "mask.nii.gz"
    scan.write_bytes(scan.read_bytes()[:-400])
    output.write_bytes(b"earlier")
    message = fails(capsys, "predict", "--model", model, scan, "-o", output)
    assert "scan.nii.gz is truncated or damaged" in message
    assert output.read_bytes() == b"earlier"


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii"])
def test_a_scan_that_is_no_nifti(
    model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"this is not a scan" * 100)
    message = fails(capsys, "predict", "--model", model, tmp_path / name, "-o", tmp_path / "mask.nii")
    assert f"{name} is not a readable NIfTI file" in message


def test_a_colour_image(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rgb = np.zeros((8, 8, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "scan.nii")
    message = fails(capsys, "predict", "--model", model, tmp_path / "scan.nii", "-o", tmp_path / "mask.nii")
    assert "not of real numbers" in message


def test_another_format(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nib.save(nib.MGHImage(np.zeros((8, 8, 3), np.float32), np.eye(4)), tmp_path / "scan.mgz")
    message = fails(capsys, "predict", "--model", model, tmp_path / "scan.mgz", "-o", tmp_path / "mask.nii")
    assert "convert it to NIfTI" in message


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("mask.png", "must end with .nii.gz or .nii"),
        (".nii.gz", "must end with .nii.gz or .nii"),
        ("absent/mask.nii", "does not exist; create it first"),
        ("folder.nii", "is a folder"),
        ("scan.nii.gz", "is the scan"),
    ],
)
def test_an_output_that_cannot_be(
    model: Path, tmp_path: Path, output: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    before = scan.read_bytes()
    (tmp_path / "folder.nii").mkdir()
    assert message in fails(capsys, "predict", "--model", model, scan, "-o", tmp_path / output)
    assert scan.read_bytes() == before


def test_an_output_that_cannot_be_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk, as far as a test can have one: the file is there in part when the error comes."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    scan, output = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "mask.nii.gz"
    output.write_bytes(b"earlier")
    monkeypatch.setattr(os, "fsync", full)
    message = fails(capsys, "predict", "--model", model, scan, "-o", output)
    assert "cannot write" in message and "mask.nii.gz" in message and "No space left" in message
    assert output.read_bytes() == b"earlier"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["mask.nii.gz", "scan.nii.gz"]


def test_a_folder_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    message = fails(capsys, "predict", "--model", tmp_path, scan, "-o", tmp_path / "mask.nii.gz")
    assert "is not a published model" in message


def test_demo_data_is_a_cohort_of_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cohort"
    main(["demo-data", str(folder), "--patients", "3", "--labeled", "2", "--seed", "7"])
    assert str(folder) in capsys.readouterr().out
    assert len(list((folder / "labelsTr").iterdir())) == 2
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 2
    message = fails(capsys, "demo-data", tmp_path / "other", "--patients", "2", "--labeled", "3")
    assert "labeled = 3 of 2 patients" in message


def test_help_needs_no_torch() -> None:
    """Asking for help is immediate."""
    code = "import sys, components.cli as c\ntry: c.main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "predict" in done.stdout and done.stdout.splitlines()[-1] == "False"
