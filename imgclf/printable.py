"""Show text of users, such as names of files and classes, on a terminal without letting it act there."""

import re
import unicodedata


def printable(text: str, keep: str = "") -> str:
    r"""Escape the characters that move the cursor, change colors, reverse the direction, or cannot be seen.

    They become escapes as in Python, such as `\x1b` and `\u202e`; spaces of any script stay.

    Args:
        keep: characters that stay as well, such as the line breaks of a text of several lines.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or _is_plain(c) else c.encode("unicode_escape").decode() for c in text)


def _is_plain(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def safe_json(text: str) -> str:
    """Escape the same characters within a JSON document, which stays the same value.

    Lone surrogates stay, too: they stand for bytes of a file name that are no text.
    """
    if text.isprintable():
        return text
    return _OUTSIDE_ASCII.sub(_escaped, text)


_OUTSIDE_ASCII = re.compile(r"[^\x00-\x7e]")  # json escapes the control characters below


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if _is_plain(character) or "\ud800" <= character <= "\udfff":
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))
