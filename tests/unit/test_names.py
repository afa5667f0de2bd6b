"""The little language in which a catalogue says what a model makes of a common name."""

from __future__ import annotations

from batchrunner.core.names import COMMON, CommonName, parse_names


def test_a_field_of_a_common_name_is_meant_by_it() -> None:
    found = parse_names({}, {"duration": {}, "prompt": {}, "aspect_ratio": {}})
    assert found == {"aspect_ratio": CommonName({"aspect_ratio": "$"}), "duration": CommonName({"duration": "$"})}
    assert list(found) == [name for name in COMMON if name in found], "in the order in which they are applied"


def test_what_the_catalogue_says_wins() -> None:
    found = parse_names(
        {
            "resolution": {"set": {"mode": "$"}, "values": {"1080p": "pro"}, "not_with": ["image"]},
            "audio": {"not": "it makes silent clips", "leave_out": [False]},
            "first_frame": {"not": "it makes no clips", "leave_out": True},
        },
        {"resolution": {}},
    )
    assert found == {
        "first_frame": CommonName(reason="it makes no clips", leave_out=True),
        "resolution": CommonName({"mode": "$"}, {"1080p": "pro"}, not_with=("image",)),
        "audio": CommonName(reason="it makes silent clips", leave_out=(False,)),
    }
    assert (found["audio"].fields, found["audio"].values, found["audio"].not_with) == ({}, {}, ())


def test_what_the_catalogue_does_not_say_is_nothing() -> None:
    plain = parse_names({}, {"audio": {}})["audio"]
    assert (plain.values, plain.reason, plain.leave_out, plain.not_with) == ({}, "", (), ())
    assert parse_names({"duration": {}}, {})["duration"].fields == {}


def test_only_a_text_has_another_word() -> None:
    name = CommonName({"size": "$"}, {"1080p": "pro"})
    assert [name.word(value) for value in ("1080p", "720p", 8, ["1080p"])] == ["pro", "720p", 8, ["1080p"]]
