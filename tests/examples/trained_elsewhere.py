r"""Prompts of the lab in a file, a network that learns from them without the lab, and what it has become.

    lab data linear-regression --count 20000 --dimension 2 --context-length 8 --noise 0.1 --out prompts.npz
    python tests/examples/trained_elsewhere.py prompts.npz elsewhere.safetensors    # numpy and torch alone, a few seconds
    ELSEWHERE=elsewhere.safetensors lab diagnose tests/examples/trained_elsewhere.py:trained \
        --dimension 2 --context-length 8 --noise 0.1

The network is the smallest that can see a whole prompt: the query times a matrix times the sum of the labelled inputs, as one
head of linear attention has it. The matrix is all that it learns, and its answers are those of one preconditioned step of gradient
descent, identically; how near the matrix has come to the best rate, the row of the optimal gradient step tells.
"""

import os
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn


class OneHead(nn.Module):
    """x_context [B, n, d], y_context [B, n], x_query [B, m, d] to predictions [B, m]."""

    def __init__(self, dimension=2):
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(dimension, dimension))

    def forward(self, x_context, y_context, x_query):
        moment = x_context.mT @ y_context[..., None]
        return (x_query @ self.matrix @ moment)[..., 0]


def train(file, epochs=3, batch=100):
    """A network trained on the prompts of the file, and its mean squared error on the last fifth of them, which it never saw."""
    with np.load(file) as prompts:
        x, y, query, label = (
            torch.from_numpy(prompts[name]).float() for name in ("x_context", "y_context", "x_query", "y_query")
        )
    split = len(x) * 4 // 5
    network = OneHead(x.shape[-1])
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, epochs * (split // batch))
    for _ in range(epochs):
        for start in range(0, split - batch + 1, batch):
            part = slice(start, start + batch)
            loss = (network(x[part], y[part], query[part]) - label[part]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return network, (network(x[split:], y[split:], query[split:]) - label[split:]).square().mean().item()


def trained():
    """The network whose weights lie in the file that ELSEWHERE names; it is called once, to make the model."""
    network = OneHead()
    network.load_state_dict(load_file(os.environ["ELSEWHERE"]))
    return network


if __name__ == "__main__":
    network, loss = train(sys.argv[1])
    save_file(network.state_dict(), sys.argv[2])
    print(f"mean squared error {loss:.3f} on prompts that it never saw; wrote {sys.argv[2]}")
