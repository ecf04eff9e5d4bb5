"""Records as Python prints a dict, which older dumps hold in place of JSON; nothing is run."""

from __future__ import annotations

import ast
import re
from typing import Any

from incatalog.data.fields import FilePlace

# What such a line begins with; JSON has no single quotes.
PRINTED_DICTS = (b"{'", b"{u'", b'{u"')
# Python 2 printed a character beyond 16 bits as two halves.
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def parse_literal(place: FilePlace, content: bytes) -> Any:
    """The value of a line that holds a Python literal, by ``ast.literal_eval``."""
    try:
        text = content.decode("utf-8").strip()
        value = ast.literal_eval(text)
    except UnicodeDecodeError as error:
        raise place.error(f"not UTF-8 text ({error.reason})") from error
    except (MemoryError, RecursionError) as error:
        raise place.error("not a usable Python literal: nested too deeply") from error
    except (SyntaxError, TypeError, ValueError) as error:
        reason = (str(getattr(error, "msg", "")) or str(error)).split(":")[0]
        raise place.error(f"not a valid Python literal: {reason}") from error
    return _joined(value) if "\\ud" in text or "\\uD" in text else value


def _joined(value: Any) -> Any:
    """A value whose texts hold no two halves of a character side by side."""
    match value:
        case str():
            return _HALVES.sub(
                lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le"), value
            )
        case list():
            return [_joined(part) for part in value]
        case dict():
            return {_joined(key): _joined(part) for key, part in value.items()}
        case _:
            return value
