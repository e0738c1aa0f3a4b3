"""One image of a report: a network's output beside another picture, by a slider."""

from collections.abc import Sequence

from lkdn_jax.evaluation.comparison import Entry
from lkdn_jax.evaluation.markup import escape, png


def card(
    entry: Entry, others: Sequence[Entry], dataset: str, image: str, why: str
) -> str:
    """Show an image: the LR image, the original or another output left of a line.

    Args:
        entry: The network whose output is right of the line.
        others: Networks evaluated on the same images.
        dataset: Name of the dataset.
        image: Name of the image.
        why: Why it is shown.

    Returns:
        The HTML; `report.js` makes it work.
    """
    picture = entry.gallery.pictures[dataset][image]
    # Class, name of the choice, alternative text and picture of what is on the left.
    lefts = [
        ("bicubic", "LR bicubic", "the LR image, enlarged", picture.bicubic),
        ("hr", "HR", "the original", picture.hr),
    ]
    for i, other in enumerate(others):
        theirs = other.gallery.pictures[dataset][image]
        name = f"{other.name}, {theirs.psnr:.2f} dB"
        lefts.append((f"other{i}", name, f"the output of {other.name}", theirs.ours))
    right = escape(f"the output of {entry.name}")
    layers = f'<img alt="{right}" src="{png(picture.ours)}">' + "".join(
        f'<img class="before {kind}" alt="{escape(alt)}" src="{png(array)}"'
        f"{' hidden' if i else ''}>"
        for i, (kind, _, alt, array) in enumerate(lefts)
    )
    group = escape(f"{entry.name}/{dataset}/{image}")
    choices = "".join(
        f'<label><input type="radio" name="{group}" value="{kind}"'
        f"{'' if i else ' checked'}> {escape(name)}</label>"
        for i, (kind, name, *_) in enumerate(lefts)
    )
    label = escape(f"{image}: share of the left picture")
    return (
        f'<figure class="card"><figcaption>{escape(why)}, {picture.psnr:.2f} dB<br>'
        f"{escape(image)}</figcaption>"
        f'<div class="compare">{layers}<div class="line"></div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{label}"></div>'
        f"<fieldset><legend>left of the line</legend>{choices}</fieldset>"
        f'<details><summary>error on Y, 16 times as bright</summary><img class="error" '
        f'alt="error map" src="{png(picture.error)}"></details></figure>'
    )
