# %% [markdown]
# # In-context Markov chains: what is exact
#
# A Markov chain whose transition matrix is drawn anew for every sequence is the smallest language with
# something to learn *in context*: a predictor must count transitions in the sequence it reads. A chain whose matrix is
# the same for all sequences must be learnt *in the weights* instead. For both, this file checks what can be said without
# training a network: the Bayes predictors and their losses, the attention heads that compute them under a causal and
# under a bidirectional mask, and the loss landscape of one attention layer reduced to three numbers.
#
# Notation: $S$ symbols, transition matrix $P$ with rows $\mathrm{Dirichlet}(\alpha, \dots, \alpha)$, stationary law $\mu$,
# counts $C_t(s, b)$ of the transitions $s \to b$ among $x_0, \dots, x_t$. All losses are in nats.
# %%
from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy import integrate, stats
from torch import Tensor

from lab import statistics
from lab.claims import Evidence, control
from lab.domains.chains.induction_head import causal_head, frequencies, prefix_head
from lab.domains.chains.latent_graphs import oracle_risk, risk_after_visits
from lab.domains.chains.markov import (
    adjacent_information,
    basin_edge,
    canonical_flow,
    canonical_loss,
    canonical_slope,
    conserved_energy,
    entropy,
    entropy_rate,
    kernel_slope,
    log_evidence,
    markov_posterior,
    optimal_bias,
    smoothed_frequencies,
    smoothing_divergence,
    stationary_entropy,
    trap_curvature,
    true_law,
)
from lab.domains.chains.markov_prompts import binary_kernel, dirichlet_chains, fixed_chains
from lab.evaluation import cross_entropy, kullback_leibler
from lab.models.masks import causal, full
from lab.models.relative import MinimalInduction
from lab.results import Results
from lab.streams import stream
from lab.tasks import NoConfig, Task

PROOFS = Task("induction-heads-markov", paper="induction-heads-markov")

# %% [markdown]
# ## The Bayes predictor is a smoothed count
#
# The Dirichlet law is conjugate: after the transitions counted in $C_t$, row $s$ is
# $\mathrm{Dirichlet}(\alpha + C_t(s, \cdot))$ and predicts $(C_t(s, b) + \alpha)/(C_t(s) + S \alpha)$. Multiplied along
# a sequence, these predictions must give its marginal probability, the matrix integrated out,
# $$ p(x) = S^{-m} \prod_s \frac{\Gamma(S\alpha)}{\Gamma(S\alpha + C(s))}
#   \prod_b \frac{\Gamma(\alpha + C(s, b))}{\Gamma(\alpha)} $$
# for a chain of order $m$ whose first $m$ symbols are uniform; and $p$ must sum to 1 over all sequences.


