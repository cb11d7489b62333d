r"""A small GPT in plain PyTorch that learns linear regression in context from x_1, y_1, x_2, y_2, ..., x_query.

    python tests/examples/small_gpt.py small-gpt.safetensors     # trains it, about a minute on one core
    SMALL_GPT=small-gpt.safetensors lab diagnose tests/examples/small_gpt.py:trained --adapter interleaved --label last \
        --dimension 2 --context-length 8 --noise 0.1

Its answers are closest to those of least squares and of ridge regression, at a distance of a few hundredths, and a head of its
first layer looks from every label at the input before it.

It knows nothing of the lab. Every token is d + 1 wide, (x, 0) or (0, y); the prediction of y_j is read at x_j.
"""

import os
import sys

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

DIMENSION, EXAMPLES, NOISE = 2, 16, 0.1
WIDTH, HEADS, LAYERS = 48, 4, 3


class Block(nn.Module):
    """Causal self-attention and a gated step, each added to what comes in."""

    def __init__(self):
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, state):
        parts = self.attention(self.before_attention(state)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        state = state + self.project(mixed.transpose(1, 2).flatten(2))
        return state + self.mlp(self.before_mlp(state))


class GPT(nn.Module):
    """[sequence, time, d + 1] to [sequence, time, 1]."""

    def __init__(self):
        super().__init__()
        self.read_in, self.read_out = nn.Linear(DIMENSION + 1, WIDTH), nn.Linear(WIDTH, 1)
        self.places = nn.Parameter(torch.zeros(2 * EXAMPLES + 1, WIDTH))
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(WIDTH)

    def forward(self, tokens):
        state = self.read_in(tokens) + self.places[: tokens.shape[1]]
        return self.read_out(self.norm(self.blocks(state)))


def prompts(batch, generator):
    """Tokens of fresh prompts, and the labels, clean, that belong to every x."""
    x = torch.randn(batch, EXAMPLES + 1, DIMENSION, generator=generator)
    clean = (x @ torch.randn(batch, DIMENSION, 1, generator=generator))[..., 0]
    labels = clean + NOISE * torch.randn(clean.shape, generator=generator)
    tokens = torch.zeros(batch, 2 * EXAMPLES + 2, DIMENSION + 1)
    tokens[:, 0::2, :-1], tokens[:, 1::2, -1] = x, labels
    return tokens[:, :-1], clean


def train(steps=1500, batch=64):
    """A trained network, and its mean loss over the last twentieth of the steps."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    network = GPT()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    losses = []
    for _ in range(steps):
        tokens, clean = prompts(batch, generator)
        loss = (network(tokens)[:, 0::2, 0] - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-max(1, steps // 20) :]
    return network, sum(last) / len(last)


def trained():
    """The network whose weights lie in the file that SMALL_GPT names; it is called once, to make the model."""
    network = GPT()
    network.load_state_dict(load_file(os.environ["SMALL_GPT"]))
    return network


if __name__ == "__main__":
    network, loss = train()
    save_file(network.state_dict(), sys.argv[1])
    print(f"mean squared error {loss:.3f} over all places; wrote {sys.argv[1]}")
