"""What a profile makes of an approved request. Of the manifest, `promote` takes the profile and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.job import JobSpec, RetryBudget
from ..core.keys import fingerprint
from ..core.promotion import Winner, promoted_key, promoted_output
from .outputs import path_problem
from .shots import Problems, Settings, Shot, request_of


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
        provider, max_credits, submits_per_minute, in_flight, retry: see `Manifest`.
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

    def spec(self, winner: Winner) -> JobSpec | None:
        """The job that an approved one becomes: its request, with the profile's fields over it. The profile's `takes`
        and `tags` are left aside: one clip was approved, and it keeps its tags.

        Returns:
            None where the profile changes nothing of the request.

        Raises:
            NotPromotable: the two together are no valid request.
        """
        over = self.settings.over
        problems: Problems = []
        # Only the profile is filled in: what was approved may hold a literal `${`.
        fields = {"model": winner.request["model"], **over.fields}
        shot = Shot(over.node, winner.shot, fields, 1, [], simple=False, takes_differ=False)
        rules, filled, _ = request_of(self.settings, shot, winner.matrix, winner.take, problems)
        found = [f"profile {self.profile}: {name}: {message}" for name, message in problems]
        found += [
            f"profile {self.profile} sets {name}, which is also a matrix axis; take it out of one of them"
            for name in winner.matrix
            if name in over.fields
        ]
        if winner.provider != self.provider:
            found.append(f"it was made by {winner.provider}, and the manifest's provider is {self.provider}")
        if rules is None:
            found.append(f"profile {self.profile} asks for a model that there is not")
        if found or rules is None:
            raise NotPromotable(found)
        request = {**winner.request, **{name: value for name, value in filled.items() if name in fields}}
        if request == winner.request:
            return None
        key = promoted_key(winner.key, self.profile)
        output = promoted_output(winner.output, self.profile, named=winner.named)
        found = [p.problem.message for p in rules.problems(request)]
        if (unsafe := path_problem(output)) is not None:
            found.append(unsafe)
        if found:
            raise NotPromotable(found)
        model = rules.model.name
        return JobSpec(
            key,
            fingerprint(self.provider, model, request),
            winner.shot,
            winner.take,
            winner.matrix,
            winner.tags,
            self.provider,
            model,
            request,
            rules.credits(request),
            output,
            winner.named,
            rules.seconds(request),
        )
