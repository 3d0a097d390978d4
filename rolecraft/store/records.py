"""The full record of an episode as JSON, turns and token ids included, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.types import Json, Message, Trajectory, Turn, Usage


def record_to_json(trajectory: Trajectory) -> dict[str, Json]:
    """Return the full record, turns and token ids included.

    It is a row that `wire` reads too. A turn whose message is in the trajectory holds its place instead of a copy.
    """
    data = wire.trajectory_to_json(trajectory, "object")
    opening, turns = trajectory.task.messages, []
    # a reply stands after the opening, which may hold the same words
    place = len(opening) - 1 if trajectory.messages[: len(opening)] == opening else -1
    for turn in trajectory.turns:
        later = range(place + 1, len(trajectory.messages))
        found = next((i for i in later if trajectory.messages[i] == turn.message), None)
        place = place if found is None else found
        turns.append({"message": wire.message_to_json(turn.message, "object") if found is None else found})
        turns[-1] |= _turn_to_json(turn)
    return data | {"turns": turns} if turns else data


def record_from_json(data: Mapping[str, Json]) -> Trajectory:
    """Return the trajectory of a full record; raises DataError.

    A message gets its `ids` back where its turn wrote exactly those; elsewhere they are None.
    """
    trajectory = wire.trajectory_from_json(data, "record")
    messages, turns = list(trajectory.messages), []
    try:
        for row in data.get("turns", ()):
            turn = _turn_from_json(row, messages)
            turns.append(turn)
            if isinstance(row["message"], int):
                messages[row["message"]] = turn.message
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"a turn is damaged ({type(error).__name__}: {error})") from error
    return dataclasses.replace(trajectory, messages=tuple(messages), turns=tuple(turns))


def _turn_to_json(turn: Turn) -> dict[str, Json]:
    # a message's ids are not the turn's where a prefix or a stop string came between
    own = {"ids": True} if turn.message.ids is not None and turn.message.ids == turn.token_ids else {}
    folded = {"folded": turn.folded} if turn.folded else {}
    sequences = {key: list(getattr(turn, key)) for key in ("prompt_ids", "token_ids", "logprobs", "role_ids")}
    return {
        **own,
        **folded,
        "speaker": turn.speaker,
        "stop": turn.stop,
        "usage": dataclasses.asdict(turn.usage),
        **sequences,
        "forced": [int(forced) for forced in turn.forced],
    }


def _turn_from_json(row: Mapping[str, Json], messages: list[Message]) -> Turn:
    place = row["message"]
    message = messages[place] if isinstance(place, int) else wire.message_from_json(place)
    token_ids = tuple(row["token_ids"])
    return Turn(
        message=dataclasses.replace(message, ids=token_ids) if row.get("ids") else message,
        speaker=row["speaker"],
        prompt_ids=tuple(row["prompt_ids"]),
        token_ids=token_ids,
        logprobs=tuple(row["logprobs"]),
        forced=tuple(map(bool, row["forced"])),
        role_ids=tuple(row["role_ids"]),
        stop=row["stop"],
        usage=Usage(**row["usage"]),
        folded=int(row.get("folded", 0)),
    )
