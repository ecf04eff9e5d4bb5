"""Plain text from what shops publish: no markup, entities, line breaks or page scripts."""

from __future__ import annotations

import html
import re
import unicodedata
from html.entities import html5

_TAGS = (
    "a|abbr|acronym|address|article|aside|b|big|blockquote|body|br|button|caption|center|cite|code|"
    "col|dd|del|div|dl|dt|em|embed|fieldset|figure|font|footer|form|h[1-6]|head|header|hr|html|i|"
    "iframe|img|input|ins|kbd|label|legend|li|link|main|map|meta|nav|nobr|noscript|object|ol|option|"
    "p|param|pre|q|s|samp|section|select|small|source|span|strike|strong|sub|sup|svg|table|tbody|td|"
    "textarea|tfoot|th|thead|time|title|tr|tt|u|ul|var|video|wbr"
)
_COMMENT = re.compile(r"<!--.*?(?:-->|$)|<!DOCTYPE[^>]*>", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|$)", re.DOTALL | re.IGNORECASE)
# A tag that the end of the text cuts off counts only if an attribute has begun: "a <b" stays.
_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>|<(?:{_TAGS})\s[^<>]*=[^<>]*$", re.IGNORECASE)
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff]+")
_PAGE_CODE = re.compile(
    r"\bvar\s+\w+\s*=|\bfunction\s*\w*\([\w\s,]*\)\s*\{|\bgetTime\(\)|\baPageStart\b"
    r"|\b(?:document|window)\.\w+\s*[=(.]"
    r"|[#.]?[\w-]+\s*\{\s*[\w-]+\s*:[^{}]*[;}]|<!\[CDATA\[",
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,8}|[A-Za-z][A-Za-z0-9]*);")
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u2060\ufeff\ud800-\udfff]")
_ROUNDS = 5
_PRICE = re.compile(r"[\s$€£¥.,\d\-–—]*[$€£¥][\s$€£¥.,\d\-–—]*")


def plain_text(text: str) -> str:
    """Removes HTML tags, comments and scripts, resolves entities, and joins lines.

    Only tags that HTML has are removed, so ``<3`` and ``<Special Edition>`` stay. Text that was
    escaped several times, as in the Amazon data, is resolved until nothing changes.
    """
    for _ in range(4):
        stripped = _TAG.sub(" ", _COMMENT.sub(" ", _CODE.sub(" ", text)))
        resolved = unescape(stripped)
        if resolved == text:
            break
        text = resolved
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _SPACE.sub(" ", text).strip()


def clean_title(title: str) -> str:
    """A title without entities, odd white space and unprintable characters, composed (NFC)."""
    for _ in range(_ROUNDS):
        unescaped = unescape(title)
        if unescaped == title:
            break
        title = unescaped
    title = unicodedata.normalize("NFC", _UNPRINTABLE.sub("", title))
    return " ".join(title.split())


def title_key(title: str) -> str:
    """What titles have in common that differ only in capitals and white space."""
    return " ".join(title.casefold().split())


def unescape(text: str) -> str:
    """Resolves HTML entities that end in a semicolon.

    ``html.unescape`` also resolves the beginnings of words: "&reggae" would be "®gae".
    """
    return _ENTITY.sub(_character, text)


def _character(entity: re.Match[str]) -> str:
    name = entity[0][1:]
    return html.unescape(entity[0]) if name[0] == "#" else html5.get(name, entity[0])


def is_page_code(text: str) -> bool:
    """Whether the text is script or style of a web page rather than words about an item."""
    return _PAGE_CODE.search(text) is not None


def is_price(text: str) -> bool:
    """Whether the text is only a price or a range of prices."""
    return _PRICE.fullmatch(text) is not None
