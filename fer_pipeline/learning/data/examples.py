"""Examples of what augmentation makes of some images: the columns of its preview."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline.config.training import AugmentationConfig, TrainingConfig
from fer_pipeline.learning.data.augmentation import (
    Draws,
    active,
    augmenter,
    changed,
    largest_erased,
    mixup,
)

Images = npt.NDArray[np.float32]
"""Pixel values in 0..255, of shape (rows, size, size)."""

_FEWEST = 4  # columns of what training draws


@dataclass(frozen=True)
class Column:
    """One version of every row's image.

    Attributes:
        label: What was done.
        images: The version.
        captions: A text of up to two lines below each image; empty for none.
    """

    label: str
    images: Images
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """The columns of one operation.

    Attributes:
        title: Its name.
        range: What it may do.
        columns: Examples of it.
    """

    title: str
    range: str
    columns: tuple[Column, ...]


def alone(images: Images, chosen: AugmentationConfig, seed: int) -> list[Group]:
    """Each operation that is on by itself, at the ends of its range.

    Args:
        images: The originals.
        chosen: The operations and their ranges.
        seed: Of the places of the erased squares.
    """
    size, rng = images.shape[1], np.random.default_rng(seed)
    groups = []
    for name in active(chosen):
        only = AugmentationConfig.model_validate(
            {name: getattr(chosen, name), "border": chosen.border}
        )
        reach, ends = _ends(name, only, size)
        columns = [Column(label, _at(images, only, places, rng)) for label, places in ends]
        groups.append(Group(name, reach, tuple(columns)))
    return groups


def _ends(
    name: str, chosen: AugmentationConfig, size: int
) -> tuple[str, list[tuple[str, dict[str, float]]]]:
    """An operation's range in words, and its ends: a label and where they are, see `Draws`."""
    most = float(getattr(chosen, name))
    if name == "flip":
        return "every second", [("mirrored", {"flip": 0})]
    if name == "shift":
        both = ("shift_right", "shift_down")
        ends = [("left, up", dict.fromkeys(both, 0.0)), ("right, down", dict.fromkeys(both, 1.0))]
        return f"±{100 * most:.3g} % of the side", ends
    if name == "random_erasing":
        side = largest_erased(most, size)
        # Just below 1: the draws do not reach it.
        return f"a square of up to {side} px", 2 * [(f"{side} px", {"erased_side": 1 - 2**-23})]
    if name in ("zoom", "contrast"):
        low, high = f"×{1 - most:.3g}", f"×{1 + most:.3g}"  # noqa: RUF001
        return f"{low} to {high}", [(low, {name: 0}), (high, {name: 1})]
    unit = {"rotation": "°", "brightness": " of 255"}.get(name, "")
    value = f"{255 * most:.0f}" if name == "brightness" else f"{most:.3g}"
    mark = "°" if name == "rotation" else ""
    low, high = f"\N{MINUS SIGN}{value}{mark}", f"+{value}{mark}"
    return f"±{value}{unit}", [(low, {name: 0}), (high, {name: 1})]


def _at(
    images: Images,
    chosen: AugmentationConfig,
    places: dict[str, float],
    rng: np.random.Generator,
) -> Images:
    """The images with operations at these places of their ranges; the others' are drawn."""
    drawn = {name: rng.random(len(images), np.float32) for name in Draws._fields}
    fixed = {name: np.full(len(images), place, np.float32) for name, place in places.items()}
    draws = Draws(**{name: tf.constant(array) for name, array in {**drawn, **fixed}.items()})
    made = changed(tf.constant(images[..., None]), draws, chosen, images.shape[1])
    return made.numpy()[..., 0]


def together(
    images: Images,
    labels: npt.NDArray[np.int32],
    names: Sequence[str],
    chosen: TrainingConfig,
    seed: int,
    columns: int = 0,
) -> list[Group]:
    """All operations that are on, as training draws them.

    Args:
        images: The originals, which are a batch here.
        labels: Their classes, of shape (rows,).
        names: The names of the classes.
        chosen: The augmentation and mixup.
        seed: Of the draws.
        columns: About how many columns there are to fill; there are four of a kind at least.
    """
    pixels, targets = tf.constant(images[..., None]), tf.one_hot(labels, len(names))
    augment = augmenter(chosen.augmentation, images.shape[1])
    kinds = bool(augment) + bool(chosen.mixup_alpha)
    seeds = [
        tf.constant((seed, number), tf.int64)
        for number in range(max(_FEWEST, columns // max(1, kinds)))
    ]
    batches = [augment(pixels, one) if augment else pixels for one in seeds]
    sees, groups = "as training sees them", []
    if augment:
        title = "before mixup" if chosen.mixup_alpha else sees
        made = tuple(Column("", batch.numpy()[..., 0]) for batch in batches)
        groups.append(Group(title, "all that is on, drawn at random", made))
    if chosen.mixup_alpha:
        mix = mixup(chosen.mixup_alpha)
        mixed = [mix(batch, targets, one) for batch, one in zip(batches, seeds, strict=True)]
        made = tuple(
            Column("", some.numpy()[..., 0], tuple(_parts(row, names) for row in shares.numpy()))
            for some, shares in mixed
        )
        groups.append(Group(sees, f"with mixup, alpha {chosen.mixup_alpha:.3g}", made))
    return groups


def _parts(shares: npt.NDArray[np.float32], names: Sequence[str]) -> str:
    """A mixed target in words, the larger part first."""
    first = np.argsort(-shares)[:2]
    return "\n".join(f"{100 * shares[k]:.0f} % {names[k]}" for k in first if shares[k] >= 0.005)
