"""HTML and SVG elements that escape whatever is not already markup."""

from html import escape

VOID_ELEMENTS = frozenset({"img", "link", "meta"})


class Html(str):
    """Text that is markup already, and so is not escaped again."""

    __slots__ = ()


def element(name: str, /, *children: str | None, **attributes: object) -> Html:
    """Build one element.

    Plain strings are escaped, `Html` is kept, `None` is left out. In attribute names a final underscore is dropped
    and the others become hyphens: `class_="note"`, `stroke_width=2`. An attribute of `None` or `False` is left out;
    `True` stands for the bare name.

    Example:
        >>> element("td", "a < b", class_="number")
        '<td class="number">a &lt; b</td>'
    """
    shown = {key: value for key, value in attributes.items() if value is not None and value is not False}
    opening = name + "".join(_attribute(key, value) for key, value in shown.items())
    return Html(f"<{opening}>") if name in VOID_ELEMENTS else Html(f"<{opening}>{join(*children)}</{name}>")


def join(*children: str | None) -> Html:
    """Put markup in a row; plain strings are escaped, `None` is left out."""
    return Html("".join(_text(child) for child in children if child is not None))


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{_text(str(value))}"'


def _text(value: str) -> str:
    # File names may hold bytes that are no UTF-8, which Python keeps as lone surrogates; they are shown as \udcff.
    return value if isinstance(value, Html) else escape(value.encode(errors="backslashreplace").decode())
