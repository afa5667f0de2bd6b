"""What a promoted job and its file are called."""

from __future__ import annotations

import pytest

from batchrunner.core.promotion import promoted, promoted_key, promoted_output


@pytest.mark.parametrize(
    ("output", "named", "becomes"),
    [
        ("a/dog-1.mp4", True, "a/dog-1@final.mp4"),
        ("dog", True, "dog@final"),
        ("a/dog-1", False, "a/dog-1@final"),
        ("a/dog@r=0.5-1", False, "a/dog@r=0.5-1@final"),  # its extension is still to come
    ],
)
def test_a_file_beside_the_drafts(output: str, named: bool, becomes: str) -> None:
    assert promoted_output(output, "final", named=named) == becomes


def test_the_jobs_of_a_profile_are_selected_by_their_keys() -> None:
    final = promoted("final")
    keys = [promoted_key("dog-1", "final"), promoted_key("dog-1", "semi-final"), "dog-1", "final"]
    assert [final.matches(key, "dog", ()) for key in keys] == [True, False, False, False]