# %%
@PROOFS.measurement()
def evidence_products(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """Largest |sum of log-predictions - log p(x)| over 50 sequences for orders 0 .. 3, and the total mass."""
    length, states, alpha = 60, 4, 0.5
    errors: list[float] = []
    mismatched: list[float] = []
    for order in range(4):
        source = stream(seed, "sequences", order)
        drawn = dirichlet_chains(source, 50, states=states, length=length, order=order, concentration=alpha)
        marginal = log_evidence(drawn.tokens, states, order, alpha)
        for used, found in ((alpha, errors), (2 * alpha, mismatched)):
            # A leading symbol stands for "nothing seen yet", which only order 0 has a prediction for.
            logs = markov_posterior(states, order, used)(drawn.tokens, torch.zeros(50).long())
            total = -cross_entropy(logs, drawn.tokens).sum(-1) - np.log(states)
            found.append(float((total - marginal).abs().max()))
    binary = torch.cartesian_prod(*[torch.arange(2)] * 10)
    masses = [float(log_evidence(binary, 2, order, 1.0).exp().sum()) for order in range(4)]
    return {"error": np.array(errors), "mismatched": np.array(mismatched), "mass": np.array(masses)}


@PROOFS.claim(
    "induction-heads-markov/B1",
    where="Edelman et al., the in-context learning task",
    kind="identity",
    statement=r"Along a sequence with uniform first symbols the predictions $(C_t(s, b) + \alpha)/(C_t(s) + S\alpha)$ "
    r"multiply to its probability under the Dirichlet mixture of chains of order $m = 0, \dots, 3$, and these "
    r"probabilities sum to 1 over all binary sequences of length 10.",
    controls=[control("smoothing with twice the concentration of the prior", predictions="mismatched")],
)
def predictions_multiply_to_the_mixture(results: Results, predictions: str = "error") -> Evidence:
    found = results[evidence_products]
    # 60 logarithms of size up to log 1000 are added, and the gamma functions have values up to 60 log 60.
    product = Evidence.exact(
        found[predictions].max(),
        "<=",
        statistics.rounding_bound(4 * 60, 60 * np.log(60)),
        "rounding of 60 logarithms and of gamma functions up to 60 log 60",
    )
    mass = Evidence.exact(
        np.abs(found["mass"] - 1).max(),
        "<=",
        statistics.rounding_bound(2**10 + 40, 10 * np.log(10)),
        "rounding of a sum of 1024 probabilities",
    )
    return Evidence.weakest(product, mass)


# %%
PROOFS.show(predictions_multiply_to_the_mixture)

# %% [markdown]
# ### Does the start matter?
#
# If the first symbol is drawn from the stationary law $\mu_P$ instead, it carries a little information on $P$ that
# counting throws away, and add-$\alpha$ is no longer Bayes. How much is lost? The posterior odds change by the single
# factor $\mu_P(x_0)$, and by the data processing inequality
# $$ \mathrm{KL}(\text{stationary mixture} \,\|\, \text{uniform-start mixture}) \le E_P\, \mathrm{KL}(\mu_P \| \text{uniform})
#  = \log S - E_P H(\mu_P) $$
# for the *whole* sequence, however long: per token the loss fades like $1/T$. Both sides are computed below for two
# symbols, the left by enumerating all sequences and integrating over $(p, q)$ by quadrature.


# %%
NODES = 150


def binary_prior() -> tuple[Tensor, Tensor]:
    """Nodes (p, q) of a product Gauss rule on the unit square and their weights, and the stationary laws there."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    # Nodes of the substitution p = sin^2(angle) crowd into the corners, where the stationary law is not smooth.
    angle, weights = np.pi / 4 * (nodes + 1), np.pi / 4 * weights
    probability, weights = np.sin(angle) ** 2, weights * np.sin(2 * angle)
    p, q = (torch.from_numpy(part).flatten() for part in np.meshgrid(probability, probability))
    return torch.stack([p, q]), torch.from_numpy(np.outer(weights, weights)).flatten()


@PROOFS.measurement()
def start_divergences(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """KL of the stationary-start mixture to the uniform-start one over whole binary sequences of length 2 .. 10."""
    (p, q), weights = binary_prior()
    stationary = torch.stack([q, p], -1) / (p + q).unsqueeze(-1)
    edge = float(np.log(2) - (weights * entropy(stationary)).sum())
    found: dict[str, list[float]] = {"stationary": [], "uniform": []}
    for length in range(2, 11):
        tokens = torch.cartesian_prod(*[torch.arange(2)] * length)
        pairs = 2 * tokens[:, :-1] + tokens[:, 1:]
        counts = torch.nn.functional.one_hot(pairs, 4).sum(1).double()
        kinds, kind = torch.unique(torch.cat([tokens[:, :1], counts.long()], 1), dim=0, return_inverse=True)
        walk = kinds[:, 1:].double() @ torch.stack([1 - p, p, q, 1 - q]).log()
        mixture = log_evidence(tokens, 2, 1, 1.0)
        for start, first in (("stationary", stationary.T), ("uniform", torch.full((2, len(p)), 0.5))):
            law = ((walk.exp() * first[kinds[:, 0]]) @ weights)[kind]
            found[start].append(float((law * (law.log() - mixture)).sum()))
    return {name: np.array(values) for name, values in found.items()} | {"edge": np.array(edge)}


@PROOFS.claim(
    "induction-heads-markov/B1-start",
    where="derived; Edelman et al. draw the first symbol from the stationary law",
    kind="identity",
    statement=r"With a stationary first symbol the add-1 predictor is not Bayes, but what it loses over a whole "
    r"sequence of length $2, \dots, 10$ is positive and at most $\log S - E H(\mu_P)$ (two symbols, uniform prior).",
    controls=[control("a uniform first symbol: nothing is lost", start="uniform")],
)
def start_costs_a_constant(results: Results, start: str = "stationary") -> Evidence:
    found = results[start_divergences]
    below = Evidence.exact(found[start].max(), "<=", float(found["edge"][0]), "data processing inequality")
    # Quadrature of 150 nodes a side; the uniform start shows how close to 0 a divergence of 0 comes out.
    above = Evidence.exact(found[start].min(), ">=", 1e-6, "error of the quadrature, far above rounding")
    return Evidence.weakest(below, above)


# %%
PROOFS.show(start_costs_a_constant)

# %% [markdown]
# ## What the strategies are worth
#
# In a long context, who counts transitions pays the *entropy rate* $h = \sum_s \mu_s H(P_s)$, who counts symbols pays
# $H(\mu)$, who does neither pays $\log S$. The two gaps are the information between neighbours, $H(\mu) - h = I(X_t;
# X_{t+1})$, and $\log S - H(\mu)$.


# %%
@PROOFS.measurement()
def entropy_gaps(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """|H(mu) - h - I| over 500 random matrices of 2 to 6 symbols, and with H of the mean row instead of H(mu)."""
    gap, wrong = [], []
    for states in range(2, 7):
        table = dirichlet_chains(stream(seed, "table", states), 100, states=states, length=2).table
        information = adjacent_information(table)
        gap.append((stationary_entropy(table) - entropy_rate(table) - information).abs().max())
        wrong.append((entropy(table.mean(1)) - entropy_rate(table) - information).abs().max())
    return {"gap": np.array(gap), "mean_row": np.array(wrong)}


@PROOFS.claim(
    "induction-heads-markov/B2",
    where="derived",
    kind="identity",
    statement=r"What the unigram predictor loses against the bigram predictor in a long context is the information "
    r"between neighbours: $H(\mu) - h = I(X_t; X_{t+1})$.",
    controls=[control("entropy of the average row instead of the stationary law", side="mean_row")],
)
def gap_is_information(results: Results, side: str = "gap") -> Evidence:
    # mu stands in 36 products; its own relative error is that of the 3 * 6^2 operations of the elimination.
    bound = statistics.rounding_bound(3 * 36 + 2 * 36, 2 * np.log(6))
    return Evidence.exact(results[entropy_gaps][side].max(), "<=", bound, "rounding for 6 symbols")


@PROOFS.measurement(seeds=lambda config: 16)
def long_contexts(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """2 t / (S (S - 1)) times the excess loss at t = 1024 .. 2047 of smoothed bigrams; unigrams in gaps H(mu) - h."""
    states, length = 3, 2048
    source = stream(seed, "long")
    matrix = dirichlet_chains(source, 1, states=states, length=2, concentration=1.0).table[0]
    drawn = fixed_chains(source.child("walk"), 150, transition=matrix, length=length)
    times = torch.arange(length // 2, length)
    counts = torch.nn.functional.one_hot(drawn.tokens[:, :-1] * states + drawn.tokens[:, 1:], states**2)
    counts = torch.cat([torch.zeros_like(counts[:, :1]), counts.cumsum(1)], 1)[:, times]
    rows = counts.unflatten(-1, (states, states)).double()
    at = drawn.tokens[:, times]
    row = rows.gather(2, at[..., None, None].expand(-1, -1, 1, states))[:, :, 0] + 1
    smooth = row / row.sum(-1, keepdim=True)
    truth = true_law(drawn.table, drawn.tokens, 1)[:, times]
    excess = kullback_leibler(truth.log(), smooth.log()).mean(0)
    seen = torch.nn.functional.one_hot(drawn.tokens, states).cumsum(1)[:, times].double() + 1
    unigram = -(truth * (seen / seen.sum(-1, keepdim=True)).log()).sum(-1)
    gap = adjacent_information(matrix)
    return {
        "bigram": np.array(float((2 * times * excess).mean() / (states * (states - 1)))),
        "unigram": np.array(float((unigram.mean() - stationary_entropy(matrix)) / gap)),
        "unigram_above_rate": np.array(float((unigram.mean() - entropy_rate(matrix)) / gap)),
    }


@PROOFS.claim(
    "induction-heads-markov/B2-limit",
    where="derived",
    kind="rate",
    statement=r"On a fixed chain the smoothed bigram predictor approaches the entropy rate like $S (S - 1) / (2 t)$ and "
    r"the unigram predictor approaches $H(\mu)$ (measured for $1024 \le t < 2048$, $S = 3$, 16 matrices).",
    controls=[
        control("the unigram predictor is held against the entropy rate", unigram="unigram_above_rate"),
        control("half the number of free probabilities, S (S - 1) / (4 t)", share=0.5),
    ],
)
def long_context_limits(results: Results, unigram: str = "unigram", share: float = 1.0) -> Evidence:
    found = results[long_contexts]
    # The next terms are of relative order 1 / (t min mu); 1/4 is the share of them that t = 1024 may leave.
    origin = "leading term S (S - 1) / (2 t), up to relative terms of order S^2 / t and the smoothing"
    return Evidence.weakest(
        Evidence.over_seeds(found["bigram"] / share, "<=", 1.25, origin, parts=3),
        Evidence.over_seeds(found["bigram"] / share, ">=", 0.75, origin, parts=3),
        # H(mu) is approached at order (S - 1) / (2 t) = 0.001, a hundredth of a typical gap H(mu) - h.
        Evidence.over_seeds(np.abs(found[unigram]), "<=", 0.1, "a tenth of the gap", parts=3),
    )


# %%
PROOFS.show(gap_is_information)
PROOFS.show(long_context_limits)

# %% [markdown]
# ## The price of a finite context
#
# Given the row $p$ and $n$ visits, add-$\alpha$ smoothing costs
# $E\,\mathrm{KL} = \sum_b p_b \log p_b - \sum_b p_b E_{c \sim \mathrm{Bin}(n, p_b)} \log \frac{c + \alpha}{n + S \alpha}$:
# only the marginal of each count matters. Averaged over the prior this must be the Bayes risk minus the risk of who knows
# the row, $\mathrm{risk}_n - L_*$, where $L_* = \psi(S\alpha + 1) - \psi(\alpha + 1)$ and
# $\mathrm{risk}_n = -S \sum_c \mathrm{BetaBin}(c; n, \alpha, (S-1)\alpha)\, m \log m$, $m = \frac{\alpha + c}{S\alpha + n}$.


# %%
@PROOFS.measurement(seeds=lambda config: 20)
def sampled_divergences(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """The mean over 5,000 multinomial draws of KL(p || smoothed) for one law of 5 symbols, n = 20, alpha = 1/2."""
    law = stream(0, "law").rng().dirichlet(np.ones(5))
    counts = stream(seed, "counts").rng().multinomial(20, law, 5_000)
    sampled = (law * np.log(law / ((counts + 0.5) / 22.5))).sum(-1).mean()
    return {"sampled": sampled, "formula": np.array(smoothing_divergence(law, 20, 0.5)), "leading": np.array(4 / 40)}


@PROOFS.claim(
    "induction-heads-markov/B3",
    where="derived",
    kind="identity",
    statement=r"After $n$ draws from $p$ add-$\alpha$ smoothing costs $\sum_b p_b \log p_b - \sum_b p_b E \log \frac{c_b + "
    r"\alpha}{n + S\alpha}$, $c_b \sim \mathrm{Bin}(n, p_b)$: the mean of 20 times 5,000 simulated divergences agrees.",
    controls=[control("its leading term (S - 1) / (2 n)", formula="leading")],
)
def smoothing_costs(results: Results, formula: str = "formula") -> Evidence:
    found = results[sampled_divergences]
    return Evidence.agreement(found["sampled"], float(found[formula][0]), "divergence")


@PROOFS.measurement()
def averaged_divergences(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """|mean over the prior of the divergence - (risk_n - L*)|, by quadrature over each coordinate's Beta law."""

    def average(states: int, prior: float, visits: int, smoothing: float) -> float:
        counts = np.arange(visits + 1)
        logs = np.log((counts + smoothing) / (visits + states * smoothing))

        def integrand(p: float) -> float:
            inner = np.log(p) - stats.binom.pmf(counts, visits, p) @ logs
            return float(p * inner * stats.beta.pdf(p, prior, (states - 1) * prior))

        # By exchangeability every coordinate contributes the same.
        return states * integrate.quad(integrand, 0, 1, epsabs=1e-12, epsrel=1e-12, limit=400)[0]

    cases = list(itertools.product((2, 4), (0.5, 1.0), (1, 12)))
    target = [risk_after_visits(n, s, a) - oracle_risk(s, a) for s, a, n in cases]
    matched = [average(s, a, n, a) for s, a, n in cases]
    other = [average(s, a, n, 2 * a) for s, a, n in cases]
    return {"matched": np.abs(np.subtract(matched, target)), "other": np.abs(np.subtract(other, target))}


@PROOFS.claim(
    "induction-heads-markov/B4",
    where="derived",
    kind="identity",
    statement=r"Averaged over rows from $\mathrm{Dirichlet}(\alpha)$ the cost of add-$\alpha$ smoothing after $n$ visits is "
    r"$\mathrm{risk}_n - L_*$, the Bayes risk minus the loss of who knows the row.",
    controls=[control("smoothing with twice the concentration of the prior", smoothing="other")],
)
def averaged_cost_is_bayes_risk(results: Results, smoothing: str = "matched") -> Evidence:
    error = results[averaged_divergences][smoothing].max()
    return Evidence.exact(error, "<=", 1e-10, "tolerance 1e-12 asked of the quadrature, times 4 symbols and slack 25")


# %%
PROOFS.show(smoothing_costs)
PROOFS.show(averaged_cost_is_bayes_risk)

# %% [markdown]
# ## Two wirings of an induction head
#
# Two attention layers can compute these counts. With a **causal** mask, layer 1 copies to each position the symbol
# *before* it; layer 2 asks with the current symbol $s$, finds the positions whose copy is $s$, and reads the symbols
# standing there, the successors of $s$. With a **bidirectional** mask over the prompt there is another way: layer 1 copies
# the symbol *after*, layer 2 looks for $s$ itself and reads the copy; the position that asks must be left out, for it
# matches itself and has no successor yet. Both are weights of one and the same transformer (attention only,
# one-hot symbols in the residual stream, a sentinel in front), compared with the counts position by position.


# %%
STATES, LENGTH, PROMPTS = 4, 25, 300


@PROOFS.measurement()
def head_errors(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """Largest errors of both wirings against the formula, where it makes sense; mean error of wirings that break."""
    tokens = dirichlet_chains(stream(seed, "prompts"), PROMPTS, states=STATES, length=LENGTH).tokens
    masks = {"causal": causal(LENGTH + 1), "full": full(LENGTH + 1)}
    sharpness = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
    exact = smoothed_frequencies(tokens, STATES, np.inf)
    # Where a symbol has had no successor yet, counts say nothing, and a sharp head shows the unigram.
    asked = tokens.unsqueeze(-1) == tokens.unsqueeze(-2)
    known = asked.tril(-1).any(-1)

    def sharp(head: str, mask: str, **options: bool) -> Tensor:
        built = {"causal": causal_head, "prefix": prefix_head}[head](STATES, LENGTH, 60.0, **options)
        return (frequencies(built, tokens, masks[mask]) - exact).abs().amax(-1)

    def soft(formula: float) -> np.ndarray:
        rows = []
        for beta in sharpness:
            target = smoothed_frequencies(tokens, STATES, beta + formula)
            one = frequencies(causal_head(STATES, LENGTH, beta), tokens, masks["causal"]) - target
            two = frequencies(prefix_head(STATES, LENGTH, beta), tokens, masks["full"]) - target
            rows.append([float(one.abs().max()), float(two[:, -1].abs().max())])
        return np.array(rows)

    last = known[:, -1]
    return {
        "causal": sharp("causal", "causal")[known].max().numpy(),
        "causal_from_after": sharp("prefix", "causal")[known].mean().numpy(),
        "causal_last": sharp("causal", "full")[:, -1][last].max().numpy(),
        "prefix": sharp("prefix", "full")[:, -1][last].max().numpy(),
        "prefix_self": sharp("prefix", "full", exclude_query=False)[:, -1][last].mean().numpy(),
        "prefix_masked": sharp("prefix", "causal")[:, -1][last].mean().numpy(),
        "soft": soft(0.0),
        "soft_shifted": soft(0.1),
    }


# Scores of size beta <= 60 carry 4 beta rounding errors into the weights, which are then summed over 26 keys.
HEAD_ROUNDING = statistics.rounding_bound(4 * 60 + 2 * (LENGTH + 1), 1.0)


@PROOFS.claim(
    "induction-heads-markov/K1",
    where="Edelman et al., construction of the statistical induction head",
    kind="construction",
    statement=r"Under a causal mask two attention layers (copy the symbol before; match the current symbol with the copy "
    r"and read the symbol there) put out the in-context frequencies $C_t(s, \cdot)/C_t(s)$ at every position; under an open "
    r"mask the same weights put them out at the last position.",
    controls=[control("layer 1 copies the symbol after, which a causal mask hides", wiring="causal_from_after")],
)
def causal_wiring(results: Results, wiring: str = "causal") -> Evidence:
    found, origin = results[head_errors], "rounding of scores and of a sum of 26 terms"
    return Evidence.weakest(
        Evidence.exact(found[wiring][0], "<=", HEAD_ROUNDING, origin),
        Evidence.exact(found["causal_last"][0], "<=", HEAD_ROUNDING, origin),
    )


@PROOFS.claim(
    "induction-heads-markov/K2",
    where="derived: the counterpart for a bidirectional prompt",
    kind="construction",
    statement=r"Where all tokens of a prompt see each other, two attention layers (copy the symbol after; match the current "
    r"symbol with the symbol and read the copy; leave out the position that asks) put out the same frequencies.",
    controls=[
        control("the position that asks is not left out", wiring="prefix_self"),
        control("a causal mask", wiring="prefix_masked"),
    ],
)
def prefix_wiring(results: Results, wiring: str = "prefix") -> Evidence:
    return Evidence.exact(
        results[head_errors][wiring][0], "<=", HEAD_ROUNDING, "rounding of scores and of a sum of 26 terms"
    )


@PROOFS.claim(
    "induction-heads-markov/K3",
    where="derived",
    kind="identity",
    statement=r"At finite sharpness $\beta$ both wirings put out $\frac{(e^\beta - 1)\, C_t(s, \cdot) + u_t}{(e^\beta - 1)\, "
    r"C_t(s) + t}$, $u_t$ counting $x_1, \dots, x_t$: additive smoothing towards the unigram. The mask changes the wiring, "
    r"not the statistic.",
    controls=[control("the formula at a sharpness larger by 0.1", formula="soft_shifted")],
)
def finite_sharpness_is_smoothing(results: Results, formula: str = "soft") -> Evidence:
    return Evidence.exact(
        results[head_errors][formula].max(), "<=", HEAD_ROUNDING, "rounding of scores and of a sum of 26 terms"
    )


# %%
PROOFS.show(causal_wiring)
PROOFS.show(prefix_wiring)
PROOFS.show(finite_sharpness_is_smoothing)

# %% [markdown]
# At the last position the causal wiring also works where the mask is open, since none of its steps *needs* to see what comes
# later: a bidirectional model may use either.
#
# ## Why layer 1 waits for layer 2
#
# In the minimal model (pattern $a$ over offsets from scores $v$, then a linear match $W$) take all entries of $W$ equal to
# $c$. Every score is $x_i^T W c_j = c$, because the attention weights of layer 1 sum to 1: whatever $v$ is, the logits are
# $c\,u_i$, the counts of symbols. So the gradient of $v$ vanishes identically, for every batch, until $W$ has learnt to tell
# symbols apart, and the first thing the model can be is a unigram.


# %%
@PROOFS.measurement()
def first_gradients(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """Largest gradient of v relative to that of W, at random v, for constant W and for W = c times the identity."""
    states, length = 3, 24
    tokens = dirichlet_chains(stream(seed, "batch"), 200, states=states, length=length).tokens
    offsets = torch.from_numpy(stream(seed, "offsets").rng().normal(size=(4, length)))
    found = {}
    for name, match in (("constant", torch.full((states, states), 0.01)), ("identity", 0.01 * torch.eye(states))):
        model = MinimalInduction(offsets, match.double().expand(4, -1, -1))
        logs = model(tokens.unsqueeze(0)).log_softmax(-1)
        cross_entropy(logs, tokens).mean().backward()
        first, second = model.scaled_offsets.grad, model.scaled_match.grad
        assert first is not None
        assert second is not None
        found[name] = np.array(float(first.abs().max() / second.abs().max()))
    return found


@PROOFS.claim(
    "induction-heads-markov/P3-start",
    where="Edelman et al., minimal model",
    kind="identity",
    statement=r"In the minimal model with a constant match matrix $W$ the gradient of the offset scores $v$ is zero for every "
    r"$v$ and every batch, while that of $W$ is not: layer 1 cannot start to learn before layer 2.",
    controls=[control("W is a multiple of the identity, as if layer 2 had learnt to match", match="identity")],
)
def layer_one_waits(results: Results, match: str = "constant") -> Evidence:
    # Each of 24 rows sums 24 products of weights and scores that are equal up to rounding.
    bound = statistics.rounding_bound(200 * 24 * 24, 1.0)
    return Evidence.exact(results[first_gradients][match][0], "<=", bound, "rounding of 200 x 24 rows of 24 scores")


# %%
PROOFS.show(layer_one_waits)

# %% [markdown]
# ## One attention layer on a fixed binary chain
#
# Now the chain is the same for all sequences: $P = \begin{pmatrix} 1-p & p \\ q & 1-q \end{pmatrix}$, with
# $\pi = (q, p)/(p + q)$. The answer is a function of the current token alone. A single layer whose embedding vector is also
# its read-out vector (tied), started symmetric and of rank one, stays in a family of three numbers: embedding $e$,
# attention $w$, bias $b$, with
# $$ \mathrm{logit}(x) = s\,x + b - \tfrac12 e^2, \qquad s = e^2 (1 + 2 w |w|), \qquad x \in \{0, 1\}. $$
# The loss is a function of the *slope* $s$ once $b$ is optimal. Three facts follow.


# %%
KERNELS = ((0.5, 0.8), (0.8, 0.7), (0.2, 0.3), (0.1, 0.1), (0.9, 0.9))


def points(seed: int, number: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """Random (e, w, b)."""
    rng = stream(seed, "points").rng()
    drawn = torch.from_numpy(rng.normal(size=(3, number)))
    return drawn[0], drawn[1], drawn[2]


@PROOFS.measurement()
def canonical_checks(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """Loss against enumeration, gradient at the optimal bias, and the kernels and losses of the global minima."""
    embedding, attention, bias = points(seed)
    names = ("loss", "gradient", "unshifted", "reached", "mirrored", "beyond")
    found: dict[str, list[float]] = {name: [] for name in names}
    for p, q in KERNELS:
        kernel = binary_kernel(p, q)
        pi = torch.tensor([q, p], dtype=torch.float64) / (p + q)
        logit = canonical_slope(embedding, attention).unsqueeze(-1) * torch.arange(2.0, dtype=torch.float64)
        logit = logit + (bias - embedding**2 / 2).unsqueeze(-1)
        law = torch.stack([torch.sigmoid(-logit), torch.sigmoid(logit)], -1).log()
        enumerated = -(pi.unsqueeze(-1) * kernel * law).sum((-1, -2))
        found["loss"].append(float((canonical_loss(embedding, attention, bias, p, q) - enumerated).abs().max()))
        for shift, name in ((0.0, "gradient"), (0.5, "unshifted")):
            best = optimal_bias(embedding, attention, p, q) - shift * embedding**2
            best = best.detach().requires_grad_()
            total = canonical_loss(embedding, attention, best, p, q).sum()
            found[name].append(float(torch.autograd.grad(total, best)[0].abs().max()))
        # A point of slope s* (mirrored: -s*): e = 1 and w |w| = (s - 1) / 2.
        for sign, name in ((1, "reached"), (-1, "mirrored")):
            product = torch.tensor((sign * kernel_slope(p, q) - 1) / 2, dtype=torch.float64)
            one, w = torch.ones((), dtype=torch.float64), product.sign() * product.abs().sqrt()
            b = optimal_bias(one, w, p, q)
            ones = torch.sigmoid(b - 0.5 + torch.stack([torch.zeros_like(b), canonical_slope(one, w)]))
            away = (ones - torch.stack([kernel[0, 1], kernel[1, 1]])).abs().max()
            excess = (canonical_loss(one, w, b, p, q) - entropy_rate(kernel)).abs()
            found[name].append(float(torch.maximum(away, excess)))
        shallow = attention.clamp_min(-(0.5**0.5))
        least = canonical_loss(embedding, shallow, optimal_bias(embedding, shallow, p, q), p, q).min()
        found["beyond"].append(float(stationary_entropy(kernel) - least))
    return {name: np.array(values) for name, values in found.items()}


# Logits here reach 40, so that a loss carries their rounding and that of a logarithm or two.
CANONICAL_ROUNDING = statistics.rounding_bound(60, 60.0)


@PROOFS.claim(
    "induction-heads-markov/L1",
    where="Makkuva et al., canonical parametrisation, the optimal bias",
    kind="identity",
    statement=r"The loss of logit$(x) = s x + b - e^2/2$ is the cross entropy over the four pairs of neighbours, and "
    r"$b^* = \frac{e^2}{2} + \log \frac{p - q + \sqrt{(p - q)^2 + 4 p q\, e^s}}{2 q\, e^s}$ makes its derivative in $b$ vanish.",
    controls=[control("the bias without its shift e^2/2", bias="unshifted")],
)
def optimal_bias_is_stationary(results: Results, bias: str = "gradient") -> Evidence:
    found = results[canonical_checks]
    origin = "rounding of logits up to 40 and their sigmoids"
    return Evidence.weakest(
        Evidence.exact(found["loss"].max(), "<=", CANONICAL_ROUNDING, origin),
        Evidence.exact(found[bias].max(), "<=", CANONICAL_ROUNDING, origin),
    )


@PROOFS.claim(
    "induction-heads-markov/L1-minima",
    where="Makkuva et al., global minima",
    kind="identity",
    statement=r"At slope $s^* = \log \frac{(1-p)(1-q)}{pq}$ and $b = b^*$ the model is the kernel itself, $P(1|0) = p$ and "
    r"$P(1|1) = 1 - q$, with the entropy rate as its loss.",
    controls=[control("the slope of opposite sign", slope="mirrored")],
)
def global_minima(results: Results, slope: str = "reached") -> Evidence:
    return Evidence.exact(
        results[canonical_checks][slope].max(), "<=", CANONICAL_ROUNDING, "rounding of logits and sigmoids"
    )


@PROOFS.claim(
    "induction-heads-markov/L1-sign",
    where="Makkuva et al., global minima; derived",
    kind="identity",
    statement=r"If $p + q > 1$ then no point with $w \ge -1/\sqrt 2$ does better than the unigram, $L \ge H(\pi)$: the loss is "
    r"convex in the slope, whose best value is negative there, and the slope is not.",
    controls=[control("p + q < 1", above=False)],
)
def negative_attention_is_needed(results: Results, above: bool = True) -> Evidence:
    gains = results[canonical_checks]["beyond"][0]
    chosen = [gain for gain, (p, q) in zip(gains, KERNELS, strict=True) if (p + q > 1) == above]
    return Evidence.exact(max(chosen), "<=", CANONICAL_ROUNDING, "rounding of a loss")


# %%
PROOFS.show(optimal_bias_is_stationary)
PROOFS.show(global_minima)
PROOFS.show(negative_attention_is_needed)

# %% [markdown]
# At $e = 0$ the current token is invisible and $b = \log(p/q)$ makes the model the unigram, whose loss is $H(\pi)$. The
# gradient vanishes there. Whether it is a valley or a saddle is decided by one second derivative.


# %%
@PROOFS.measurement()
def trap_checks(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """Gradient, loss and second derivative at e = 0, b = log(p/q) by automatic differentiation."""
    attention = torch.tensor([-1.2, -0.9, -0.3, 0.05, 0.5], dtype=torch.float64)
    slope, level, curvature, flipped = [], [], [], []
    for p, q in KERNELS:
        e = torch.zeros_like(attention).requires_grad_()
        w = attention.clone().requires_grad_()
        b = torch.full_like(attention, np.log(p / q)).requires_grad_()
        loss = canonical_loss(e, w, b, p, q)
        first = torch.autograd.grad(loss.sum(), (e, w, b), create_graph=True)
        second = torch.autograd.grad(first[0].sum(), e)[0]
        slope.append(max(float(part.detach().abs().max()) for part in first))
        level.append(float((loss.detach() - stationary_entropy(binary_kernel(p, q))).abs().max()))
        curvature.append(float((second.detach() - trap_curvature(attention, p, q)).abs().max()))
        flipped.append(float((second.detach() - trap_curvature(-attention, p, q)).abs().max()))
    return {
        "gradient": np.array(slope),
        "level": np.array(level),
        "curvature": np.array(curvature),
        "flipped": np.array(flipped),
    }


@PROOFS.claim(
    "induction-heads-markov/L2",
    where="Makkuva et al., bad local minima",
    kind="identity",
    statement=r"At $e = 0$, $b = \log(p/q)$ the gradient vanishes, $L = H(\pi)$ and $\partial^2 L/\partial e^2 = -2 (1 + 2 w|w|)"
    r"\, \pi_0 \pi_1 (1 - p - q)$: for $w > -1/\sqrt 2$ and $p + q \ne 1$ the unigram is a local minimum exactly if "
    r"$p + q > 1$.",
    controls=[control("the formula with the sign of w turned round", formula="flipped")],
)
def trap_is_a_local_minimum(results: Results, formula: str = "curvature") -> Evidence:
    found = results[trap_checks]
    bound, origin = (statistics.rounding_bound(60, 4.0), "rounding of a loss and its derivatives at logits below 3")
    return Evidence.weakest(
        *(Evidence.exact(found[name].max(), "<=", bound, origin) for name in ("gradient", "level", formula))
    )


# %%
PROOFS.show(trap_is_a_local_minimum)

# %% [markdown]
# Under gradient flow with $b = b^*(e, w)$ both $\dot e$ and $\dot w$ are multiples of the same $\partial L / \partial s$:
# $$ \frac{de}{dw} = \frac{2 e (1 + 2 w |w|)}{4 e^2 |w|} \quad\Longrightarrow\quad
#   \mathcal E = e^2 - w^2 - \mathrm{sign}(w) \log |w| \ \text{ is conserved,} $$
# whatever $p$ and $q$: the paths are known, only the direction along them depends on the chain. Through the point
# $e = 0$, $w = -1/\sqrt 2$, where the trap changes its nature, runs the path that parts the starts that end in the trap from
# those that escape.


# %%
@PROOFS.measurement()
def energy_rates(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """|d energy / dt| over |gradient| along the flow at random points, for the optimal bias and for b = 0."""
    found = {}
    for name in ("optimal", "zero"):
        rates = []
        for p, q in KERNELS:
            e, w, _ = (part.clone() for part in points(seed))
            b = optimal_bias(e, w, p, q) if name == "optimal" else torch.zeros_like(e)
            e, w = e.requires_grad_(), w.requires_grad_()
            flow = torch.autograd.grad(-canonical_loss(e, w, b.detach(), p, q).sum(), (e, w))
            level = torch.autograd.grad(conserved_energy(e, w).sum(), (e, w))
            terms = torch.stack([flow[0] * level[0], flow[1] * level[1]])
            rates.append(float((terms.sum(0).abs() / (1 + terms.abs().sum(0))).max()))
            if name == "optimal":
                closed = canonical_flow(e.detach(), w.detach(), p, q)
                rates.append(max(float((a - b).abs().max()) for a, b in zip(flow, closed, strict=True)))
        found[name] = np.array(max(rates))
    return found


@PROOFS.claim(
    "induction-heads-markov/L3",
    where="Makkuva et al., Local to Global: learning dynamics",
    kind="identity",
    statement=r"Gradient flow in $(e, w)$ with the optimal bias conserves $e^2 - w^2 - \mathrm{sign}(w) \log |w|$, for every "
    r"$p$ and $q$: its rate of change vanishes at random points.",
    controls=[control("the bias is held at 0", bias="zero")],
)
def energy_is_conserved(results: Results, bias: str = "optimal") -> Evidence:
    # Logits reach 40 and the flow is a difference of sigmoids times 4 e^2 w, up to 60.
    bound = statistics.rounding_bound(100, 100.0)
    return Evidence.exact(results[energy_rates][bias][0], "<=", bound, "rounding of logits up to 40 in the flow")


STARTS = ((0.05, 0.02), (0.5, 0.3), (1.0, -1.1))
FATES = ((0.2, 0.3), (0.8, 0.7), (0.5, 0.8))
EDGE_KERNEL = (0.2, 0.3)
EDGE_WEIGHTS = (-0.8, -1.1, -1.5)
EDGE_FACTORS = (0.9, 0.97, 1.03, 1.1)


def flow_to(starts: Tensor, p: float, q: float, time: float) -> tuple[Tensor, float]:
    """Where the flow carries (e, w) [2, starts], and by how much the energy drifts on the way."""

    def rate(_: float, state: np.ndarray) -> np.ndarray:
        e, w = torch.from_numpy(state).view(2, -1)
        return torch.stack(canonical_flow(e, w, p, q)).flatten().numpy()

    found = integrate.solve_ivp(rate, (0, time), starts.flatten().numpy(), method="LSODA", rtol=1e-10, atol=1e-12)
    path = torch.from_numpy(found.y).view(2, -1, found.y.shape[-1])
    energy = conserved_energy(path[0], path[1])
    return path[..., -1], float((energy - energy[:, :1]).abs().max())


def final_loss(state: Tensor, p: float, q: float) -> Tensor:
    """The loss at (e, w) with its optimal bias."""
    return canonical_loss(state[0], state[1], optimal_bias(state[0], state[1], p, q), p, q)


@PROOFS.measurement()
def fates(config: NoConfig, seed: int) -> dict[str, np.ndarray]:
    """Losses after gradient flow [kernel, start] beside h and H(pi), and starts around the edge of the basin."""
    starts = torch.tensor(STARTS, dtype=torch.float64).T
    losses, drifts = [], []
    for p, q in FATES:
        state, drift = flow_to(starts, p, q, 4000.0)
        losses.append(final_loss(state, p, q).numpy())
        drifts.append(drift)
    kernels = torch.stack([binary_kernel(p, q) for p, q in FATES])
    weights = torch.tensor(EDGE_WEIGHTS, dtype=torch.float64)
    squares = basin_edge(weights).unsqueeze(-1) * torch.tensor(EDGE_FACTORS)
    grid = torch.stack([squares.sqrt(), weights.unsqueeze(-1).expand_as(squares)]).flatten(1)
    state, drift = flow_to(grid, *EDGE_KERNEL, 20_000.0)
    return {
        "loss": np.stack(losses),
        "rate": entropy_rate(kernels).numpy(),
        "trap": stationary_entropy(kernels).numpy(),
        "edge": final_loss(state, *EDGE_KERNEL).view(squares.shape).numpy(),
        "drift": np.array(max(*drifts, drift)),
    }


# The slowest rate of decay towards a minimum is |curvature| > 0.02, so that nothing is left of the start at t = 4000;
# what remains is the tolerance of the integration.
ARRIVED = 1e-7


@PROOFS.claim(
    "induction-heads-markov/L4",
    where="Makkuva et al., Local to Global",
    kind="identity",
    statement=r"From small $(e, w)$ gradient flow ends at the entropy rate for $p + q < 1$ and at $H(\pi)$ for $p + q > 1$; from "
    r"$(1, -1.1)$ it ends at the entropy rate for all three chains.",
    controls=[control("the same fate predicted for all chains", by_kernel=False)],
)
def fate_depends_on_the_sign(results: Results, by_kernel: bool = True) -> Evidence:
    found = {name: value[0] for name, value in results[fates].items()}
    trapped = np.array([[p + q > 1 and by_kernel and w > -(0.5**0.5) for _, w in STARTS] for p, q in FATES])
    predicted = np.where(trapped, found["trap"][:, None], found["rate"][:, None])
    error = np.abs(found["loss"] - predicted).max()
    return Evidence.exact(error, "<=", ARRIVED, "tolerance of the integration to t = 4000")


@PROOFS.claim(
    "induction-heads-markov/L4-basin",
    where="Makkuva et al., Local to Global; derived",
    kind="identity",
    statement=r"For $p + q < 1$ and $w < -1/\sqrt 2$ gradient flow is trapped at the unigram exactly if $e^2 < w^2 + "
    r"\mathrm{sign}(w) \log|w| - (1 + \log 2)/2$: starts at 0.90 and 0.97 times the edge stay, at 1.03 and 1.10 they escape.",
    controls=[control("an edge higher by a fifth", scale=1.2)],
)
def basin_has_an_edge(results: Results, scale: float = 1.0) -> Evidence:
    found = {name: value[0] for name, value in results[fates].items()}
    place = FATES.index(EDGE_KERNEL)
    trapped = np.array(EDGE_FACTORS) < scale
    predicted = np.where(trapped, found["trap"][place], found["rate"][place])
    error = np.abs(found["edge"] - predicted).max()
    return Evidence.exact(error, "<=", ARRIVED, "tolerance of the integration to t = 20000")


# %%
PROOFS.show(energy_is_conserved)
PROOFS.show(fate_depends_on_the_sign)
PROOFS.show(basin_has_an_edge)

# %%
PROOFS.show()
