"""Places of texts in an annotated copy, so that they cover neither faces nor each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Place = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""

Size = tuple[float, float]
"""Width and height in pixels."""

_TOLERANCE = 1.0
"""Area in square pixels that may be covered; rounding moves edges."""


def list_label_places(face: Place, label: Size, gap: float) -> list[Place]:
    """Return the possible places of the label of a face, the best one first.

    Args:
        face: Box of the face.
        label: Size of the label.
        gap: Distance between the label and a face beside it.
    """
    left, top, right, bottom = face
    width, height = label
    corners = [
        (left, top - gap - height),
        (left, bottom + gap),
        (right - width, top - gap - height),
        (right - width, bottom + gap),
        (left, top),
        (left, bottom - height),
    ]
    return [(x, y, x + width, y + height) for x, y in corners]


def list_panel_places(face: Place, panel: Size, gap: float) -> list[Place]:
    """Return the possible places of a panel beside, below and above a face, the best one first."""
    left, top, right, bottom = face
    width, height = panel
    beside = [right + gap, left - gap - width]
    middle_y, middle_x = (top + bottom - height) / 2, (left + right - width) / 2
    corners = [(x, y) for y in (top, middle_y, bottom - height) for x in beside]
    # Below and above the face, a label may lie between.
    distances = (gap, gap + height / 4)
    corners += [
        (x, y)
        for distance in distances
        for y in (bottom + distance, top - distance - height)
        for x in (left, middle_x, right - width)
    ]
    return [(x, y, x + width, y + height) for x, y in corners]


def list_overlapping_places(face: Place, panel: Size) -> list[Place]:
    """Return places of a panel that begin below the middle of a face, on it or half beside it."""
    left, _, right, bottom = face
    width, height = panel
    corners = [
        (x, y)
        for y in (bottom - height / 2, bottom - height)
        for x in (left - width / 2, right - width / 2, left, right - width)
    ]
    return [(x, y, x + width, y + height) for x, y in corners]


def choose_free_place(
    places: Iterable[Place], image: Size, occupied: Sequence[Place]
) -> Place | None:
    """Return the first place that is within the image and covers nothing; None if there is none.

    A place that is partly outside is moved into the image first.
    """
    for place in places:
        moved = move_inside(place, image)
        if compute_covered_area(moved, occupied) <= _TOLERANCE and _is_inside(moved, image):
            return moved
    return None


def choose_best_place(places: Iterable[Place], image: Size, occupied: Sequence[Place]) -> Place:
    """Return the place that covers the least; of several such places the first one.

    A place that is partly outside is moved into the image first.
    """
    moved = [move_inside(place, image) for place in places]
    return min(moved, key=lambda place: max(_TOLERANCE, compute_covered_area(place, occupied)))


def move_inside(place: Place, image: Size) -> Place:
    """Move a place into the image; one that is too large begins at the left or upper edge."""
    left, top, right, bottom = place
    x = max(0.0, min(left, image[0] - (right - left)))
    y = max(0.0, min(top, image[1] - (bottom - top)))
    return x, y, x + right - left, y + bottom - top


def intersect(first: Place, second: Place) -> Place | None:
    """Return what two places have in common; None if that is nothing."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def compute_covered_area(place: Place, occupied: Iterable[Place]) -> float:
    """Return how much of other places is covered, in square pixels."""
    parts = (intersect(place, area) for area in occupied)
    return sum(compute_area(part) for part in parts if part)


def compute_area(place: Place) -> float:
    """Return the area of a place in square pixels."""
    return (place[2] - place[0]) * (place[3] - place[1])


def _is_inside(place: Place, image: Size) -> bool:
    """Return whether a place is within the image."""
    return place[0] >= 0 and place[1] >= 0 and place[2] <= image[0] and place[3] <= image[1]
