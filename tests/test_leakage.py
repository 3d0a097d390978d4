"""What a training shares with the tasks that measure it is found, planted leaks among it; what merely recurs is not."""

from __future__ import annotations

import time
from typing import Any

import pytest
from public import FOLDER, needs

from rolecraft import augment, curate, leakage
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

REQUEST = "Please book two seats on the morning ferry to Oban for me"


def ferry(name: str = "bookFerry", *keys: str, about: str = "Book seats on a ferry", told: str = "The {}") -> ToolSpec:
    keys = keys or ("harbour", "seats")
    properties = {key: {"type": "string", "description": told.format(place)} for place, key in enumerate(keys)}
    return ToolSpec(name, about, {"type": "object", "properties": properties, "required": []})


def task(request: str = REQUEST, *tools: ToolSpec, **reference: Any) -> Task:
    tools = tools or (ferry(),)
    call = {"name": tools[0].name, "arguments": {}}
    return Task("asked", (Message("user", request),), tools, {"calls": [call], **reference})


def row(request: str, *tools: ToolSpec, **reference: Any) -> Trajectory:
    question = Message("user", request)
    trained = Task("trained", (question,), tools, reference)
    return Trajectory("trained", trained, (question, Message("assistant", "Yes.")))


def found(asked: Task, *rows: Trajectory, unseen: bool = True) -> leakage.Found:
    (column,) = leakage.check(rows, [leakage.Column("column", [asked], unseen)])
    return column


def kinds(*given: Any, **more: Any) -> set[str]:
    return set(found(*given, **more).counts)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (REQUEST, "same request"),
        (REQUEST.upper() + "!", "same request"),
        (REQUEST.replace("for me", "for us"), "near-duplicate request"),
        (f"Good morning. {REQUEST}. Also, what is the weather in Oban going to be like?", "near-duplicate request"),
    ],
)
@pytest.mark.parametrize("unseen", [True, False])
def test_a_planted_request_is_found_in_any_column(request_, kind, unseen):
    assert kinds(task(), row(request_), unseen=unseen) == {kind}


@pytest.mark.parametrize(
    "request_",
    [
        "Please book two seats",
        "Please book a table for two at the harbour in Oban for me",
        "Oban",
        "",
        "the morning ferry",
    ],
)
def test_another_request_is_none(request_):
    assert kinds(task(), row(request_)) == set()


def test_a_short_request_is_not_found_inside_a_longer_one():
    assert kinds(task("book a ferry"), row("I want to book a ferry to Oban with my van tomorrow")) == set()
    assert kinds(task("book a ferry"), row("Book a ferry")) == {"same request"}
    assert kinds(task(""), row("")) == set()


def test_a_planted_service_is_found_in_an_unseen_column_alone():
    asked, trained = task(services=["Ferries_3"]), row("Hello", services=["Ferries_3", "Boats_1"])
    assert found(asked, trained).first == {"service": ["Ferries_3 is in trained"]}
    assert kinds(asked, trained, unseen=False) == set()


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (ferry(), "tool"),
        (ferry(about="Something else", told="other {}"), "tool"),
        (ferry("reserveBoat"), "renamed tool"),
        (ferry("mobi", "gata", "lune"), "renamed tool"),
        (ferry("reserveBoat", told="another {}"), "renamed tool"),
    ],
)
def test_a_planted_tool_is_found_by_whatever_name(planted, kind):
    assert kinds(task(), row("Hello", planted)) == {kind}
    assert kinds(task(), row("Hello", planted), unseen=False) == set()


@pytest.mark.parametrize(
    "other",
    [ferry("bookFerry", "harbour"), ferry("findFerry", about="Find a ferry"), ferry("x", "y", about="", told="")],
)
def test_another_tool_is_none(other):
    assert kinds(task(), row("Hello", other)) == set()


def test_a_masked_tool_of_a_training_is_found_too():
    call = ToolCall("bookFerry", {"harbour": "Oban"}, "call_0")
    plain = Task("t", (Message("user", "Go"),), (ferry(),))
    trained = Trajectory("t", plain, (Message("user", "Go"), Message("assistant", tool_calls=(call,))))
    (masked,) = augment.apply(augment.read([{"mask_names": {"share": 1}}]), trained, augment.Pool(), 0)
    assert kinds(task(), masked) == {"renamed tool"}


def test_a_tool_that_is_offered_and_not_asked_for_is_no_leak_but_its_names_are_listed():
    asked = task(REQUEST, ferry(), ferry("findHotel", "town", about="Find a hotel", told="hotel {}"))
    column = found(asked, row("Hello", ferry("findHotel", "town", about="Find a hotel", told="hotel {}")))
    assert not column.counts
    assert (column.tools, column.parameters) == (("findHotel",), ("town",))
    negative = Task("n", asked.messages, asked.tools, {"calls": []})
    assert kinds(negative, row("Hello", ferry("findHotel", "town"))) == {"tool"}


def test_the_first_of_each_kind_are_told_and_all_counted():
    tasks = [Task(f"t{n}", (Message("user", f"{REQUEST} number {n}"),)) for n in range(9)]
    rows = [row(f"{REQUEST} number {n}") for n in range(9)]
    (column,) = leakage.check(rows, [leakage.Column("c", tasks)])
    assert column.counts["same request"] == 9
    assert len(column.first["same request"]) == 5


def test_thousands_of_alike_requests_are_compared_in_seconds():
    tasks = [Task(f"t{n}", (Message("user", f"I want to find a place in town {n} please {n}"),)) for n in range(2000)]
    rows = [row(f"I want to find a place in city {n} for the day") for n in range(2000)]
    start = time.monotonic()
    assert leakage.check(rows, [leakage.Column("c", tasks)])[0].counts == {}
    assert time.monotonic() - start < 20


@needs("sgd")
def test_the_services_that_share_a_tool_with_training_are_found_in_the_public_test(monkeypatch):
    monkeypatch.setenv("ROLECRAFT_DATA", str(FOLDER))
    column = curate.column("sgd:test")
    assert column.unseen
    told = curate.Told("x")
    rows = list(curate.rows(curate.Source(str(FOLDER / "sgd" / "train"), "sgd"), told))
    (found_,) = leakage.check(rows, [column])
    assert found_.first["tool"] == ["ScheduleVisit", "BuyEventTickets", "FindProvider"]
    assert "service" not in found_.counts
    assert {"FindRestaurants", "FindEvents"} <= set(found_.tools)
