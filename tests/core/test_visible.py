"""Text of others shows itself in place of acting, on pages and on terminals."""

from batchrun.visible import HIDDEN, all_visible, visible


def test_control_characters_and_overrides_show_themselves() -> None:
    assert visible("a\x00b\x1b\u202ec\ud800\x7f") == "a␀b␛⟦U+202E⟧c\ufffd⟦U+007F⟧"
    assert visible("line\nتab\t\u2028") == "line\nتab\t\u2028"


def test_no_character_that_acts_unseen_counts_as_printable() -> None:
    everything = map(chr, range(0x110000))
    assert [one for one in everything if one.isprintable() and HIDDEN.match(one)] == []


def test_every_text_of_a_value_is_made_visible_and_nothing_else_changes() -> None:
    assert all_visible({"a\x1b": [1, None, ("b\x07", 2.5)]}) == {"a␛": [1, None, ["b␇", 2.5]]}
