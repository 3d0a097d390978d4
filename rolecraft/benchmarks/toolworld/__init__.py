"""toolworld: small random worlds whose tools really run, and questions that only their tools can answer.

Seven families, one file each in families/: calc, records, hub, hop, parallel, recover, irrelevant; two more, search
and db, are played where they are named. Four splits: `train`; `test` has unseen entities; `tools` has unseen functions,
topics, relations, parameters, tables and entities; `phrasing` has unseen sentences and entities. Of search alone there
are two more, `hops` with longer chains than in training and `numbers` with larger numbers. Names are parted by a hash,
words and sentences by lists, so any seed gives any number of tasks. Answers are random numbers and names: nobody can
guess them, and a wrong entity or function gives a wrong one.

Not covered: calls with several or typed parameters, long observations, and conversations of several requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from rolecraft import catalog
from rolecraft.benchmarks.toolworld import script, vocabulary, world
from rolecraft.benchmarks.toolworld.asking import Sentences
from rolecraft.benchmarks.toolworld.draft import to_task, without_signatures, world_of
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.faults import Faulty
from rolecraft.benchmarks.toolworld.judge import judge
from rolecraft.benchmarks.toolworld.vocabulary import SPLITS
from rolecraft.errors import SettingsError
from rolecraft.types import Environment, Task, Trajectory

__all__ = ["FAMILIES", "SPLITS", "Settings", "few_shot", "judge", "open", "reference", "tasks"]

FAMILIES = ("calc", "records", "hub", "hop", "parallel", "recover", "irrelevant")
"""The families of the reported score, in the order of its table."""

_IN_WRITING = frozenset({"calc", "search"})
"""The families that can be posed without tools."""
_FAMILY_FOLDER = "benchmarks.toolworld.families"


@dataclass(frozen=True, slots=True)
class Settings:
    """How many tasks, of which families.

    `weights` gives families a share other than 1. `min_functions` and `max_functions` bound the choice in hub and
    irrelevant; `mixed` is the share of tasks where tools of another kind lie about, `shared_heads` that of tasks whose
    nonsense function names all begin alike: the hardest choice, and off by default. Without `tools` only calc and
    search can be posed: the model must work in writing, and of search it is shown the passages. The last four are for
    training data, and other splits know nothing of them: `open_words` is how often a list of words gives way to an open
    class, `varied` how often a sentence to another wording, `scattered` that of questions which are no sentence, of
    which search has none; without `signatures` the reference's thoughts name a function and leave its parameter to the
    executor.
    """

    size: int = 210
    families: tuple[str, ...] = FAMILIES
    weights: Mapping[str, float] = field(default_factory=dict)
    min_functions: int = 3
    max_functions: int = 6
    mixed: float = 0.25
    shared_heads: float = 0.0
    tools: bool = True
    open_words: float = 0.0
    varied: float = 0.0
    scattered: float = 0.0
    signatures: bool = True

    def __post_init__(self) -> None:
        """Raise SettingsError for what no task can be made of."""
        known = set(self.families)
        if not known or self.size < 0:
            raise SettingsError(f"toolworld needs a family and a size; got {self.families!r}, {self.size!r}")
        if stray := [name for name in self.weights if name not in known]:
            raise SettingsError(f"weights name {stray[0]!r}, which is not in families: {', '.join(self.families)}")
        if any(weight < 0 for weight in self.weights.values()) or not any(self.weights.get(f, 1) for f in known):
            raise SettingsError(f"weights must be positive numbers; got {dict(self.weights)!r}")
        if not 2 <= self.min_functions <= self.max_functions <= 12:
            bounds = (self.min_functions, self.max_functions)
            raise SettingsError(f"min_functions and max_functions must lie in 2..12, in this order; got {bounds!r}")
        for name in ("mixed", "shared_heads", "open_words", "varied", "scattered"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is a share, 0 to 1; got {getattr(self, name)!r}")
        if not self.tools and (others := known - _IN_WRITING):
            told = ", ".join(sorted(_IN_WRITING))
            raise SettingsError(f"without tools only the families {told} can be posed; got {min(others)!r}")


def tasks(settings: Settings, split: str, seed: int) -> tuple[Task, ...]:
    """Return the tasks of a split; equal arguments give equal tasks, a smaller size the first of a larger one.

    Families take turns by their weights, so every beginning of the list has them in their shares. Raises
    SettingsError for an unknown split and NotFound for an unknown family.
    """
    training = split == "train"
    words = vocabulary.find(split)
    if words.far and (stray := [family for family in settings.families if family != "search"]):
        raise SettingsError(f"split {split!r} is of the family search alone; families has {stray[0]!r}")
    words = replace(words, shared_heads=settings.shared_heads)
    if training:
        words = replace(words, scattered=settings.scattered, sentences=Sentences(varied=settings.varied))
    options = Options(settings.min_functions, settings.max_functions, settings.mixed, settings.tools)
    members = {family: catalog.find(_FAMILY_FOLDER, family) for family in settings.families}
    found = []
    for place, family in enumerate(_turns(settings)):
        random = Random(f"toolworld {split} {seed} {place} {family}")
        said = vocabulary.opened(random, words, settings.open_words) if training and settings.open_words else words
        draft = members[family].draw(random, said, options)
        if training and not settings.signatures:
            draft = without_signatures(draft)
        task = to_task(draft, family, f"toolworld-{split}-{seed}-{place}")
        found.append(replace(task, reference={**task.reference, "faults": 1}) if split == vocabulary.FAULTS else task)
    return tuple(found)


def open(task: Task) -> Environment:
    """Open the task's world for one episode; raises DataError if the task is not one of toolworld's."""
    tools = world.open_tools(world_of(task))
    left = task.reference.get("faults", 0)
    return Environment(task, Faulty(tools, left) if isinstance(left, int) and left > 0 else tools, judge)


def reference(task: Task, team_name: str) -> Trajectory:
    """Return a right solution in the roles of `mor` or `single`, played with real tools that work, and judged."""
    working = replace(task, reference={**task.reference, "faults": 0}) if "faults" in task.reference else task
    return script.play_now(open(working), team_name)


def few_shot(asked: Sequence[Task], team_name: str, k: int = 2, seed: int = 0) -> tuple[Task, ...]:
    """Return the tasks with `k` solved training tasks of different families as text in the system message.

    All tasks get the same examples, so that no example tells the family of the question.
    """
    families = Random(f"few-shot {seed}").sample(FAMILIES, len(FAMILIES))
    solved = tasks(Settings(size=k, families=tuple(families), mixed=0.0, max_functions=4), "train", seed)
    examples = [script.example(reference(task, team_name)) for task in solved]
    return tuple(script.with_examples(task, examples) for task in asked)


def _turns(settings: Settings) -> list[str]:
    """Return each task's family: always the one that lags most behind its share, the first such in order."""
    weights = {family: settings.weights.get(family, 1.0) for family in settings.families}
    total = sum(weights.values())
    made = dict.fromkeys(weights, 0)
    turns = []
    for place in range(settings.size):
        behind = {family: (place + 1) * weight / total - made[family] for family, weight in weights.items()}
        chosen = max(behind, key=behind.__getitem__)
        made[chosen] += 1
        turns.append(chosen)
    return turns
