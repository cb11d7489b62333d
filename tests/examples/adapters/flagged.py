"""A module whose query is a token of its own kind, (x, 0, 1) after (x_j, y_j, 0): --adapter flagged."""

import torch


class Average(torch.nn.Module):  # [sequence, n + 1, d + 2] to [sequence, n + 1]
    def forward(self, tokens):
        query = (tokens * tokens[..., -1:]).sum(1, keepdim=True)[..., :-2]
        x, y = tokens[..., :-2], tokens[..., -2:-1]
        return (query @ (x * y).mT).sum(-1).expand(-1, tokens.shape[1]) / (tokens.shape[1] - 1)


model = Average()
