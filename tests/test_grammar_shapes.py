from __future__ import annotations

from rolecraft.grammar.shapes import Arena, Either, Literals, Text


def test_equal_shapes_are_held_once():
    arena = Arena()
    assert arena.add(Text(0, 5)) == arena.add(Text(0, 5))
    assert arena.add(Text(0, 5)) != arena.add(Text(0, 6))
    assert len(arena.shapes) == 2


def test_literals_among_alternatives_are_one_shape():
    arena = Arena()
    text, one, two = arena.add(Text(0, 5)), arena.add(Literals(("1", "2"))), arena.add(Literals(("2", "null")))
    inner = arena.add(Either((text, two)))
    place = arena.either([one, inner])
    assert isinstance(arena.shapes[place], Either)
    assert [arena.shapes[option] for option in arena.shapes[place].options] == [
        Literals(("1", "2", "null")),
        Text(0, 5),
    ]


def test_an_alternative_of_one_is_itself_and_of_none_is_nothing():
    arena = Arena()
    text = arena.add(Text(0, 5))
    assert arena.either([text, text]) == text
    assert not arena.is_empty(text)
    assert arena.is_empty(arena.either([]))
