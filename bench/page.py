"""Writes tables into the pages of docs/, and draws its pictures."""

from collections.abc import Iterable


def draw_svg(width: float, height: float, parts: Iterable[str]) -> str:
    """Returns a picture with a white background."""
    style = 'font-family="sans-serif" font-size="11"'
    frame = f'<rect width="{width}" height="{height}" fill="white"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {style}>\n'
        + "\n".join([frame, *parts])
        + "\n</svg>\n"
    )


def has_section(page: str, name: str) -> bool:
    """True if the page has the two comments of a section."""
    return _begin(name) in page


def replace_section(page: str, name: str, text: str) -> str:
    """Returns the page with another text in a section."""
    begin, end = _begin(name), f"<!-- end of {name} -->"
    head, rest = page.split(begin)
    return f"{head}{begin}\n{text}\n\n{end}{rest.split(end)[1]}"


def _begin(name: str) -> str:
    return f"<!-- {name} -->\n"
