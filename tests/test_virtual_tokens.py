"""Ids beyond the vocabulary are what a prompt encoder makes of them, and all others are the base's."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from rolecraft import virtual_tokens


class Doubled(nn.Module):
    """An encoder whose tokens' vectors are twice their places."""

    def forward(self, places_1N: torch.Tensor) -> torch.Tensor:
        return 2.0 * places_1N.unsqueeze(-1).expand(*places_1N.shape, 32)


def prompted(count: int = 3):
    model = tiny.model(64)
    model.set_input_embeddings(virtual_tokens.VirtualTokens(model.get_input_embeddings(), Doubled(), count))
    return model


def test_words_have_the_bases_vectors_and_virtual_tokens_the_encoders():
    embed = prompted().get_input_embeddings()
    found = embed(torch.tensor([[66, 5, 64]]))[0]
    assert torch.equal(found[1], tiny.model(64).get_input_embeddings().weight[5])
    assert found[0].tolist() == [4.0] * 32
    assert found[2].tolist() == [0.0] * 32


def test_an_id_beyond_the_last_is_an_error():
    with pytest.raises(IndexError):
        prompted()(input_ids=torch.tensor([[67]]))


def test_ids_follow_the_vocabulary_and_other_models_have_none():
    assert virtual_tokens.ids(prompted()) == (64, 65, 66) == virtual_tokens.ids_after(64, 3)
    assert virtual_tokens.ids(tiny.model(64)) == ()
    assert virtual_tokens.rows(tiny.model(64)) is None


def test_vectors_are_of_the_bases_type():
    assert prompted().bfloat16().get_input_embeddings()(torch.tensor([[64, 3]])).dtype == torch.bfloat16


def test_what_is_fixed_stays_and_lets_the_encoder_go():
    model = prompted()
    before = model(input_ids=torch.tensor([[64, 65, 66, 5]])).logits
    virtual_tokens.fix(model)
    assert model.get_input_embeddings().prompt_encoder is None
    assert torch.equal(model(input_ids=torch.tensor([[64, 65, 66, 5]])).logits, before)
    assert not [name for name in model.state_dict() if "fixed" in name]
