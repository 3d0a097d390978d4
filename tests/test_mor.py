"""Mixture of Roles: equal to a slow, obvious loop, at home in PEFT, and no role ever leaks into another."""

import copy
import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.nn import functional
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from rolecraft.adapters import count_trainable, mor
from rolecraft.errors import ContractError, SettingsError
from rolecraft.model import merges

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

VOCABULARY = 64


def llama(seed=0, **sizes):
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, **{**shape, **sizes})
    return LlamaForCausalLM(config).eval()


def mixture_on(model, seed=1, **values):
    torch.manual_seed(seed)
    return get_peft_model(model, mor.MoRConfig(**{"r": 4, **values}))


def shaken(model, seed=2):
    """Give every LoRA something to say: as made, they add nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mor_" in name:
                parameter.normal_(std=0.2, generator=generator)
    return model


def sample(seed=3, rows=3, length=11, nobody=True):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (rows, length), generator=generator)
    roles = torch.randint(-1 if nobody else 0, 3, (rows, length), generator=generator)
    return ids, roles


def slowly(layer, x, role_ids):
    """The layer token by token and LoRA by LoRA, as equations 5 to 7 and the released code read."""
    name = "default"
    mixture, A, B, R = layer.mixtures[name], layer.mor_A[name], layer.mor_B[name], layer.mor_router[name]
    rows = []
    for token, role in zip(x.reshape(-1, x.shape[-1]), role_ids.reshape(-1).tolist(), strict=True):
        row = functional.linear(token, layer.base_layer.weight, layer.base_layer.bias)
        if role >= 0:
            first, end = list(pairwise(mixture.edges))[role]
            chances = torch.softmax(R[first : end - 1] @ token, 0)
            best = chances.topk(mixture.top_k[role]).indices.tolist()
            weights = {first + i: chances[i] / sum(chances[j] for j in best) for i in best}
            weights[end - 1] = torch.sigmoid(R[end - 1] @ token)
            for place, weight in weights.items():
                rank = slice(place * mixture.r, (place + 1) * mixture.r)
                row = row + weight * mixture.scale * (B[rank].T @ (A[rank] @ token))
        rows.append(row)
    return torch.stack(rows).view(*x.shape[:-1], -1)


@pytest.fixture
def pair():
    return shaken(mixture_on(llama()))


@pytest.mark.parametrize("way", ["grouped", "stacked", "grouped_mm"])
@pytest.mark.parametrize("top_k", [(3, 3, 2), (1, 2, 3), (4, 4, 3)])
def test_a_layer_equals_the_loop_in_output_and_all_gradients(way, top_k):
    names = ("reasoner", "executor", "summarizer")
    model = shaken(mixture_on(llama(), top_k=dict(zip(names, top_k, strict=True)), lora_alpha=6.0))
    layer = mor.layers(model)["base_model.model.model.layers.0.mlp.up_proj"]
    layer.way = way
    _, role_ids = sample()
    results = []
    for compute in (lambda x: layer(x), lambda x: slowly(layer, x, role_ids)):
        x = torch.randn(*role_ids.shape, layer.in_features, generator=torch.Generator().manual_seed(5)).requires_grad_()
        layer.gate.plan = mor.Plan(role_ids, 3)
        y = compute(x)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(6))
        inputs = [x, layer.mor_A["default"], layer.mor_B["default"], layer.mor_router["default"]]
        results.append((y, *torch.autograd.grad((y * weights).sum(), inputs)))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


def test_it_starts_as_the_base_bit_for_bit():
    ids, roles = sample()
    expected = llama()(ids).logits
    assert torch.equal(mixture_on(llama())(ids, role_ids=roles).logits, expected)


def test_without_the_adapter_it_is_the_base_bit_for_bit(pair):
    ids, roles = sample()
    expected = llama()(ids).logits
    assert not torch.allclose(pair(ids, role_ids=roles).logits, expected, atol=1e-3)
    with pair.disable_adapter():
        assert torch.equal(pair(ids).logits, expected)
        assert torch.equal(pair(ids, role_ids=roles).logits, expected)


def test_tokens_of_nobody_are_the_base_alone(pair):
    ids, roles = sample()
    logits = pair(ids, role_ids=torch.full_like(roles, -1)).logits
    torch.testing.assert_close(logits, llama()(ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize("role", [0, 1, 2])
def test_roles_do_not_leak(pair, role):
    ids, _ = sample()
    roles = torch.full_like(ids, role)
    pair.train()
    pair(ids, role_ids=roles).logits.square().sum().backward()
    for layer in mor.layers(pair).values():
        edges = layer.mixtures["default"].edges
        for matrix, rank in ((layer.mor_A, 4), (layer.mor_B, 4), (layer.mor_router, 1)):
            owned = torch.zeros(len(matrix["default"]), dtype=torch.bool)
            owned[edges[role] * rank : edges[role + 1] * rank] = True
            gradient = matrix["default"].grad
            assert (gradient[owned] != 0).any()
            assert (gradient[~owned] == 0).all()


def test_another_roles_numbers_do_not_matter(pair):
    ids, _ = sample()
    roles = torch.randint(0, 2, ids.shape)
    before = pair(ids, role_ids=roles).logits
    with torch.no_grad():
        for layer in mor.layers(pair).values():
            layer.mor_A["default"][10 * 4 :] = 7.0
            layer.mor_router["default"][10:] = 7.0
    assert torch.equal(pair(ids, role_ids=roles).logits, before)


def test_exactly_top_k_are_active_where_chances_are_equal(pair):
    ids, _ = sample()
    with torch.no_grad():
        for layer in mor.layers(pair).values():
            layer.mor_router["default"].zero_()
    pair.train()
    pair(ids, role_ids=torch.zeros_like(ids))
    for layer in mor.layers(pair).values():
        assert layer.load().share[:4].sum().item() == pytest.approx(3)


def test_cached_decoding_over_three_hand_overs_equals_one_full_forward(pair):
    ids, _ = sample(length=24)
    roles = torch.tensor([0] * 7 + [1] * 5 + [0] * 6 + [2] * 6).expand_as(ids)
    whole = pair(ids, role_ids=roles).logits
    cache, parts = DynamicCache(config=pair.config), []
    for first, end in pairwise((0, 7, *range(8, 25))):
        out = pair(ids[:, first:end], role_ids=roles[:, first:end], past_key_values=cache, use_cache=True)
        parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)


def test_missing_role_ids_are_an_error_that_names_the_roles(pair):
    with pytest.raises(ValueError, match=r"role_ids.*0 reasoner, 1 executor, 2 summarizer"):
        pair(sample()[0])
    pair(*sample()[:1], role_ids=sample()[1])
    with pytest.raises(ValueError, match="role_ids"):  # those of the call before do not linger
        pair(sample()[0])


def test_role_ids_of_another_shape_are_refused(pair):
    ids, roles = sample()
    with pytest.raises(ValueError, match="shape"):
        pair(ids, role_ids=roles[:, 1:])
    for call in (pair, lambda _, role_ids: pair(inputs_embeds=torch.zeros(*ids.shape, 32), role_ids=role_ids)):
        with pytest.raises(ValueError, match=r"shape \(11, 3\) and input\w+ \(3, 11.*each token"):
            call(ids, role_ids=roles.T)
    pair(inputs_embeds=torch.zeros(*ids.shape, 32), role_ids=roles)


@pytest.mark.parametrize("way", ["grouped", "stacked", "grouped_mm"])
@pytest.mark.parametrize("wrong", [3, -2, -100, 10**12])
def test_an_id_that_is_no_roles_is_refused_by_name_on_every_way(pair, way, wrong):
    ids, roles = sample()
    for layer in mor.layers(pair).values():
        layer.way = way
    roles[0, -1] = wrong
    with pytest.raises(ValueError, match=f"role id {wrong} is given .* give 0 to 2, or -1 for nobody"):
        pair(ids, role_ids=roles)


def test_saved_and_loaded_it_is_the_same(pair, tmp_path):
    ids, roles = sample()
    pair.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llama(), str(tmp_path)).eval()
    assert torch.equal(loaded(ids, role_ids=roles).logits, pair.eval()(ids, role_ids=roles).logits)
    assert loaded.peft_config["default"].speakers == ("reasoner", "executor", "summarizer")


def test_a_folder_loaded_without_rolecraft_says_what_to_import(pair, tmp_path):
    pair.save_pretrained(tmp_path / "adapter")
    llama().save_pretrained(tmp_path / "base")
    code = (
        "from transformers import AutoModelForCausalLM; from peft import PeftModel; "
        f"PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({str(tmp_path / 'base')!r}), "
        f"{str(tmp_path / 'adapter')!r})"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "import rolecraft.adapters.mor" in done.stderr.strip().splitlines()[-1]


def test_gradient_checkpointing_gives_the_same_gradients_though_another_call_comes_between():
    ids, roles = sample()
    gradients = []
    for checkpointed in (False, True):
        model = shaken(mixture_on(llama())).train()
        if checkpointed:
            model.base_model.model.activation_checkpointing_enable({"use_reentrant": False})
        loss = model(ids, role_ids=roles).logits.square().mean() + mor.penalty(model)
        with torch.no_grad():
            model(ids.flip(1), role_ids=(roles + 2) % 3)
        loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)


def test_fused_modules_are_wrapped_as_they_are():
    config = Phi3Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=0,
    )  # fmt: skip
    model = mixture_on(Phi3ForCausalLM(config).eval())
    names = [name.rpartition(".")[2] for name in mor.layers(model)]
    assert names == ["o_proj", "qkv_proj", "gate_up_proj", "down_proj"]
    ids, roles = sample()
    with model.disable_adapter():
        before = model(ids).logits
    assert torch.equal(model(ids, role_ids=roles).logits, before)


def test_a_compiled_graph_chooses_the_stacked_way_and_gives_the_same(pair):
    ids, roles = sample()
    compiled = torch.compile(pair, backend="eager", fullgraph=True)  # no other way is one graph
    results = []
    for model in (pair, compiled):
        logits = model(ids, role_ids=roles).logits
        trained = [p for n, p in pair.named_parameters() if "mor_" in n]
        results.append((logits, *torch.autograd.grad(logits.square().mean(), trained)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_bases_keep_float32_adapters():
    model = mixture_on(llama().to(torch.bfloat16))
    kept = [p for n, p in model.named_parameters() if "mor_" in n]
    assert kept
    assert {p.dtype for p in kept} == {torch.float32}
    ids, roles = sample()
    assert model(ids, role_ids=roles).logits.dtype == torch.bfloat16


def test_modules_to_save_are_trained_and_saved_beside_it(tmp_path):
    model = shaken(mixture_on(llama(tie_word_embeddings=False), modules_to_save=["lm_head"]))
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(2)
    ids, roles = sample()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llama(tie_word_embeddings=False), str(tmp_path)).eval()
    assert torch.equal(loaded(ids, role_ids=roles).logits, model.eval()(ids, role_ids=roles).logits)


def test_two_adapters_are_switched():
    model = shaken(mixture_on(llama()))
    ids, roles = sample()
    first = model(ids, role_ids=roles).logits
    model.add_adapter("second", mor.MoRConfig(r=2, roles={"reasoner": 2, "executor": 1, "summarizer": 1},
                                              top_k={"reasoner": 1, "executor": 0, "summarizer": 0}))  # fmt: skip
    model.set_adapter("second")
    torch.testing.assert_close(model(ids, role_ids=roles).logits, llama()(ids).logits)
    model.set_adapter("default")
    assert torch.equal(model(ids, role_ids=roles).logits, first)


def test_without_a_router_all_loras_of_a_role_are_one_larger_lora():
    model = shaken(mixture_on(llama(), router=False))
    assert not any("router" in name for name, _ in model.named_parameters())
    layer = mor.layers(model)["base_model.model.model.layers.0.mlp.up_proj"]
    x = torch.randn(2, 5, layer.in_features)
    layer.gate.plan = mor.Plan(torch.ones(2, 5, dtype=torch.long), 3)
    rows = slice(5 * 4, 10 * 4)
    expected = layer.base_layer(x) + (x @ layer.mor_A["default"][rows].T) @ layer.mor_B["default"][rows]
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_unloaded_the_base_is_as_before_and_free_for_other_roles():
    base = llama()
    ids = torch.randint(0, 64, (2, 9))
    expected = base(ids).logits
    model = shaken(mixture_on(base))
    model.base_model.model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()(ids, role_ids=torch.zeros_like(ids)).logits.sum().backward()
    left = model.unload().eval()
    hooks = [hook for m in left.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert not any("RoleGate" in repr(hook) for hook in hooks)
    torch.testing.assert_close(left(ids).logits, expected, rtol=0, atol=0)
    left.train()(ids).logits.sum()
    other = mor.attach(left, mor.Settings(roles={"actor": 2}, top_k={"actor": 1}, r=2, context=None))
    other(ids, role_ids=torch.zeros_like(ids))


def test_it_cannot_be_merged(pair):
    with pytest.raises(ValueError, match="cannot be merged"):
        pair.merge_and_unload()
    with pytest.raises(ContractError, match="cannot be merged"):
        mor.merge(pair)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_k": {"reasoner": 5, "executor": 3, "summarizer": 2}}, "'reasoner' has 5 LoRAs.*top_k 5"),
        ({"roles": {"reasoner": 0, "executor": 3, "summarizer": 2}}, "'reasoner' has 0"),
        ({"top_k": {"reasoner": 3}}, "name the same"),
        ({"r": 0}, "rank of at least 1"),
        ({"context": "speaker"}, "'speaker', which is no role"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused_by_name(values, message):
    with pytest.raises(SettingsError, match=message):
        mor.Settings(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"assignment": "steam"}, "assignment is 'steam'; it must be one of 'stream', 'reencode', 'activated'"),
        ({"orientation": "sideways"}, "orientation is 'sideways'; it must be one of 'subspace', 'literal'"),
        ({"balance_reduction": "max"}, "balance_reduction is 'max'; it must be one of 'mean', 'sum'"),
        ({"orthogonality_reduction": "men"}, "orthogonality_reduction is 'men'; it must be one of 'mean', 'sum'"),
        ({"init_weights": "loar"}, "init_weights is 'loar'; it must be one of 'lora', 'released'"),
        ({"roles": [["a", 2], ["a", 3]], "top_k": {"a": 1}, "context": "a"}, "roles name 'a' twice"),
        ({"context": "speaker"}, "'speaker', which is no role"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused_and_its_folder_named(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        mor.MoRConfig(**values)
    mor.MoRConfig().save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(ContractError, match=f"{re.escape(str(tmp_path))}.*{message}"):
        merges(tmp_path)


def test_only_loras_and_routers_are_trained():
    model = mixture_on(llama())
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("mor_" in name for name in trained)
    shapes = [layer.base_layer.weight.shape for layer in mor.layers(model).values()]
    assert count_trainable(model) == sum(14 * 4 * (out + into) + 14 * into for out, into in shapes)


def test_an_empty_batch_still_gives_every_matrix_a_gradient(pair):
    ids, roles = sample()
    pair.train()
    pair(ids, role_ids=torch.full_like(roles, -1)).logits.sum().backward()
    assert all(p.grad is not None for n, p in pair.named_parameters() if "mor_" in n)


@pytest.mark.parametrize("name", ["q_proj", "o_proj"])  # with a bias and without
@pytest.mark.parametrize("autocast", [False, True])
def test_a_bias_and_autocast_are_trained_through(name, autocast):
    model = shaken(mixture_on(llama(attention_bias=name == "q_proj")))
    layer = mor.layers(model)[f"base_model.model.model.layers.0.self_attn.{name}"]
    _, role_ids = sample()
    x = torch.randn(*role_ids.shape, layer.in_features).requires_grad_()
    layer.gate.plan = mor.Plan(role_ids, 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    y.float().square().sum().backward()
    near = {"rtol": 2e-2, "atol": 2e-2} if autocast else {}
    torch.testing.assert_close(y.float(), slowly(layer, x, role_ids), **near)
    assert all(one["default"].grad.dtype == torch.float32 for one in (layer.mor_A, layer.mor_B, layer.mor_router))


def test_long_runs_of_a_role_stay_where_they_stand():
    model = shaken(mixture_on(llama(max_position_embeddings=1024)))
    layer = mor.layers(model)["base_model.model.model.layers.0.mlp.up_proj"]
    role_ids = torch.tensor([[0] * 150 + [1] * 90 + [-1] * 60 + [0] * 100])
    plan = mor.Plan(role_ids, 3)
    assert plan.arrangement.order is None
    assert plan.arrangement.spans == ((0, 0, 150), (1, 150, 240), (0, 300, 400))
    assert mor.Plan(role_ids[:, ::20], 3).arrangement.order is not None
    results = []
    for compute in (lambda x: layer(x), lambda x: slowly(layer, x, role_ids)):
        x = torch.randn(1, 400, layer.in_features, generator=torch.Generator().manual_seed(5)).requires_grad_()
        layer.gate.plan = plan
        inputs = [x, layer.mor_A["default"], layer.mor_B["default"], layer.mor_router["default"]]
        y = compute(x)
        results.append((y, *torch.autograd.grad(y.square().mean(), inputs)))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


def test_dropout_reaches_the_loras_and_not_the_router():
    model = shaken(mixture_on(llama(), lora_dropout=0.5)).train()
    layer = mor.layers(model)["base_model.model.model.layers.0.mlp.up_proj"]
    _, role_ids = sample()
    layer.gate.plan = mor.Plan(role_ids, 3)
    x = torch.randn(*role_ids.shape, layer.in_features).requires_grad_()
    first, load = layer(x), layer.load()
    second = layer(x)
    assert not torch.allclose(first, second)
    assert torch.equal(layer.load().chance, load.chance)
    first.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_a_hook_on_the_base_keeps_what_the_base_said(pair):
    layer = mor.layers(pair)["base_model.model.model.layers.0.mlp.up_proj"]
    kept = []
    layer.base_layer.register_forward_hook(lambda module, args, output: kept.append(output))
    ids, roles = sample()
    pair(ids, role_ids=roles)
    assert torch.equal(kept[0], functional.linear(kept_input(layer, ids, roles, pair), layer.base_layer.weight))


def kept_input(layer, ids, roles, model):
    found = []
    handle = layer.base_layer.register_forward_pre_hook(lambda module, args: found.append(args[0]))
    model(ids, role_ids=roles)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize("router", [True, False])
def test_the_bases_gradient_can_be_watched(register, router):
    model = shaken(mixture_on(llama(), router=router))
    layer = mor.layers(model)["base_model.model.model.layers.0.mlp.up_proj"]
    seen = []
    getattr(layer.base_layer, register)(lambda module, *gradients: seen.append(gradients))
    ids, roles = sample()
    model(ids, role_ids=roles).logits.sum().backward()
    assert seen


def test_recomputed_layers_are_neither_kept_nor_counted_twice():
    ids, roles = sample()
    model = shaken(mixture_on(llama())).train()
    model.base_model.model.activation_checkpointing_enable({"use_reentrant": False})
    loss = model(ids, role_ids=roles, use_cache=False).logits.mean() + mor.penalty(model)
    layer = mor.layers(model)["base_model.model.model.layers.0.mlp.up_proj"]
    load, sums = layer.load(), layer.sums["default"].clone()
    loss.backward()
    assert layer.load() is load
    assert torch.equal(layer.sums["default"], sums)


def test_reentrant_checkpointing_is_refused():
    ids, roles = sample()
    model = shaken(mixture_on(llama())).train()
    model.base_model.model.activation_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    with pytest.raises(ValueError, match="use_reentrant"):
        model(ids, role_ids=roles, use_cache=False)


def test_a_call_outside_training_leaves_no_balance_to_pay():
    ids, roles = sample()
    model = shaken(mixture_on(llama())).train()
    (model(ids, role_ids=roles).logits.mean() + mor.penalty(model)).backward()
    with model.disable_adapter():
        model(ids)
    mor.penalty(model).backward()  # orthogonality alone
    assert not any(name.startswith("balance") for name in mor.measure(model))


def test_a_deleted_adapter_leaves_no_counts_behind():
    ids, roles = sample()
    model = shaken(mixture_on(llama())).train()
    for count in (2, 4):
        sizes = {"reasoner": count, "executor": 2, "summarizer": 1}
        top_k = {"reasoner": 1, "executor": 1, "summarizer": 0}
        model.add_adapter("second", mor.MoRConfig(r=2, roles=sizes, top_k=top_k))
        model.set_adapter("second")
        model.train()(ids, role_ids=roles)
        model.set_adapter("default")
        model.delete_adapter("second")


def test_a_model_that_was_called_can_be_copied(pair):
    ids, roles = sample()
    pair.train()(ids, role_ids=roles)
    assert torch.equal(copy.deepcopy(pair)(ids, role_ids=roles).logits, pair(ids, role_ids=roles).logits)


def test_rows_are_gathered_anew_once_they_have_changed(pair):
    layer = mor.layers(pair)["base_model.model.model.layers.0.mlp.up_proj"]
    _, roles = sample()
    x = torch.randn(*roles.shape, layer.in_features)
    layer.gate.plan = mor.Plan(roles, 3)
    with torch.no_grad():
        layer(x)
        x.mul_(2)
        torch.testing.assert_close(layer(x), slowly(layer, x, roles), rtol=1e-5, atol=1e-5)


def test_as_many_are_chosen_where_all_but_one_have_no_chance_left(pair):
    ids, _ = sample()
    with torch.no_grad():
        for layer in mor.layers(pair).values():
            layer.mor_router["default"].mul_(1e4)
    pair.train()(ids, role_ids=torch.zeros_like(ids))
    for layer in mor.layers(pair).values():
        assert layer.load().share[:4].sum().item() == pytest.approx(3)


@pytest.mark.parametrize(("r", "launches"), [(16, True), (8, True), (4, False), (1, False)])
def test_grouped_mm_is_asked_only_for_widths_and_types_that_it_takes(r, launches):
    layer = mor.layers(mixture_on(llama(), r=r))["base_model.model.model.layers.0.mlp.up_proj"]
    assert layer._launches(layer.mixtures["default"], torch.bfloat16) is launches
    for dtype in (torch.float32, torch.float16, torch.float64):
        assert not layer._launches(layer.mixtures["default"], dtype)
