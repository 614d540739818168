"""Configuration: round trips, precedence, and errors that name key, value, rule and way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from arco_core.config import ConfigError, dumps, load, loads, preset_names


@pytest.mark.parametrize("preset", preset_names())
def test_round_trip(preset: str) -> None:
    config = load(preset=preset)
    assert loads(dumps(config)) == config


def test_overrides_go_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[finetune]\nsteps = 7\n[finetune.contrast]\ngrid = 3\n")
    config = load(preset="demo", file=file, overrides=["finetune.contrast.grid=5", "run.device=cpu"])
    assert (config.finetune.steps, config.finetune.contrast.grid, config.run.device) == (7, 5, "cpu")
    assert config.data.name == "demo"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.contrst.grid=2", "unknown key 'finetune.contrst'.*did you mean 'contrast'"),
        ("finetune.contrast.grid=0", "finetune.contrast.grid = 0: must be positive"),
        ("finetune.contrast.grid=2.5", "finetune.contrast.grid = 2.5: must be of type int"),
        ("finetune.contrast.sampler=sgg", "finetune.contrast.sampler = 'sgg': must be one of .*sag"),
        ("finetune.contrast.queries_per_negative_set=7", "must divide queries = 256"),
        ("finetune.contrast.keys_per_step=4096", "keys_per_step = 4096.*bank_size = 2048"),
        ("finetune.weights.supervised=0", "finetune.weights.supervised = 0.0: must be positive"),
        ("pretrain.supervised_weight=0", "pretrain.supervised_weight = 0.0: must be positive"),
        ("pretrain.local_weight=-1", "pretrain.local_weight = -1.0: must not be negative"),
        ("finetune.contrast.sampler=sg-relesed", "must be one of .*sg-released"),
        ("released.random_head=true", "unknown key 'released.random_head'.*did you mean 'random_heads'"),
        ("data.image_size=[30,30]", r"data.image_size = \(30, 30\): 2 or 3 sides, all multiples of 16"),
        ("data.image_size=[32]", r"data.image_size = \(32,\): 2 or 3 sides"),
        ("data.spacing_mm=[1.0]", r"data.spacing_mm = \(1.0,\): positive, one a side of data.image_size"),
        ("data.spacing_mm=[1.0,0.0]", r"data.spacing_mm = \(1.0, 0.0\): positive"),
        ("data.spacing_mm=1.5", "data.spacing_mm = 1.5: must be a list"),
        ("data.crop=heart", "data.crop = 'heart': must be one of body, center, none, nonzero"),
        ("data.crop=center", r"data.crop_extent_mm = \(0.0, 0.0, 0.0\): .* one at least is positive"),
        ("data.crop_extent_mm=[0,90,90]", "data.crop_extent_mm = .* it is 'none'"),
        ("data.name=a/b", r"data\.name = 'a/b': up to 100 letters, digits, .* the first is a letter"),
        ("data.name=..", r"data\.name = '\.\.': "),
        ("data.name='heart '", r"data\.name = 'heart ': "),
        ("data.crop_margin_mm=5", "data.crop_margin_mm = 5.0: .* it is 'none'"),
        ("data.classes=['a']", r"data.classes = \('a',\): none, or background and others"),
        ("data.classes=['a','b','b']", "data.classes = .*: none, or background and others, each with a name"),
        (f"data.classes={[f'c{n}' for n in range(257)]}", "data.classes = .*, 256 at most"),
        ("data.classes=heart", "data.classes = 'heart': must be a list"),
        ("inference.flips=x", "inference.flips = 'x': letters of 'dhw', each at most once"),
        ("inference.flips=ww", "inference.flips = 'ww': letters of 'dhw', each at most once"),
        ("inference.flips=d", "inference.flips = 'd': slices have no depth"),
        ("run.workers=3", "must be a multiple of run.workers = 3"),
        ("run.precision=fp8", "run.precision = 'fp8': must be one of bf16, fp16, fp32"),
        ("run.workers=true", "run.workers = True: must be of type int"),
        ("run=3", "run = 3: must be a table"),
        ("finetune.steps", "not of the form"),
    ],
)
def test_errors_name_key_value_and_rule(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(preset="demo", overrides=[override])


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hippocampus'"):
        load(preset="hipocampus")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file=tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[run\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(file=broken)


def test_supervised_steps_default_to_both_stages() -> None:
    config = load(preset="demo", overrides=["pretrain.steps=3", "finetune.steps=4"])
    assert config.supervised_steps == 7
    assert load(preset="demo", overrides=["supervised.steps=5"]).supervised_steps == 5
