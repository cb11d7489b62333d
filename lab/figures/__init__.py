r'''Figures as sheets of panels: every verb draws, and notes what it drew.

    @TASK.figure
    def error_by_layer(results: Results) -> Sheet:
        """Error by layer under both masks, beside the closed form."""
        errors = results[convergence]["error"]  # axes: seed, arm, layer
        sheet = Sheet(columns=2, width=5.0)  # inches a panel
        panel = sheet.panel("prefix goes on, causal stops", x="layer", y="mean squared error", scale=("linear", "log"))
        for arm in ("prefix", "causal"):
            panel.curve(errors.sel(arm=arm), over="layer", arm=arm)  # mean and 95 % Student band over "seed"
        panel.theory(layers, predicted, name="gradient descent, closed form")  # black dotted
        panel.level(zero_error, name="predicting 0")
        panel = sheet.panel("the last layer", x="network", y="mean squared error")
        panel.points(at_end(errors, "layer"), over="arm", name="query")  # text labels become categories
        return sheet

Verbs of a panel (``lab.figures.panel``): ``curve``, ``points``, ``bars`` summarise samples; ``each`` and ``scatter`` show
them one by one; ``line``, ``theory``, ``level``, ``heat`` show values; ``intervals`` shows ready-made summaries; ``region``
and ``text`` explain. Samples are a DataArray (axes "seed" and the one it runs over), a plain array [seed, point] with
``x=``, or a mapping from category to its samples. A missing sample is NaN.

The table is made of the notes (panel, curve, x, mean, low, high, n); the grey line at the foot says what bands are and n.
Blue with circles is the prefix arm and red dashes with squares the causal arm, through ``arm=`` alone; every other name takes
the next look of another palette and keeps it through the sheet. ``panel.axes`` is there for the rare rest, with
``panel.note(...)`` to note it. Seaborn draws the heat maps and lends its colour-blind palette. What draws is imported by the
first sheet, so that a process that only measures does without.
'''

from lab.figures.looks import ARMS, STYLE, style
from lab.figures.panel import Panel
from lab.figures.sheet import COLUMNS, Sheet, save

__all__ = ["ARMS", "COLUMNS", "STYLE", "Panel", "Sheet", "save", "style"]
