"""Where heads look: maps of every way to attend, shares against hand counts, constructions, and what is written."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.diagnosis import adapt, attention_maps, mechanism, presentation
from lab.diagnosis.comparison import Diagnosis, Estimate, Head, attention, diagnose
from lab.diagnosis.settings import SETTINGS, Chains, Regression
from lab.diagnosis.token_settings import LatentGraph
from lab.domains.chains.latent_graph_transformer import several_parents_transformer
from lab.models import masks
from lab.models.checkpoint import StoredModel
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream

WIDTH, HEADS, LENGTH = 8, 2, 7
EXACT = 1e-12
REGRESSION = Regression(dimension=3, context_length=6, queries=2)


def weights_by_hand(x: Tensor, query: nn.Linear, key: nn.Linear) -> Tensor:
    """Causal softmax attention, [batch, head, token, token]."""
    q, k = (projection(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for projection in (query, key))
    hidden = ~torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    return (q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)).masked_fill(hidden, -torch.inf).softmax(-1)


class Written(nn.Module):
    """One layer of causal attention, in a way that the test names."""

    def __init__(self, way: str) -> None:
        super().__init__()
        state = torch.get_rng_state()
        torch.manual_seed(0)
        self.way = way
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH).double() for _ in range(3))
        self.own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
        torch.set_rng_state(state)
        with torch.no_grad():
            self.own.in_proj_weight.copy_(
                torch.cat([projection.weight for projection in (self.query, self.key, self.value)])
            )
            self.own.in_proj_bias.copy_(
                torch.cat([projection.bias for projection in (self.query, self.key, self.value)])
            )
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        visible = torch.ones(length, length, dtype=torch.bool).tril()
        q, k, v = (
            projection(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        if self.way == "multihead":
            return self.own(x, x, x, attn_mask=~visible, need_weights=False)[0]
        if self.way == "is_causal":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        if self.way == "mask":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=visible).transpose(1, 2).flatten(2)
        if self.way == "added":
            added = torch.zeros(length, length, dtype=x.dtype).masked_fill(~visible, -torch.inf)
            return F.scaled_dot_product_attention(q, k, v, added).transpose(1, 2).flatten(2)
        scores = (q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5).masked_fill(~visible, -torch.inf)
        weights = {"method": scores.softmax, "function": lambda dim: F.softmax(scores, dim=dim)}.get(
            self.way, lambda dim: torch.softmax(scores, dim)
        )(-1)
        return (weights @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("way", ["multihead", "is_causal", "mask", "added", "method", "function", "softmax"])
@pytest.mark.parametrize("batch", [0, 2])
def test_maps_are_those_by_hand_however_attention_is_written(way: str, batch: int) -> None:
    module, x = Written(way), torch.from_numpy(stream(0, "maps").rng().standard_normal((5, LENGTH, WIDTH)))
    plain = module(x)

    def predictor(tokens: Tensor) -> Tensor:
        return adapt.in_parts(lambda part: module(module(part)), batch, tokens)

    (first, second) = attention_maps.watched(predictor, [x])
    for weights, entering in ((first, x), (second, plain)):
        assert weights.shape == (5, HEADS, LENGTH, LENGTH)
        assert float((weights - weights_by_hand(entering, module.query, module.key)).abs().max().detach()) < EXACT
    assert torch.equal(module(x), plain)


@pytest.mark.parametrize("grouped", [False, True])
def test_maps_of_the_library_are_those_that_it_gives_out(grouped: bool) -> None:
    library = pytest.importorskip(
        "transformers", reason="transformers is not installed (pip install 'theory-lab[diagnose]')"
    )
    config = library.GPT2Config(vocab_size=9, n_embd=WIDTH, n_layer=2, n_head=HEADS, n_positions=LENGTH)
    if grouped:
        sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "vocab_size": 9}
        config = library.LlamaConfig(**sizes, num_attention_heads=2 * HEADS, num_key_value_heads=HEADS)
    state = torch.get_rng_state()
    model = library.AutoModelForCausalLM.from_config(config).eval()
    torch.set_rng_state(state)
    ids = torch.from_numpy(stream(0, "maps").rng().integers(9, size=(3, LENGTH)))
    maps = attention_maps.watched(adapt.causal_lm(model), [ids, torch.zeros(3)])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    assert len(maps) == len(attentions) == 2
    for weights, expected in zip(maps, attentions, strict=True):
        assert float((weights - expected).abs().max()) < 1e-6


def test_what_attends_nowhere_has_no_maps() -> None:
    inputs = REGRESSION.watched(REGRESSION.sample(stream(0, "maps"), 4))
    assert attention_maps.watched(lambda x, y, query: (query @ x.pinverse() @ y[..., None])[..., 0], inputs) == []


@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_the_labs_transformer_shows_the_weights_it_notes(kind: str) -> None:
    architecture = Architecture(width=WIDTH, layers=2, heads=HEADS, input_size=4, output_size=1, attention=kind)
    model = Transformer(architecture, [3], torch.float64)
    inputs = REGRESSION.watched(REGRESSION.sample(stream(0, "maps"), 5))
    maps = attention_maps.of_transformer(
        model, lambda network: REGRESSION.stored(StoredModel(network, "causal")), inputs
    )
    noted: dict[str, Tensor] = {}
    tokens = torch.cat([torch.cat([inputs[0], inputs[1][..., None]], -1), F.pad(inputs[2], (0, 1))], 1)
    model(tokens[None], masks.in_context_causal(6, 1), intermediates=noted)
    for depth, weights in enumerate(maps):
        assert float((weights - noted[f"layers.{depth}.attention.weights"][0]).detach().abs().max()) < EXACT


def test_shares_are_counted_by_hand() -> None:
    """Two prompts of three tokens, one head: what lies on the targets, of the rows that see one."""
    rows = [[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.2, 0.3, 0.5]]
    maps = [torch.tensor([rows, rows], dtype=torch.float64)[:, None]]
    tokens = torch.tensor([[0, 0, 1], [0, 1, 0]])
    relations = mechanism.between_tokens(tokens, torch.ones(2, 3, dtype=torch.bool))
    looks = {look.relation: look for look in mechanism.looks(maps, relations, [maps])}
    assert looks["itself"].shares.tolist() == pytest.approx([(1 + 0.75 + 0.5) / 3] * 2)
    assert looks["itself"].uniform == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert looks["previous token"].shares.tolist() == pytest.approx([(0.25 + 0.3) / 2] * 2)
    assert looks["same symbol"].shares.tolist() == pytest.approx([0.25, 0.2])
    assert looks["after the same symbol"].shares.tolist() == pytest.approx([0.75, 0.3])
    assert looks["previous token"].construction == pytest.approx((0.25 + 0.3) / 2)
    hidden = {"nowhere": torch.ones(3, 3, dtype=torch.bool).triu(1).expand(2, 3, 3)}
    assert mechanism.looks(maps, hidden) == []


def test_tokens_of_examples_are_found_in_either_writing() -> None:
    x = torch.tensor([[[0.0], [5.0]], [[4.0], [1.0]]]).double()
    query = torch.tensor([[[4.0]], [[0.9]]]).double()
    pairs, apart = (mechanism.between_examples(x, query, length) for length in (3, 5))
    assert pairs["nearest example, from the query"].nonzero().tolist() == [[0, 2, 1], [1, 2, 1]]
    assert pairs["own example"][0].nonzero().tolist() == [[0, 0], [1, 1]]
    assert apart["label of the nearest, from the query"].nonzero().tolist() == [[0, 4, 3], [1, 4, 3]]
    assert apart["own input, from a label"][1].nonzero().tolist() == [[1, 0], [3, 2]]
    assert apart["inputs, from the query"][0].nonzero().tolist() == [[4, 0], [4, 2]]
    assert mechanism.between_examples(x, query, 4) == {}


def test_the_construction_of_a_latent_graph_sees_the_parents() -> None:
    """Asked as any network it gives what the column of the construction says: the whole of its attention."""
    setting = LatentGraph(length=12)
    network = several_parents_transformer(setting.parents(), setting.states, 60.0, 60.0)
    stored = StoredModel(network, "causal")
    looks = attention(stored, setting.stored(stored), setting, setting.sample(stream(0, "maps"), 8))
    parent = next(look for look in looks if (look.layer, look.head, look.relation) == (1, 1, "parent"))
    assert parent.share.mean == pytest.approx(1, abs=1e-9)
    assert parent.construction == pytest.approx(1, abs=1e-9)
    assert parent.uniform < 0.5
    assert all(0 <= look.share.mean <= 1 + EXACT for look in looks)


def test_the_induction_head_is_the_construction_beside_chains() -> None:
    setting = Chains(length=10)
    architecture = Architecture(width=WIDTH, layers=1, heads=HEADS, vocabulary=3, output_size=3)
    stored = StoredModel(Transformer(architecture, [0]), "causal")
    looks = {
        look.relation: look
        for look in attention(stored, setting.stored(stored), setting, setting.sample(stream(0, "maps"), 8))
    }
    assert looks["previous token"].construction == pytest.approx(1, abs=1e-6)
    assert looks["after the same symbol"].construction is not None
    assert looks["after the same symbol"].construction > 0.9
    assert looks["after the same symbol"].construction > 2 * looks["same symbol"].uniform


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_knows_its_tokens(name: str) -> None:
    """A random network of one layer has heads that give every relation a share between none and all."""
    setting = SETTINGS[name]
    prompts = setting.sample(stream(0, "maps"), 6)
    if setting.kind == "states":
        assert setting.relations(prompts, 12)
        return
    sizes = {"input_size": setting.dimension + 1, "output_size": 1} if setting.kind == "regression" else {}  # type: ignore[attr-defined]
    if not sizes:
        sizes = {"vocabulary": setting.vocabulary, "output_size": setting.vocabulary}  # type: ignore[attr-defined]
    stored = StoredModel(Transformer(Architecture(width=WIDTH, layers=1, heads=HEADS, **sizes), [0]), "prefix")
    looks = attention(stored, setting.stored(stored), setting, prompts)
    assert {look.head for look in looks} == {1, 2}
    assert all(0 <= look.share.mean <= 1 and 0 < look.uniform <= 1 for look in looks)


def test_a_language_model_may_begin_with_a_token_of_its_own() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = Written("is_causal")

        def forward(self, ids: Tensor) -> Tensor:
            return self.attend(F.one_hot(ids, WIDTH).double())

    setting = Chains(length=9)
    prompts = setting.sample(stream(0, "maps"), 6)
    adapted = adapt.causal_lm(Model(), symbols=(1, 2, 3), start=0)
    plain = adapt.causal_lm(Model(), symbols=(1, 2, 3))
    begun, bare = (attention(predictor, predictor, setting, prompts) for predictor in (adapted, plain))
    assert [(look.head, look.relation) for look in begun] == [(look.head, look.relation) for look in bare]
    assert begun[0].share.mean < bare[0].share.mean  # the first token takes its share


def head(relation: str, share: float, layer: int = 1, construction: float | None = None) -> Head:
    return Head(layer, 1, relation, Estimate(share, share - 0.1, share + 0.1), 0.25, construction)


def test_a_diagnosis_writes_a_table_and_a_picture_of_attention(tmp_path: Path, unchecked: None) -> None:
    architecture = Architecture(width=WIDTH, layers=2, heads=HEADS, input_size=4, output_size=1)
    stored = StoredModel(Transformer(architecture, [0]), "causal")
    diagnosis = diagnose(stored, REGRESSION, prompts=40, name="mine", task="regression")
    paths = presentation.store(diagnosis, tmp_path)
    assert {path.name for path in paths} >= {"heads.csv", "attention.png"}
    with (tmp_path / "heads.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(diagnosis.attention)
    assert {row["attention_to"] for row in rows} >= {"previous token", "own example"}
    assert all(float(row["low"]) <= float(row["share"]) <= float(row["high"]) for row in rows)
    assert (tmp_path / "attention.csv").exists()
    presentation.store(Diagnosis("mine", "", {}, "", 40, ()), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name != "diagnosis.json"]


def test_the_table_names_the_head_that_looks_most() -> None:
    heads = (head("parent", 0.3), head("parent", 0.9, layer=2, construction=1.0), head("itself", 0.2))
    grid = presentation._attention(Diagnosis("mine", "", {}, "", 40, (), attention=heads))
    assert grid.rows[0][1] == ("parent", "2.1", "0.9 (0.8 to 1)", "0.25", "1")
    assert grid.rows[1][1] == ("itself", "1.1", "0.2 (0.1 to 0.3)", "0.25", "")
