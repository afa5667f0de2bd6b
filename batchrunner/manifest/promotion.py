"""What a profile makes of an approved request. Of the manifest, `promote` takes the profile and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.job import JobSpec, RetryBudget
from ..core.keys import fingerprint
from ..core.limits import Limits
from ..core.notice import Sink
from ..core.promotion import Winner, promoted_key, promoted_output
from .chains import stand_ins, standing_in
from .outputs import path_problem
from .requests import ModelRules
from .shots import Settings, Shot, fill_in
from .spelling import Level, Notes, spell


class NotPromotable(Exception):
    """The profile and the approved request don't go together.

    Attributes:
        problems: why, each of them.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Promotion:
    """A manifest's profile, to be laid over requests that were approved.

    Attributes:
        file: absolute path of the manifest.
        batch: its batch's name.
        profile: the profile's name.
        provider, max_credits, submits_per_minute, in_flight, retry, limits, notify: see `Manifest`.
        settings: the manifest's head.
    """

    file: Path
    batch: str
    profile: str
    provider: str
    max_credits: int | None
    submits_per_minute: float
    in_flight: int
    retry: RetryBudget
    settings: Settings
    limits: Limits = field(default_factory=Limits)
    notify: tuple[Sink, ...] = ()

    def spec(self, winner: Winner) -> JobSpec | None:
        """The job that an approved one becomes: its request, with the profile's fields over it. The profile's `takes`
        and `tags` are left aside: one clip was approved, and it keeps its tags.

        Returns:
            None where the profile changes nothing of the request.

        Raises:
            NotPromotable: the two together are no valid request.
        """
        over = self.settings.over
        notes = Notes()
        # Only the profile is filled in: what was approved may hold a literal `${`.
        fields = {"model": winner.request["model"], **over.fields}
        shot = Shot(over.node, winner.shot, fields, 1, [], simple=False, takes_differ=False)
        rules, filled = fill_in(self.settings, shot, winner.matrix, winner.take, notes)
        if rules is None:
            raise NotPromotable([f"profile {self.profile} asks for a model that there is not"])
        request = self._over(winner.request, {n: v for n, v in filled.items() if n in fields}, rules, notes)
        found = [f"profile {self.profile}: {name}: {message}" for name, message in (*notes.problems, *notes.refused)]
        found += [
            f"profile {self.profile} sets {name}, which is also a matrix axis; take it out of one of them"
            for name in winner.matrix
            if name in over.fields
        ]
        found += [
            f"profile {self.profile} names the output of another shot, {text}: there are none where it is laid over "
            "an approved request"
            for _, text in stand_ins(filled)
        ]
        if winner.provider not in {known.model.provider for known in self.settings.rules.values()}:
            found.append(f"it was made by {winner.provider}, and the manifest's provider is {self.provider}")
        if found:
            raise NotPromotable(found)
        if request == winner.request:
            return None
        key = promoted_key(winner.key, self.profile)
        output = promoted_output(winner.output, self.profile, named=winner.named)
        judged = standing_in(request)
        found = [p.problem.message for p in rules.problems(judged, spelled=notes.spelled)]
        if (unsafe := path_problem(output)) is not None:
            found.append(unsafe)
        if found:
            raise NotPromotable(found)
        model, provider = rules.model.name, rules.model.provider
        return JobSpec(
            key,
            fingerprint(provider, model, request),
            winner.shot,
            winner.take,
            winner.matrix,
            winner.tags,
            provider,
            model,
            request,
            rules.credits(judged),
            output,
            winner.named,
            rules.seconds(request),
        )

    def _over(
        self, approved: Mapping[str, Any], own: Mapping[str, Any], rules: ModelRules, notes: Notes
    ) -> dict[str, Any]:
        """The approved request with the profile's fields over it, in the model's own words, which the request is in
        already."""
        kept = {name: value for name, value in approved.items() if name in rules.renamed and name not in own}
        fields = {**{name: value for name, value in approved.items() if name not in kept}, **own}

        def level(name: str) -> Level:
            return Level.PROFILE if name in own else Level.SHOT

        return {**kept, **spell(rules, fields, level, self.settings.over.fields, notes)}
