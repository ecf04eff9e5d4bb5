from __future__ import annotations

from html.entities import html5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.data.cleaning import clean_title, is_page_code, is_price, plain_text, unescape


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("plain", "plain"),
        ("  a\n\tb\r\n c  ", "a b c"),
        ("Black &amp; White", "Black & White"),
        ("Tom &amp;amp; Jerry &amp;quot;Two&amp;quot;", 'Tom & Jerry "Two"'),
        ("Warranty &gt;&gt;&gt; Shop", "Warranty >>> Shop"),
        ("one<br />two<BR>three", "one two three"),
        ('<a href="x?a=1&b=2">link</a> on', "link on"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("x <!-- hidden --> y <!-- cut", "x y"),
        ("x<script>var a = '<b>';</script> y<style>p{a:b}", "x y"),
        ('Cable <span class="a-size-medium', "Cable"),
        ("I <3 you, a < b > c", "I <3 you, a < b > c"),
        ("Book <Special Edition> <SOI>", "Book <Special Edition> <SOI>"),
        ("a\u200b\ufeff b\x00c", "a b c"),
        ("half \ud800 pair", "half ? pair"),
        ("<p></p>", ""),
        ("Rock &reggae hits", "Rock &reggae hits"),
        ("Kids &notebooks, Q&A &sections", "Kids &notebooks, Q&A &sections"),
        ("Copy&copyright &copy; &COPY;", "Copy&copyright © ©"),
        ("&notit; &regular; &ampersand;", "&notit; &regular; &ampersand;"),
        ("&lt 3 &#60 &#x3c", "&lt 3 &#60 &#x3c"),
        ("R&amp;reg &amp;#233; &#xE9; &eacute;", "R&reg é é é"),
        ("AT&amp;T&trade; &NotEqualTilde;", "AT&T™ ≂̸"),
    ],
)
def test_markup_goes_and_words_stay(raw, text) -> None:
    assert plain_text(raw) == text
    assert plain_text(text) == text


def test_page_code_is_told_from_words() -> None:
    code = [
        "var aPageStart = (new Date()).getTime(); var ue_t0=ue_t0||+new Date();",
        ".a-section { margin-bottom: 0; } Camera",
        "function go(a, b) { return a }",
        "x document.write('y')",
    ]
    words = [
        "Multi function(al) VAR amplifier",
        "Window.Cleaner {blue}",
        "The Function of Reason (1929)",
        "$100 Gift Card: A = B",
    ]
    assert all(map(is_page_code, code))
    assert not any(map(is_page_code, words))


def test_prices_are_told_from_titles() -> None:
    assert all(map(is_price, ["$19.99", "$1.00 - $2,000", " € 5 "]))
    assert not any(map(is_price, ["", "1984", "$100 Bill Book", "-"]))


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("Rock &reggae", "Rock &reggae"),
        ("Cafe\u0301 \n No. 1", "Café No. 1"),
        ("a\x00b\u200b", "ab"),
        ("\u200b", ""),
        ("\x00\ufeff \u2060", ""),
        ("&#8203;", ""),
        ("&nbsp;", ""),
    ],
)
def test_titles_are_cleaned_of_what_no_one_reads(raw, title) -> None:
    assert clean_title(raw) == title
    assert clean_title(title) == title


# Those that ``html.unescape`` takes without a semicolon, as the beginning of a word.
BEGINNINGS = st.sampled_from(sorted(name for name in html5 if not name.endswith(";")))
LETTERS = st.text("abcdefghijklmnopqrstuvwxyz", max_size=6)


@given(st.lists(st.sampled_from(["&", "amp", "reg", "#38", "#x26", " ", "a", "é"]), max_size=9))
def test_nothing_is_resolved_without_a_semicolon(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert unescape(text) == text


@given(BEGINNINGS, LETTERS, st.sampled_from(["", " ", ",", "=", "&"]), LETTERS)
def test_words_that_begin_like_entities_stay(name: str, more: str, between: str, end: str) -> None:
    text = f"Q&{name}{more}{between}{end}"
    assert unescape(text) == text
    whole = f"&{name}{more};"
    expected = html5.get(f"{name}{more};", whole)
    assert unescape(f"{text} {whole}{end}") == f"{text} {expected}{end}"
