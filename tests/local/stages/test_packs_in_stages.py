"""`bin/pack.py`, and stages that read what it made: the same results to the byte."""

import shutil

import pytest

from local.features.pack_files import packed_files
from local.io.errors import CanopyError


@pytest.fixture
def packed(toy, script):
    """Function: options of bin/pack.py -> the toy experiment, packed with them."""
    experiment = toy(**{"train.n_epochs": 2})
    pack = script("pack").main

    def call(*options):
        assert pack([*experiment.options, "--size-mb", "0.02", *options]) == 0
        return experiment

    return call


def test_packs_removes_and_verifies(packed, capsys):
    folder = packed().run.features
    names = {path.name for path in folder.glob("*.npz")}
    assert set(packed_files(folder)) == names
    assert len(list((folder / "packs").glob("*.tar"))) > 2
    packed("--remove", "--verify")
    assert not list(folder.glob("*.npz"))
    assert f"{len(names)} files packed before are what they were" in capsys.readouterr().err
    packed()  # and nothing is left to pack


def test_a_damaged_pack_is_told(packed, capsys):
    folder = packed().run.features
    place = packed_files(folder)["r00.npz"]
    content = bytearray(place.path.read_bytes())
    content[place.offset + 1000] ^= 1
    place.path.write_bytes(content)
    with pytest.raises(CanopyError, match="features are missing or damaged; run stage 0 first"):
        packed("--remove")
    assert "pack-00000.tar (r00.npz): not readable" in capsys.readouterr().err
    assert (folder / "r00.npz").is_file()


def test_nothing_to_pack(packed):
    folder = packed().run.features
    (folder / "r01.npz").unlink()
    packed()  # it lies in a pack
    shutil.rmtree(folder / "packs")
    with pytest.raises(CanopyError, match="features are missing or damaged; run stage 0"):
        packed()
    (folder / "manifest.csv").unlink()
    with pytest.raises(CanopyError, match="there are no features to pack; run stage 0"):
        packed()


def test_a_size_that_is_none(packed):
    with pytest.raises(CanopyError, match="--size-mb is 0"):
        packed("--size-mb", "0")


def results(folder):
    names = ("best.pt", "log.csv", "seen.csv", "scores.npz", "train.done.json", "infer.done.json")
    return {name: (folder / "cycle0" / "fold0" / name).read_bytes() for name in names}


@pytest.mark.slow
def test_training_and_inference_from_packs_near_by_come_out_the_same(packed, script, tmp_path):
    experiment = packed()
    folder, exp = experiment.run.features, experiment.run.exp
    away = tmp_path / "away"
    shutil.move(folder / "packs", away)

    def fold(*options):
        for name in ("sed_train", "sed_infer"):
            assert (
                script(name).main([*experiment.options, "--worker", "--folds", "0", *options]) == 0
            )
        return results(exp)

    plain = fold()
    shutil.rmtree(exp / "cycle0")
    shutil.move(away, folder / "packs")
    packed("--remove")
    cache = tmp_path / "node"
    assert fold("--cache", str(cache)) == plain
    copies = list(cache.glob("canopy-*/*/packs/pack-*.tar"))
    assert len(copies) == len(list((folder / "packs").glob("pack-*.tar")))


def test_the_cache_is_the_option_else_the_environment(script, monkeypatch, tmp_path):
    from local.stages.stage_options import chosen_cache

    for name in ("CANOPY_CACHE", "SLURM_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert chosen_cache(None) is None
    monkeypatch.setenv("SLURM_TMPDIR", "/scratch/7")
    assert str(chosen_cache(None)) == "/scratch/7"
    monkeypatch.setenv("CANOPY_CACHE", "$SLURM_TMPDIR/canopy")
    assert str(chosen_cache(None)) == "/scratch/7/canopy"
    assert chosen_cache("none") is None
    assert str(chosen_cache("/local")) == "/local"
    for text in ("$NO_SUCH_VARIABLE/x", "relative", ""):
        with pytest.raises(CanopyError, match="whole path"):
            chosen_cache(text)
