"""The drawn boutique: varied, repeatable, and true to the tastes that it writes down."""

from pathlib import Path

import numpy as np
import pandas as pd

from training.data.catalogue_reader import read
from training.demo import boutique
from training.demo.garments import CATEGORIES, SIZE, Garment, draw


def test_the_boutique_is_a_usable_catalogue_of_many_kinds(boutique_folder: Path) -> None:
    """Every row is usable; categories, colours and patterns all vary."""
    catalogue = read(boutique_folder)
    assert not catalogue.unusable
    assert set(catalogue.items["category"]) == set(CATEGORIES)
    assert catalogue.items["colour"].nunique() >= 10
    assert catalogue.items["pattern"].nunique() == 6


def test_the_same_seed_draws_the_same_boutique(tmp_path: Path) -> None:
    """Bit for bit, and another seed another one."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        boutique.write(tmp_path / name, items=24, shoppers=10, seed=seed)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 24 + 4
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert any((tmp_path / "a" / f).read_bytes() != (tmp_path / "c" / f).read_bytes() for f in files)


def test_users_touch_what_the_truth_says_they_like(boutique_folder: Path) -> None:
    """The mean utility of touched items is far above that of the others, for nearly every user."""
    utility = np.load(boutique_folder / "truth.npy")
    log = pd.read_csv(boutique_folder / "interactions.csv", dtype=str)
    touched = np.zeros(utility.shape, bool)
    touched[log["user_id"].astype(int), log["item_id"].astype(int)] = True
    liked = np.array([u[t].mean() - u[~t].mean() for u, t in zip(utility, touched, strict=True)])
    assert (liked > 0.5).mean() > 0.95


def test_a_garment_stands_out_from_its_background() -> None:
    """A red dress has red in its middle and none in its corners."""
    garment = Garment("dress", "red", "plain", "studio", 0.9, 0.0, 1.0, seed=1)
    pixels = np.asarray(draw(garment)).astype(int)
    assert pixels.shape == (SIZE, SIZE, 3)
    middle, corner = pixels[SIZE // 2, SIZE // 2], pixels[4, 4]
    assert middle[0] > middle[1] + 60
    assert corner.min() > 180
