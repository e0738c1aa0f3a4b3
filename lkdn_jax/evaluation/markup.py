"""Pieces of HTML: text, tables, pictures."""

import base64
import html
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image


def escape(text: str) -> str:
    """Return text as HTML; a file name in it need not be valid UTF-8."""
    return html.escape(text.encode(errors="backslashreplace").decode())


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of texts, as HTML."""
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        '<div class="wide" tabindex="0"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def png(image: np.ndarray) -> str:
    """Return the address of a picture [h, w, 3], uint8, that is in the page itself."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
