"""Plain text out of what shops publish: markup, entities, line breaks, page scripts."""

from __future__ import annotations

import html
import re

_TAGS = (
    "a|abbr|acronym|address|article|aside|b|big|blockquote|body|br|button|caption|center|cite|code|"
    "col|dd|del|div|dl|dt|em|embed|fieldset|figure|font|footer|form|h[1-6]|head|header|hr|html|i|"
    "iframe|img|input|ins|kbd|label|legend|li|link|main|map|meta|nav|nobr|noscript|object|ol|option|"
    "p|param|pre|q|s|samp|section|select|small|source|span|strike|strong|sub|sup|svg|table|tbody|td|"
    "textarea|tfoot|th|thead|time|title|tr|tt|u|ul|var|video|wbr"
)
_COMMENT = re.compile(r"<!--.*?(?:-->|$)|<!DOCTYPE[^>]*>", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|$)", re.DOTALL | re.IGNORECASE)
# A tag that the end of the text cuts off counts where an attribute has begun, so "a <b" stays.
_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>|<(?:{_TAGS})\s[^<>]*=[^<>]*$", re.IGNORECASE)
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff]+")
_PAGE_CODE = re.compile(
    r"\bvar\s+\w+\s*=|\bfunction\s*\w*\([\w\s,]*\)\s*\{|\bgetTime\(\)|\baPageStart\b"
    r"|\b(?:document|window)\.\w+\s*[=(.]"
    r"|[#.]?[\w-]+\s*\{\s*[\w-]+\s*:[^{}]*[;}]|<!\[CDATA\[",
)
_PRICE = re.compile(r"[\s$€£¥.,\d\-–—]*[$€£¥][\s$€£¥.,\d\-–—]*")


def plain_text(text: str) -> str:
    """Removes HTML tags, comments and scripts, resolves entities, and joins lines.

    Only tags that HTML has are removed, so ``<3`` and ``<Special Edition>`` stay. Text escaped
    several times over, as it is in the Amazon data, is resolved until nothing changes.
    """
    for _ in range(4):
        stripped = _TAG.sub(" ", _COMMENT.sub(" ", _CODE.sub(" ", text)))
        resolved = html.unescape(stripped)
        if resolved == text:
            break
        text = resolved
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _SPACE.sub(" ", text).strip()


def is_page_code(text: str) -> bool:
    """Whether the text is script or style of a web page rather than words about an item."""
    return _PAGE_CODE.search(text) is not None


def is_price(text: str) -> bool:
    """Whether the text is nothing but a price or a range of prices."""
    return _PRICE.fullmatch(text) is not None
