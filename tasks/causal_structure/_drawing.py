"""How the parts draw attention by position."""

from __future__ import annotations

import xarray as xr

from lab.domains.chains.latent_graph_prompts import ROOT
from lab.figures import Sheet


def show_positions(sheet: Sheet, training: str, forests: xr.Dataset) -> None:
    """A panel with the attention of each node to its parent over random forests, for each arm."""
    attention, parent = forests["attention"], forests["parent"]
    weight = attention.where(attention["attended"] == parent).sum("attended").where(parent != ROOT)
    # A node that is a root in all but one graph has no band.
    weight = weight.sel(token=(parent != ROOT).sum("seed") > 1)
    arms = weight["arm"].values.tolist()
    summary = ", ".join(f"{arm} {float(weight.sel(arm=arm).mean()):.3f}" for arm in arms)
    panel = sheet.panel(
        f"{training}: {summary} on the parent", x="position of the node", y="attention to its parent", ylim=(0, 1.05)
    )
    for arm in arms:
        panel.curve(weight.sel(arm=arm), over="token", arm=arm, within=(0.0, 1.0))
