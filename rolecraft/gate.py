"""The gate of a Mixture of Roles: by rule, which role's LoRAs compute each token; the same in training and in play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rolecraft.errors import ContractError, SettingsError
from rolecraft.settings import require_choice
from rolecraft.team import Team

Assignment = Literal["stream", "reencode", "activated"]
"""How tokens get their role ids; the three are different models over the same layers.

`stream`: each token keeps the role that wrote it, so its keys and values stay valid and a hand-over costs nothing.
`reencode`: the role that speaks computes its whole view anew (alpha-UMi, servers of many LoRAs).
`activated`: a reply has its role while it is written and none as later context (as activated LoRA, arXiv 2504.12397).
"""

NOBODY = -1
"""The role id of a token that the base computes alone."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The roles that have LoRAs, in the order of their ids; `context` is whose the context tokens are in `stream`.

    Context is what users, tools and the system say: the reasoner's in MoRAgent (section 3.1), None for the base alone.
    """

    roles: tuple[str, ...]
    assignment: Assignment = "stream"
    context: str | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError for an unknown assignment, a role named twice, or a context that belongs to no role."""
        require_choice(self.assignment, get_args(Assignment), "assignment")
        twice = [role for role in self.roles if self.roles.count(role) > 1]
        if twice:
            raise SettingsError(f"roles name {twice[0]!r} twice ({', '.join(self.roles)}); give each a name of its own")
        if self.context is not None and self.context not in self.roles:
            raise SettingsError(
                f"the context belongs to {self.context!r}, which is no role; roles are {', '.join(self.roles)}, "
                "and null leaves the context to the base"
            )

    @property
    def packs(self) -> bool:
        """Whether one sequence can train several replies: only if a token's role does not depend on who reads it."""
        return self.assignment == "stream"

    def ids(self, speakers: Sequence[str | None], speaker: str, start: int) -> tuple[int, ...]:
        """Return the role id of each token of a sequence in which `speaker` writes from token `start` (its header) on.

        `speakers` tells who wrote each token, None for context.
        """
        if self.assignment == "stream":
            others = NOBODY if self.context is None else self.roles.index(self.context)
            places: dict[str | None, int] = {role: place for place, role in enumerate(self.roles)}
            return tuple(places.get(one, others) for one in speakers)
        mine, count = self.roles.index(speaker), len(speakers)
        if self.assignment == "reencode":
            return (mine,) * count
        return (NOBODY,) * start + (mine,) * (count - start)

    def check(self, team: Team) -> None:
        """Raise ContractError unless `team` has exactly these roles, and views that this assignment can serve."""
        if set(team.speakers) != set(self.roles):
            raise ContractError(
                f"team {team.name!r} has the roles {', '.join(team.speakers)}, and the adapter has LoRAs for "
                f"{', '.join(self.roles)}; name another team, or set adapter.roles"
            )
        if self.assignment == "stream" and not team.appends_only:
            raise ContractError(
                f"the roles of team {team.name!r} see different texts or tools, so their tokens cannot be one stream; "
                "set adapter.assignment to 'reencode' or 'activated'"
            )
