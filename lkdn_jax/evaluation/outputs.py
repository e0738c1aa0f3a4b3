"""Which files an evaluation writes: a report in some format, and figures."""

from collections.abc import Sequence
from pathlib import Path

from lkdn_jax.evaluation.comparison import Entry
from lkdn_jax.evaluation.html import write_figures, write_html
from lkdn_jax.evaluation.report import check_output, write_report
from lkdn_jax.files import check_folder


def check_outputs(output: Path | None, figures: Path | None, networks: int) -> bool:
    """Check, before the work, that the outputs can be written.

    Args:
        output: The report, or None.
        figures: The folder of the figures, or None.
        networks: How many networks are compared.

    Returns:
        Whether pictures are needed.

    Raises:
        InputError: An output that cannot be written.
    """
    if output is not None:
        check_output(output, networks)
    if figures is not None:
        check_folder(figures)
    return figures is not None or _is_html(output)


def write_outputs(
    output: Path | None, figures: Path | None, entries: Sequence[Entry]
) -> list[Path]:
    """Write the report, in the format of its suffix, and the figures.

    Args:
        output: The report, or None.
        figures: The folder of the figures, or None.
        entries: As for `render`; one, unless the report is HTML.

    Returns:
        What was written.
    """
    if output is not None and _is_html(output):
        write_html(output, entries)
    elif output is not None:
        write_report(output, entries[0].report)
    if figures is not None:
        write_figures(figures, entries)
    return [path for path in (output, figures) if path is not None]


def _is_html(path: Path | None) -> bool:
    return path is not None and path.suffix.lower() == ".html"
