"""Tables of what a network and a server may do, and how each must end."""

from __future__ import annotations

from tests.network import downloads, polls, posts

GROUPS = [*posts.GROUPS, *polls.GROUPS, *downloads.GROUPS]
"""Every group of cases, in the order of the documentation."""
