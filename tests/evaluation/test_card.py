import base64
import io
import re

import numpy as np
from PIL import Image

from lkdn_jax.evaluation.card import card


def test_shows_a_network_beside_another(entry):
    ours, theirs = entry(), entry("LKDN-S_x4", 31.5)
    image = next(iter(ours.gallery.pictures["Set5"]))
    picture = theirs.gallery.pictures["Set5"][image]
    picture.ours = np.full_like(picture.ours, 7)
    text = card(ours, [theirs], "Set5", image, "best")
    (source,) = re.findall(r'class="before other0"[^>]*src="([^"]+)" hidden', text)
    shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert (np.asarray(shown) == 7).all()
    assert 'value="other0"> LKDN-S_x4, 31.50 dB<' in text
    assert "other0" not in card(ours, [], "Set5", image, "best")
