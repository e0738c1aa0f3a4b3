import re

import numpy as np

from lkdn_jax.evaluation.scatter import Point, scatter


def labels(svg):
    """Return the heights of the labels, in the order of their points."""
    return [float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="(?:s|e)', svg)]


def test_labels_of_equal_networks_do_not_overlap():
    points = [Point(f"net{i}", 18.2, 32 - i / 1e4, True) for i in range(8)]
    found = sorted(labels(scatter("Set5 ×4", points)))
    assert len(found) == 8
    assert np.diff(found).min() >= 14 - 0.1  # they are written with one decimal
    assert found[0] >= 30
    assert found[-1] <= 212  # above the axis


def test_labels_stay_at_their_dots_where_there_is_room():
    # Two at one height, too far apart to touch.
    text = scatter("", [Point("a", 7.3, 32.0, True), Point("b", 18.2, 32.0, False)])
    (left, right) = re.findall(
        r'<circle class="(\w+)" cx="([\d.]+)" cy="([\d.]+)"', text
    )
    assert (left[0], right[0]) == ("ours", "theirs")
    assert float(left[1]) < float(right[1])
    assert labels(text) == [float(left[2]) + 4, float(right[2]) + 4]


def test_more_is_higher_and_further_right():
    text = scatter("", [Point("a", 7.3, 31.0, True), Point("b", 18.2, 32.0, True)])
    (few, low), (many, high) = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text)
    assert float(few) < float(many)
    assert float(low) > float(high)  # SVG counts from the top
