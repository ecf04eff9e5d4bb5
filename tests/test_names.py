from __future__ import annotations

import shlex

import pytest

from incatalog.errors import ConfigError
from incatalog.names import names, quoted_name

KNOWN = ("a", "b", "Toys, Games", "x,y", "x", "y", 'The "Best", Inc.', '12" vinyl', '"Al"')


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], []),
        ([""], []),
        (["a"], ["a"]),
        (["a,b"], ["a", "b"]),
        ([" a , b ,"], ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        (["zzz,a"], ["zzz", "a"]),
        (["Toys, Games"], ["Toys, Games"]),
        ([" Toys, Games"], ["Toys, Games"]),
        (['"Toys, Games"'], ["Toys, Games"]),
        (['b, "Toys, Games",a'], ["b", "Toys, Games", "a"]),
        (["Toys, Games", "a,b"], ["Toys, Games", "a", "b"]),
        (['"x,y"'], ["x,y"]),
        (["x", "y"], ["x", "y"]),
        (["y,x"], ["y", "x"]),
        (['The "Best", Inc.'], ['The "Best", Inc.']),
        (['a,"The ""Best"", Inc."'], ["a", 'The "Best", Inc.']),
        (['12" vinyl'], ['12" vinyl']),
        (['12" vinyl,a'], ['12" vinyl', "a"]),
        (['"Al"'], ['"Al"']),
    ],
)
def test_names_between_commas(values, found) -> None:
    assert names("--f", values, KNOWN) == found


def test_a_value_that_may_mean_two_things_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        names("--f", ["x,y"], KNOWN)
    message = str(caught.value)
    assert message == (
        "--f: 'x,y' is one name, and its parts are names too; "
        "write '\"x,y\"' for the one or x y for the others"
    )
    for written, meant in (("'\"x,y\"'", ["x,y"]), ("x y", ["x", "y"])):
        assert names("--f", shlex.split(written), KNOWN) == meant


@pytest.mark.parametrize("value", ['"a', '"a" b', 'a,"b'])
def test_quotes_that_do_not_match_are_one_line(value) -> None:
    with pytest.raises(
        ConfigError, match=r"^--f: .* is no list of names .* double quotes"
    ) as caught:
        names("--f", [value], KNOWN)
    assert "\n" not in str(caught.value)


def test_every_name_that_a_comma_splits_can_be_typed_as_the_message_says() -> None:
    for part, whole in (("Toys", "Toys, Games"), ("Inc.", 'The "Best", Inc.')):
        hint = quoted_name("--f", part, KNOWN)
        start = "; a name that holds a comma stands in quotes: --f "
        assert hint.startswith(start)
        assert names("--f", shlex.split(hint.removeprefix(start)), KNOWN) == [whole]
    assert quoted_name("--f", "a", KNOWN) == ""
    assert quoted_name("--f", "Toy", KNOWN) == ""
