from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.fields import FilePlace
from incatalog.data.interactions import Interactions
from incatalog.data.rating_tables import RatingTable, number, split_fields
from incatalog.data.times import Times
from incatalog.errors import DataError

CODES = {"a": 0, "b": 1, "10": 2}
Found = tuple[dict[str, int], list[tuple[float, ...]], list[tuple[int, str]]]


def read(table: RatingTable) -> Found:
    """Codes of users, rows of user, item, time and rating, and places of unknown items."""
    found = Interactions(Times("timestamp"))
    unknown: list[tuple[int, str]] = []
    ratings = table.read(CODES, found, lambda place, item: unknown.append((place.line, item)))
    return found.user_codes, found.frame(rating=ratings).rows(), unknown


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "ratings"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("u\ta\t4\t7\nv\tb\t3.5\t5\nu\tc\t1\t1\nu\t10\t2\t3\n", ("\t", (0, 1, 2, 3), 4)),
        ("u::a::4::7\nv::b::3.5::5\nu::c::1::1\nu::10::2::3", ("::", (0, 1, 2, 3), 4)),
        ("7,x,u,4,a\n5,x,v,3.5,b\n1,x,u,1,c\n3,x,u,2,10\n", (",", (2, 4, 3, 0), 5)),
        ("u,a,4,7\r\nv,b,3.5,5\r\nu,c,1,1\r\nu,10,2,3\r\n", (",", (0, 1, 2, 3), 4)),
        ("\ufeffu,a,4,7\nv,b,3.5,5\nu,c,1,1\nu,10,2,3\n", (",", (0, 1, 2, 3), 4)),
        ('"u",a,4,7\nv,"b",3.5,5\nu,c,1,1\nu,10,2,3\n', (",", (0, 1, 2, 3), 4)),
        ("u,a,4,7\nv,b,3.5,5\nu,c,1,1\nu,10,2,3\n\n\n", (",", (0, 1, 2, 3), 4)),
        ("u,a, 4.0,7\nv,b,3.5,5\nu,c,x,1\nu,10,2,3\n", (",", (0, 1, 2, 3), 4)),
    ],
)
def test_every_form_is_read(tmp_path, text, table) -> None:
    for content in (text.encode(), gzip.compress(text.encode())):
        codes, rows, unknown = read(RatingTable(written(tmp_path, content), *table))
        assert codes == {"u": 0, "v": 1}
        assert rows == [(0, 2, 3, 2.0), (0, 0, 7, 4.0), (1, 1, 5, 3.5)]
        assert unknown == [(3, "c")]


CELLS = st.sampled_from(
    ["u", "v", "", " u", "1", "a", "b", "x", "7", "+7", "-2", "3.5", "nan", "1e3", "inf", "é",
     "1700000000", "1700000000000", "2020-01-01", '"a"', 'a"', "\x1f", "99999999999999999999"]
)  # fmt: skip
GOOD = st.tuples(
    st.sampled_from("uvw"), st.sampled_from(["a", "b", "10", "x"]), st.sampled_from(["1", "4.5"]),
    st.integers(0, 99).map(str),
).map(list)  # fmt: skip
LINES = st.lists(GOOD | st.lists(CELLS, min_size=3, max_size=5), max_size=6)


@settings(max_examples=40)
@given(LINES, st.sampled_from([",", "\t", "::"]), st.booleans())
def test_odd_lines_change_nothing_about_others(tmp_path_factory, rows, separator, wider) -> None:
    path = written(tmp_path_factory.mktemp("r"), "".join(separator.join(r) + "\n" for r in rows))
    outcomes = []
    # In a block of its own, a line without fault is read with no look at it.
    for block in (1, 20, 1 << 20):
        try:
            outcomes.append(
                read(RatingTable(path, separator, (0, 1, 2, 3), 4, wider=wider, block=block))
            )
        except DataError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("separator", [",", "\t", "::"])
def test_plain_lines_need_no_look_at_each(tmp_path, separator) -> None:
    lines = "".join(separator.join((f"{u}", "a", "4.5", f"{u}\n")) for u in range(1000))
    table = RatingTable(written(tmp_path, lines), separator, (0, 1, 2, 3), 4)
    frame = table._plain(lines.encode(), Interactions(None))
    assert frame is not None
    assert frame.rows() == [(f"{u}", "a", 4.5, u) for u in range(1000)]
    codes, found, _ = read(table)
    assert list(codes) == [f"{u}" for u in range(1000)]
    assert [row[2] for row in found] == list(range(1000))
    for odd in ("", '"7"', "\x1f", "é\ud800"):
        line = separator.join((odd, "a", "4.5", "1\n")).encode("utf-8", "surrogatepass")
        assert table._plain(lines.encode() + line, Interactions(None)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"ratings: the file is empty; expected ratings"),
        ("h\n", r"ratings: the file is empty"),
        ("h\nu,a,4,7\nu,a,4\n", r"ratings:3: 3 fields; expected 4 as in the header"),
        ("h\nu,a,4,7\n\nu,a,x,7\n", r"ratings:4: rating is 'x'; expected a number"),
        ("h\nu,a,4,7\nu,a,4,x\n", r"ratings:3: timestamp is 'x'; expected a number"),
        ("h\nu,a,4,7\n,a,4,7\n", r"ratings:3: user id is ''; expected an id"),
        ('h\nu,"a,4,7\n', r"ratings:2: not valid CSV: unexpected end of data"),
        (b"h\n\xff,a,4,7\n", r"ratings:2: not UTF-8 text"),
        (gzip.compress(b"h\nu,a,4,7\n", mtime=0)[:-9], r"ratings:1: the gzip file ends early"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message) -> None:
    table = RatingTable(written(tmp_path, text), ",", (0, 1, 2, 3), 4, header=True)
    with pytest.raises(DataError, match=message):
        read(table)


def test_rows_of_the_whole_file(tmp_path) -> None:
    table = RatingTable(
        written(tmp_path, "h\n1,2,3,4\n\n5,6,7,8\n"), ",", (0, 1, 2, 3), 4, header=True
    )
    assert [(place.line, cells) for place, cells in table.rows()] == [
        (2, ["1", "2", "3", "4"]),
        (4, ["5", "6", "7", "8"]),
    ]


def test_fields_and_numbers() -> None:
    place = FilePlace(Path("f"), 1)
    assert split_fields(place, '1,"a, ""b""",c', ",") == ["1", 'a, "b"', "c"]
    assert split_fields(place, '1::"a::b', "::") == ["1", '"a', "b"]
    assert number(" 4.5 ") == 4.5
    assert math.isnan(number("four"))
