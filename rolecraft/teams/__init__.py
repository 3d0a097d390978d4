"""What a team is: roles, and the rule for who speaks next.

To add one, write `teams/x.py` that exports `TEAM`, a `team.Team` called `x`; a path to such a file works wherever a
team is named on the command line. Its rules are functions of one message, in that file or imported by it:

- `next_speaker(message)` is a role's name, or None where the episode is over. An observation, or a remark on a
  call, leads to a role; some role's text ends the episode. A question is the `first` role's.
- A role with `choice` `required` acts by calls; one with `next_roles` must end its text in `Next: word.`, and each of
  these words leads somewhere: to a role, or to an end that `gives_up` knows.
- `divide(message)`, if there is one, makes of a lone assistant's message what the roles would have said: the calls and
  the answer stay as they were, and each part leads to the next by `next_speaker`. Data without roles is trained by it,
  and benchmarks have their references in the team's roles.

Not covered: how an episode is lived (`agent`), and which tokens each role's adapter computes (`gate`).
"""

from __future__ import annotations

from typing import Protocol

from rolecraft.team import Team

__all__ = ["TeamFile"]


class TeamFile(Protocol):
    """The contract of a file in this folder."""

    TEAM: Team
