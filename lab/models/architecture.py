"""Everything about a transformer but its numbers: sizes and options, each checked when it is chosen."""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import LabError

ATTENTION_KINDS = ("softmax", "linear", "kernel")
CHOICES = {
    "attention": ATTENTION_KINDS,
    "attention_matrices": ("factored", "merged"),
    "activation": ("gelu", "gelu_tanh", "relu", "silu"),
    "norm": ("none", "pre", "stream"),
    "norm_kind": ("layer", "rms"),
    "positions": ("none", "learned", "sinusoidal", "rotary"),
    "initialisation": ("normal", "fan_in_uniform"),
}
LONGEST_WAVE = 10_000.0  # of sinusoidal and rotary positions, in tokens (over 2 pi)


@dataclass(frozen=True)
class Architecture:
    """Everything about a model but its numbers.

    Raises:
        LabError: a value outside its range, or two values that exclude each other.
    """

    width: int
    """size D of the residual stream"""
    layers: int
    """number of blocks applied"""
    heads: int = 1
    """attention heads"""
    head_size: int | None = None
    """size h of a head's queries, keys and values; None is width // heads"""
    key_value_heads: int | None = None
    """heads of keys and values, each read by heads / key_value_heads successive heads of queries; None: as many as heads"""
    input_size: int | None = None
    """size of continuous tokens, read in by a linear map; None with no vocabulary: tokens are the stream"""
    vocabulary: int | None = None
    """number of token ids, read in by a table"""
    output_size: int | None = None
    """size of the linear read-out; None returns the residual stream"""
    attention: str = "softmax"
    """weights of the visible tokens: "softmax" of q.k / sqrt(h), "linear" (q.k itself), or "kernel" (softmax of
    -|q / sqrt(h) - k|^2 / 2)"""
    attention_by_layer: tuple[str, ...] = ()
    """the kind of weights of every layer, where layers differ; empty: `attention` in all"""
    windows: tuple[int | None, ...] = ()
    """how far every layer sees, where that is limited: w tokens, |i - j| < w beside the mask, or None for no limit; empty:
    no limit in any"""
    attention_matrices: str = "factored"
    """"factored" query, key, value and output matrices, or "merged": one head whose keys and values are the
    tokens themselves, no biases: w_ij from x_i Q x_j^T, update (sum over visible j of w_ij x_j) O. Of the layer
    z_i + P V sum_j z_j (z_j^T K^T Q z_i) in columns, query.weight is (K^T Q)^T and output.weight is (P V)^T"""
    parallel: bool = False
    """attention and MLP both read the stream as it enters the block, and both are added to it"""
    mlp_ratio: float = 4.0
    """hidden size of the MLP over width; 0 leaves attention only"""
    activation: str = "gelu"
    """of the MLP: "gelu" (exact), "gelu_tanh" (its approximation by tanh, which most released networks use), "relu", or
    "silu" (x / (1 + e^-x), also called swish)"""
    gated: bool = False
    """the activated numbers multiply a second linear map of the token; with "silu" this is SwiGLU, with "gelu" GeGLU"""
    norm: str = "pre"
    """where tokens are normalised: "none"; "pre": before attention, before the MLP, before the read-out; "stream": before
    attention and the MLP, replacing the residual stream itself, none before the read-out"""
    norm_kind: str = "layer"
    """"layer": mean 0 and variance 1; "rms": mean square 1, no bias"""
    norm_epsilon: float = 1e-5
    """added to the variance or the mean square"""
    bias: bool = True
    """biases of read-in, attention, MLP and layer norms"""
    output_bias: bool = False
    """bias of the read-out"""
    positions: str = "none"
    """"learned" or "sinusoidal": added to the embedding; "rotary": queries and keys are turned"""
    maximum_length: int | None = None
    """rows of the table of learned positions"""
    rotary_base: float = LONGEST_WAVE
    """b of the angles t / b^(2 i / n) by which the i-th pair of n turned coordinates is turned at position t"""
    rotary_share: float = 1.0
    """share of a head's coordinates that are turned, the first ones"""
    share_layers: bool = False
    """one block, applied `layers` times"""
    tie_embedding: bool = False
    """read out with the transposed embedding"""
    initialisation: str = "normal"
    """"normal": matrices N(0, initial_scale^2), biases 0; "fan_in_uniform": a matrix of n rows and a vector of
    length n alike U(-1/sqrt(n), 1/sqrt(n)). Norms start at weight 1, bias 0"""
    initial_scale: float | None = None
    """standard deviation of "normal"; None: 1 / sqrt(rows) of a matrix, 1 / sqrt(width) of a table"""
    dropout: float = 0.0
    """share of numbers dropped from the embedding and from what each attention and MLP adds, in training"""
    attention_dropout: float = 0.0
    """share of attention weights dropped, in training; what is kept is divided by one minus it"""

    def __post_init__(self) -> None:
        def require(name: str, valid: bool, limit: str) -> None:
            if not valid:
                value = getattr(self, name)
                raise LabError(f"{name} = {value!r} of an architecture must be {limit}; please change it.")

        for name, choices in CHOICES.items():
            require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        require("layers", self.layers >= 0, "at least 0")
        require("mlp_ratio", self.mlp_ratio >= 0, "at least 0")
        require("norm_epsilon", 0 <= self.norm_epsilon < 1, "in [0, 1)")
        require("dropout", 0 <= self.dropout < 1, "in [0, 1)")
        require("attention_dropout", 0 <= self.attention_dropout < 1, "in [0, 1)")
        require("initial_scale", (self.initial_scale or 0) >= 0, "at least 0 or None")
        for name in ("width", "heads", "head_size", "input_size", "vocabulary", "output_size", "maximum_length"):
            value = getattr(self, name)
            require(name, value is None or value >= 1, "at least 1")
        if self.attention_matrices == "merged":
            require("heads", self.heads == 1, "1 with merged attention matrices")
            require("head_size", self.head_size in (None, self.width), "None with merged attention matrices")
            require("key_value_heads", self.key_value_heads in (None, 1), "None with merged attention matrices")
        if self.head_size is None:
            require("heads", self.width % self.heads == 0, f"a divisor of width = {self.width}, or head_size given")
        if self.key_value_heads is not None:
            divides = self.key_value_heads >= 1 and self.heads % self.key_value_heads == 0
            require("key_value_heads", divides, f"a divisor of heads = {self.heads}, or None")
        by_layer = (self.attention_by_layer, self.windows)
        for name, values in zip(("attention_by_layer", "windows"), by_layer, strict=True):
            require(name, len(values) in (0, self.layers), f"empty or have one entry for each of {self.layers} layers")
        for kind in self.attention_by_layer:
            require("attention_by_layer", kind in ATTENTION_KINDS, f"of {', '.join(ATTENTION_KINDS)}")
        require(
            "windows", all(window is None or window >= 1 for window in self.windows), "of numbers at least 1, or None"
        )
        if self.parallel:
            require("parallel", self.norm != "stream", "False where the norm replaces the stream")
        if self.gated:
            require("gated", self.mlp_ratio > 0, "False without an MLP")
        if self.vocabulary is not None:
            require("input_size", self.input_size is None, "None with a vocabulary")
        if self.positions == "learned":
            require("maximum_length", self.maximum_length is not None, "given with learned positions")
        if self.positions == "sinusoidal":
            require("width", self.width % 2 == 0, "even with sinusoidal positions")
        if self.positions == "rotary":
            require("rotary_base", self.rotary_base > 1, "greater than 1")
            require("rotary_share", 0 < self.rotary_share <= 1, "in (0, 1]")
            full_rotation = self.rotary_share == 1
            require(
                "positions" if full_rotation else "rotary_share",
                self.size_turned % 2 == 0 and self.size_turned > 0,
                f"another kind with head size {self.size_of_head} (odd)"
                if full_rotation
                else f"a share of the head size {self.size_of_head} that is an even number",
            )
        if self.tie_embedding:
            require("vocabulary", self.vocabulary is not None, "given with tie_embedding")
            require("output_size", self.output_size == self.vocabulary, "the vocabulary with tie_embedding")
        if self.output_bias:
            separate_read_out = self.output_size is not None and not self.tie_embedding
            require("output_bias", separate_read_out, "False without a read-out of its own")

    @property
    def size_of_head(self) -> int:
        """h: `head_size`, or width // heads where it is None."""
        return self.width // self.heads if self.head_size is None else self.head_size

    @property
    def size_turned(self) -> int:
        """n: coordinates of a head that rotary positions turn."""
        return round(self.rotary_share * self.size_of_head)

    @property
    def hidden_size(self) -> int:
        """F: numbers between the two maps of the MLP; 0 without one."""
        return round(self.mlp_ratio * self.width)

    def kind_at(self, depth: int) -> str:
        """The kind of attention weights of a layer."""
        return self.attention_by_layer[depth] if self.attention_by_layer else self.attention

    def window_at(self, depth: int) -> int | None:
        """How far a layer sees, in tokens; None for no limit."""
        return self.windows[depth] if self.windows else None
