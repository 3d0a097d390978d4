"""A collection is resumed to the episode, keeps what its rules say, and stops where its budget ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from endpoint import Answer, endpoint, error, said
from test_evaluate import BENCHMARK, Adder
from verbs import call

from rolecraft import agent, collect, evaluate, store, team
from rolecraft.errors import SettingsError
from rolecraft.evaluate import Settings
from rolecraft.store import Run
from rolecraft.types import Message, Sampling, Task, ToolCall, Trajectory, Verdict

ROOT = Path(__file__).parents[1]
WARM = agent.Settings(sampling=Sampling(temperature=0.7))


@pytest.fixture
def adding(tmp_path) -> Path:
    path = tmp_path / "adding.py"
    path.write_text(BENCHMARK)
    return path


class Opened(Adder):
    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def gathered(adding, folder, engine=None, playing=WARM, **more):
    settings = {"samples": 2, "split": "train", "concurrency": 2, **more.pop("settings", {})}
    what = Settings(benchmark=adding, **settings)
    engine = engine or Opened()
    return collect.run(what, team.find("single"), lambda: engine, Run(folder), playing, **more)


def kept(folder: Path) -> list[dict]:
    return list(store.read_jsonl(folder / collect.KEPT))


def test_each_task_is_played_as_often_as_is_wanted_and_same_answers_are_kept_once(adding, tmp_path):
    harvest = gathered(adding, tmp_path / "run")
    assert (harvest.asked, sum(harvest.played.values()), sum(harvest.right.values())) == (12, 12, 12)
    assert harvest.dropped == {"same again": 6}
    assert [row["id"] for row in kept(tmp_path / "run")] == [f"train-0-{i}#1" for i in range(6)]


def test_the_yield_is_told_by_family(adding, tmp_path):
    engine = Opened(odd=(1, 3), act=lambda: reply("no number"))
    harvest = gathered(adding, tmp_path / "run", engine, settings={"samples": 1})
    assert harvest.kept == {"even": 3, "odd": 1}
    assert harvest.dropped == {"wrong": 2}
    assert "wrong 2" in collect.told(harvest)
    assert collect.table(harvest).row_count == 3


def reply(text: str):
    from rolecraft.types import Completion, Turn

    message = Message("assistant", text)
    return (Completion(message, Turn(message, "assistant")),)


def test_the_kept_rows_are_what_training_reads(adding, tmp_path):
    gathered(adding, tmp_path / "run")
    read = list(store.read_trajectories(tmp_path / "run" / collect.KEPT))
    assert len(read) == 6
    assert [message.role for message in read[0].messages] == ["user", "assistant"]
    assert read[0].verdict == Verdict(1.0)


def test_a_budget_ends_it_and_a_larger_one_goes_on(adding, tmp_path):
    harvest = gathered(adding, tmp_path / "run", budget=collect.Budget(requests=4))
    assert 4 <= sum(harvest.played.values()) <= 6
    assert "not played" in collect.told(harvest)
    engine = Opened()
    again = gathered(adding, tmp_path / "run", engine, budget=collect.Budget(requests=100))
    assert sum(again.played.values()) == 12
    assert len(engine.asked) == 12 - sum(harvest.played.values())


def test_a_spent_budget_opens_no_engine(adding, tmp_path):
    gathered(adding, tmp_path / "run", budget=collect.Budget(tokens=1))
    engine = Opened()
    gathered(adding, tmp_path / "run", engine, budget=collect.Budget(tokens=1))
    assert engine.asked == []


def test_what_makes_no_sense_is_refused(adding, tmp_path):
    with pytest.raises(SettingsError, match="same at temperature 0"):
        gathered(adding, tmp_path / "run", playing=agent.Settings())
    with pytest.raises(SettingsError, match="leave out --workers"):
        gathered(adding, tmp_path / "run", budget=collect.Budget(tokens=5), settings={"workers": 2})
    with pytest.raises(SettingsError, match="min-score"):
        collect.Rules(score=2)


def episode(*messages: Message, score=1.0, stop="answered") -> Trajectory:
    task = Task("t#1", (Message("user", "?"),))
    return Trajectory("t#1", task, (*task.messages, *messages), stop=stop, verdict=Verdict(score))


@pytest.mark.parametrize(
    ("played", "reason"),
    [
        (episode(Message("assistant", "3")), None),
        (episode(Message("assistant", "3"), score=0.5), "wrong"),
        (episode(Message("assistant", "3"), stop="max_turns"), "no answer"),
        (episode(Message("assistant", "3"), stop="repeated_call"), "no answer"),
        (episode(Message("assistant", unparsed="{"), Message("assistant", "3")), "unparsed"),
        (episode(Message("tool", "error: no", failed=True), Message("assistant", "3")), None),
    ],
)
def test_the_rules_keep_recovered_errors_and_nothing_else_that_is_wrong(played, reason):
    assert collect.Rules().against(played) == reason


def test_two_collections_are_compared_by_task(adding, tmp_path):
    gathered(adding, tmp_path / "a", Opened(odd=(1,), act=lambda: reply("no")))
    gathered(adding, tmp_path / "b")
    found = evaluate.comparison(*(map(collect.by_task, Run(tmp_path / name).trajectories()) for name in "ab"))
    assert found.row_count == 1


# an endpoint, and a process that is killed


def answer(request: dict) -> Answer:
    """What a teacher that always answers alike would say, after a while."""
    text = request["messages"][-1]["content"]
    if "+" not in text:
        return said("Hello")
    replied = said(str(sum(map(int, text.split(" + ")))))
    return Answer(replied.body, delay=0.15)


def command(adding: Path, url: str, folder: Path, *more: str) -> list[str]:
    words = ["collect", str(adding), "--split", "train", "--samples", "4", "--temperature", "0.7", "--bare"]
    words += ["--engine", url, "--concurrency", "3", "--output", str(folder), *more]
    return [sys.executable, "-c", "from rolecraft.cli import main; main()", *words]


def test_five_kills_lose_at_most_what_was_under_way_and_the_rows_are_the_same(adding, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with endpoint(answer, {"m": "x"}) as whole:
        subprocess.run(command(adding, whole.url, tmp_path / "whole"), env=environment, check=True, capture_output=True)
    with endpoint(answer, {"m": "x"}) as served:
        line = command(adding, served.url, tmp_path / "killed")
        kills = 0
        for _ in range(5):
            before = asked(served.requests)
            process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            threading.Thread(target=process.communicate, daemon=True).start()
            while process.poll() is None and asked(served.requests) < before + 4:
                time.sleep(0.01)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait()
        done = subprocess.run(line, env=environment, check=True, capture_output=True, text=True)
        total = asked(served.requests)
    assert kills == 5
    wanted = asked(whole.requests)
    assert wanted == 24
    assert wanted <= total <= wanted + 3 * kills
    assert (tmp_path / "killed" / collect.KEPT).read_text() == (tmp_path / "whole" / collect.KEPT).read_text()
    rows = (sorted(map(told, Run(tmp_path / name).trajectories())) for name in ("whole", "killed"))
    assert next(rows) == next(rows)
    if total > wanted:
        assert "lost to kills" in " ".join(done.stdout.split())


def asked(requests: list[dict]) -> int:
    """Return how many requests were of episodes: a probe is for one token."""
    return sum(request["max_tokens"] > 1 for request in requests)


def told(episode: Trajectory) -> str:
    return json.dumps([episode.id, [m.content for m in episode.messages], episode.stop])


def test_an_endpoint_that_fails_stalls_and_limits_is_asked_until_it_answers(adding, tmp_path, capsys):
    calls = iter(range(1000))

    def unwell(request: dict) -> Answer:
        place = next(calls) % 4
        if request["max_tokens"] == 1 or place == 3:
            return Answer(answer(request).body)
        return (error(500, "boom"), error(429, "slow down", retry_after="0"), Answer(b"{", cut=True))[place]

    with endpoint(unwell, {"m": "x"}) as served:
        line = ["collect", str(adding), "--split", "train", "--bare", "--engine", served.url, "--concurrency", "2"]
        code, printed, complaints = call(
            capsys, *line, "--output", str(tmp_path / "run"), "--engine-retries", "9", "--json"
        )
    assert code == 0, complaints
    told = json.loads(printed.splitlines()[-1])
    assert told["kept"] == {"even": 3, "odd": 3}


def test_another_call_is_no_same_episode_and_one_that_was_dropped_hides_none():
    def episode(name, key, score):
        task = Task(name, (Message("user", "insert"),))
        act = Message("assistant", tool_calls=(ToolCall("insert", {"name": key}, "a"),))
        messages = (*task.messages, act, Message("tool", "done", tool_call_id="a"), Message("assistant", "Done."))
        return Trajectory(name, task, messages, stop="answered", verdict=Verdict(score))

    found = [episode("t#1", "Rob", 0.0), episode("t#2", "Bob", 1.0), episode("t#3", "Bob", 1.0), episode("u", "B", 1.0)]
    sifted = collect.rows([one.task for one in found], {one.id: one for one in found}, collect.Rules())
    assert [(one.id, reason) for one, reason in sifted] == [
        ("t#1", "wrong"),
        ("t#2", None),
        ("t#3", "same again"),
        ("u", None),
    ]


def test_what_was_said_before_a_task_is_asked_is_not_trained():
    told = (Message("user", "Which owner?"), Message("assistant", "Old words."), Message("user", "Grontif"))
    record = Trajectory("d", Task("d", told), (*told, Message("assistant", "Zed")), stop="answered")
    weights = [message.get("weight") for message in collect._row(record)["messages"]]
    assert weights == [None, 0, None, None]
