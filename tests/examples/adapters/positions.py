"""A function (xs, ys) -> predictions that predicts at every place from the examples before it: --adapter positions."""

import torch


def model(xs, ys):  # [B, n + 1, d], [B, n + 1] to [B, n + 1]
    weights = torch.cumsum(xs * ys[..., None], 1).roll(1, 1)
    weights[:, 0] = 0
    return (weights * xs).sum(-1) / torch.arange(xs.shape[1]).clamp(min=1)
