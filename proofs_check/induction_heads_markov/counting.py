# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # In-context Markov chains: what counting is worth
#
# A Markov chain whose transition matrix is drawn anew for every sequence is the smallest language with
# something to learn *in context*: a predictor must count transitions in the sequence it reads. A chain whose matrix is
# the same for all sequences must be learnt *in the weights* instead. For both, these files check what can be said without
# training a network: here the Bayes predictors and their losses, in `wirings` the attention heads that compute them under a
# causal and under a bidirectional mask, and in `trap` the loss landscape of one attention layer reduced to three numbers.
#
# Notation: $S$ symbols, transition matrix $P$ with rows $\mathrm{Dirichlet}(\alpha, \dots, \alpha)$, stationary law $\mu$,
# counts $C_t(s, b)$ of the transitions $s \to b$ among $x_0, \dots, x_t$. All losses are in nats.
# %%
from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy import integrate, stats

from lab import Evidence, Task, control
from lab.domains.chains.binary_types import binary_excess, binary_types, worth_of_a_stationary_start
from lab.domains.chains.latent_graphs import oracle_risk, risk_after_visits
from lab.domains.chains.markov import (
    adjacent_information,
    entropy,
    entropy_rate,
    log_evidence,
    markov_posterior,
    smoothing_divergence,
    stationary_entropy,
    true_law,
)
from lab.domains.chains.markov_prompts import dirichlet_chains, fixed_chains
from lab.evaluation import cross_entropy, kullback_leibler
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from lab.tasks import NoConfig

PROOFS = Task("induction-heads-markov", paper="induction-heads-markov", root=2026)
ORDERS = range(4)

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
@PROOFS.cases(claimed={}, doubled={"factor": 2.0})
def evidence_products(config: NoConfig, *, factor: float = 1.0) -> LabelledArrays:
    """Largest |sum of log-predictions - log p(x)| over 50 sequences by order, and the total mass.

    The predictions are smoothed with ``factor`` times the concentration of the prior.
    """
    length, states, alpha = 60, 4, 0.5
    differences = []
    for order in ORDERS:
        source = stream(0, "sequences", order)
        sampled = dirichlet_chains(source, 50, states=states, length=length, order=order, concentration=alpha)
        marginal = log_evidence(sampled.tokens, states, order, alpha)
        # A leading symbol stands for "nothing seen yet", which only order 0 has a prediction for.
        logs = markov_posterior(states, order, factor * alpha)(sampled.tokens, torch.zeros(50).long())
        total = -cross_entropy(logs, sampled.tokens).sum(-1) - np.log(states)
        differences.append(float((total - marginal).abs().max()))
    binary = torch.cartesian_prod(*[torch.arange(2)] * 10)
    masses = [float(log_evidence(binary, 2, order, 1.0).exp().sum()) for order in ORDERS]
    return {"difference": labelled(differences, order=ORDERS), "mass": labelled(masses, order=ORDERS)}


@PROOFS.claim(
    "induction-heads-markov/B1",
    where="Edelman et al., the in-context learning task",
    kind="identity",
    statement=r"Along a sequence with uniform first symbols the predictions $(C_t(s, b) + \alpha)/(C_t(s) + S\alpha)$ "
    r"multiply to its probability under the Dirichlet mixture of chains of order $m = 0, \dots, 3$, and these "
    r"probabilities sum to 1 over all binary sequences of length 10.",
    controls=[control("smoothing with twice the concentration of the prior", case="doubled")],
)
def predictions_multiply_to_the_mixture(results: Results, case: str = "claimed") -> Evidence:
    measured = results[evidence_products].sel(case=case)
    return Evidence.all(
        # 60 logarithms of size up to log 1000 are added, and the gamma functions have values up to 60 log 60.
        Evidence.exact(
            float(measured["difference"].max()),
            "<=",
            rounding_bound(4 * 60, 60 * np.log(60)),
            "rounding of 60 logarithms and of gamma functions up to 60 log 60",
        ),
        Evidence.exact(
            float(abs(measured["mass"] - 1).max()),
            "<=",
            rounding_bound(2**10 + 40, 10 * np.log(10)),
            "rounding of a sum of 1024 probabilities",
        ),
    )


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
LENGTHS = range(2, 11)
LONG = (2, 5, 10, 20, 40, 80)


def binary_prior(concentration: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Nodes p of a Gauss rule on [0, 1] and their weights, under Beta(a, a); q has the same."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    # Nodes of the substitution p = sin^2(angle) crowd into the corners, where the stationary law is not smooth.
    angle, weights = np.pi / 4 * (nodes + 1), np.pi / 4 * weights
    probability, weights = np.sin(angle) ** 2, weights * np.sin(2 * angle)
    return probability, weights * stats.beta.pdf(probability, concentration, concentration)


@PROOFS.cases(stationary={}, uniform={"start": "uniform"}, arcsine={"concentration": 0.5})
def start_divergences(config: NoConfig, *, start: str = "stationary", concentration: float = 1.0) -> LabelledArrays:
    """KL of the mixture with this start to the uniform-start one over whole binary sequences, and its upper bound.

    Sequences of equal counts are equally probable, so that the sum runs over types. By symmetry sequences that start with 1
    contribute as much as those that start with 0.
    """
    p, weight = binary_prior(concentration)
    joint = np.outer(weight, weight)
    of_zero = p / (p[:, None] + p)  # q / (p + q), p along the first axis
    first = of_zero if start == "stationary" else np.full_like(joint, 0.5)

    def divergence(length: int) -> float:
        types = binary_types(length)
        on_p = p ** types.leave_zero[:, None] * (1 - p) ** types.stay_zero[:, None]
        on_q = p ** types.leave_one[:, None] * (1 - p) ** types.stay_one[:, None]
        law = ((on_p @ (joint * first)) * on_q).sum(-1)
        other = ((on_p @ (joint * 0.5)) * on_q).sum(-1)
        return float(2 * (np.exp(types.log_number) * law * np.log(law / other)).sum())

    levels = entropy(torch.from_numpy(np.stack([of_zero, 1 - of_zero], -1))).numpy()
    return {
        "divergence": labelled([divergence(length) for length in LENGTHS], length=LENGTHS),
        "long": labelled([divergence(length) for length in LONG], tokens=LONG),
        "bound": float(np.log(2) - (joint * levels).sum()),
    }


@PROOFS.claim(
    "induction-heads-markov/B1-start",
    where="derived; Edelman et al. draw the first symbol from the stationary law",
    kind="identity",
    statement=r"With a stationary first symbol the add-1 predictor is not Bayes, but what it loses over a whole "
    r"sequence of length $2, \dots, 10$ is positive and at most $\log S - E H(\mu_P)$ (two symbols, uniform prior).",
    controls=[control("a uniform first symbol: nothing is lost", case="uniform")],
)
def start_costs_a_constant(results: Results, case: str = "stationary") -> Evidence:
    measured = results[start_divergences].sel(case=case)
    divergence, bound = measured["divergence"], float(measured["bound"])
    return Evidence.all(
        Evidence.exact(float(divergence.max()), "<=", bound, "data processing inequality"),
        # Quadrature of 150 nodes a side; the uniform start shows how close to 0 a divergence of 0 comes out.
        Evidence.exact(float(divergence.min()), ">=", 1e-6, "error of the quadrature, far above rounding"),
    )


# The nodes crowd into the corner where H(mu) is not continuous, and 150 of them reach rounding; this leaves slack.
QUADRATURE = 1e-10


@PROOFS.claim(
    "induction-heads-markov/B1-start-limit",
    where="derived",
    kind="identity",
    statement=r"For two symbols with uniform rows a stationary first symbol is worth $\pi^2/12 - \log 2 = 0.1293$ nats and no less: "
    r"this is $\log 2 - E H(\mu)$, the divergence from the uniform start grows with the length $T = 2, 5, \dots, 80$, and what "
    r"is missing to it at $T = 80$ is less than a tenth and about half of what is missing at $T = 40$.",
    controls=[
        control("rows from Beta(1/2, 1/2)", case="arcsine"),
        control("a uniform first symbol", case="uniform", level=False),
    ],
)
def start_is_worth(results: Results, case: str = "stationary", level: bool = True) -> Evidence:
    measured = results[start_divergences].sel(case=case)
    worth, long = worth_of_a_stationary_start(), measured["long"]
    missing = 1 - long / worth
    halving = float(missing.sel(tokens=40) / missing.sel(tokens=80))
    return Evidence.all(
        *(
            [Evidence.exact(abs(float(measured["bound"]) - worth), "<=", QUADRATURE, "error of the quadrature")]
            if level
            else []
        ),
        Evidence.exact(float(long.diff("tokens").min()), ">", 0, "the longer sequence contains the shorter"),
        Evidence.exact(float(missing.sel(tokens=80)), "<=", 0.1, "a tenth"),
        Evidence.exact(abs(halving - 2), "<=", 0.25, "halved by doubling, up to an eighth"),
    )


# %%
PROOFS.show(start_costs_a_constant)

# %% [markdown]
# The bound is also the limit: a long sequence tells its matrix, so that its posterior law of $x_0$ is $\mu_P$. For two symbols
# with uniform rows the mean is elementary. $u = p/q$ or its inverse is uniform on $[0, 1]$, so that
# $$ E\,H(\mu) = \int_0^1 \Big[\log(1 + u) - \frac{u \log u}{1 + u}\Big] du = (2 \log 2 - 1) + \Big(1 - \frac{\pi^2}{12}\Big), $$
# and a stationary start is worth $\log 2 - E\,H(\mu) = \pi^2/12 - \log 2$, an eighth of a nat a sequence. Sequences of equal
# counts are equally probable, so that lengths up to 80 can be summed exactly, type by type.


# %%
@PROOFS.figure
def worth_of_a_start(results: Results) -> Sheet:
    """What a stationary first symbol is worth over a whole binary sequence of T tokens (rows uniform), summed over all
    sequences, and its limit in closed form."""
    sheet = Sheet(columns=1, width=5.4, height=3.8)
    panel = sheet.panel(
        "an eighth of a nat, however long", x="tokens T", y="divergence [nats]", scale=("log", "linear"), ylim=(0, 0.15)
    )
    long = results[start_divergences]["long"].sel(case="stationary")
    panel.line(long["tokens"].values, long.values, name="stationary against uniform start", of="exact")
    panel.level(worth_of_a_stationary_start(), "π²/12 - log 2")
    return sheet


# %%
PROOFS.show(worth_of_a_start)
PROOFS.show(start_is_worth)

# %% [markdown]
# ## What the strategies are worth
#
# In a long context, who counts transitions pays the *entropy rate* $h = \sum_s \mu_s H(P_s)$, who counts symbols pays
# $H(\mu)$, who does neither pays $\log S$. The two gaps are the information between neighbours, $H(\mu) - h = I(X_t;
# X_{t+1})$, and $\log S - H(\mu)$.


# %%
@PROOFS.cases(claimed={}, mean_row={"marginal": "mean row"})
def entropy_gaps(config: NoConfig, *, marginal: str = "stationary") -> LabelledArrays:
    """|H(mu) - h - I| over 100 random matrices of 2 to 6 symbols each; or with H of the mean row instead of H(mu)."""
    sizes = range(2, 7)
    differences = []
    for states in sizes:
        table = dirichlet_chains(stream(0, "table", states), 100, states=states, length=2).table
        marginal_entropy = stationary_entropy(table) if marginal == "stationary" else entropy(table.mean(1))
        differences.append(float((marginal_entropy - entropy_rate(table) - adjacent_information(table)).abs().max()))
    return {"difference": labelled(differences, states=sizes)}


@PROOFS.claim(
    "induction-heads-markov/B2",
    where="derived",
    kind="identity",
    statement=r"What the unigram predictor loses against the bigram predictor in a long context is the information "
    r"between neighbours: $H(\mu) - h = I(X_t; X_{t+1})$.",
    controls=[control("entropy of the average row instead of the stationary law", case="mean_row")],
)
def gap_is_information(results: Results, case: str = "claimed") -> Evidence:
    difference = results[entropy_gaps]["difference"].sel(case=case).max()
    # mu stands in 36 products; its own relative error is that of the 3 * 6^2 operations of the elimination.
    bound = rounding_bound(3 * 36 + 2 * 36, 2 * np.log(6))
    return Evidence.exact(float(difference), "<=", bound, "rounding for 6 symbols")


CHAINS = {f"p = {p}, q = {q}": (p, q) for p, q in ((0.5, 0.8), (0.2, 0.3), (0.1, 0.1))}
READ = (256, 512, 1024)


@PROOFS.cases(enumerated={})
def binary_rates(config: NoConfig) -> LabelledArrays:
    """t times the excess loss of the smoothed bigram predictor after t tokens of a binary chain, summed over all sequences."""
    rates = [[read * binary_excess(p, q, read) for read in READ] for p, q in CHAINS.values()]
    return {"rate": labelled(rates, chain=list(CHAINS), read=READ)}


@PROOFS.measurement(seeds=lambda config: 32)
def long_contexts(config: NoConfig, seed: int) -> LabelledArrays:
    """2 t times the excess loss at t = 1024 .. 2047 of smoothed bigrams; excess of unigrams in gaps H(mu) - h.

    Of matrices of three symbols with rows Dirichlet(4), none of which is nearly never visited.
    """
    states, length = 3, 2048
    source = stream(seed, "long")
    matrix = dirichlet_chains(source, 1, states=states, length=2, concentration=4.0).table[0]
    sampled = fixed_chains(source.child("walk"), 150, transition=matrix, length=length)
    times = torch.arange(length // 2, length)
    counts = torch.nn.functional.one_hot(sampled.tokens[:, :-1] * states + sampled.tokens[:, 1:], states**2)
    counts = torch.cat([torch.zeros_like(counts[:, :1]), counts.cumsum(1)], 1)[:, times]
    rows = counts.unflatten(-1, (states, states)).double()
    at = sampled.tokens[:, times]
    row = rows.gather(2, at[..., None, None].expand(-1, -1, 1, states))[:, :, 0] + 1
    smooth = row / row.sum(-1, keepdim=True)
    truth = true_law(sampled.table, sampled.tokens, 1)[:, times]
    excess = kullback_leibler(truth.log(), smooth.log()).mean(0)
    unigram_counts = torch.nn.functional.one_hot(sampled.tokens, states).cumsum(1)[:, times].double() + 1
    unigram = -(truth * (unigram_counts / unigram_counts.sum(-1, keepdim=True)).log()).sum(-1)
    gap = adjacent_information(matrix)
    levels = {"H(mu)": stationary_entropy(matrix), "entropy rate": entropy_rate(matrix)}
    return {
        "bigram": float((2 * times * excess).mean()),
        "unigram": labelled([float((unigram.mean() - level) / gap) for level in levels.values()], above=list(levels)),
    }


@PROOFS.claim(
    "induction-heads-markov/B2-limit",
    where="derived",
    kind="rate",
    statement=r"On a fixed chain the smoothed bigram predictor approaches the entropy rate like $S (S - 1) / (2 t)$: summed over all "
    r"sequences of three binary chains, $t$ times its excess is 1 within 2 % at $t = 1024$, and what is left is halved as $t$ "
    r"doubles; for $S = 3$ (32 random matrices, $1024 \le t < 2048$) $2 t$ times it is 6 within a twelfth. The unigram "
    r"predictor approaches $H(\mu)$.",
    controls=[
        control("the unigram predictor is held against the entropy rate", above="entropy rate"),
        control("one free probability more, (S (S - 1) + 1) / (2 t)", more=1),
        control("one free probability less, (S (S - 1) - 1) / (2 t)", more=-1),
    ],
)
def long_context_limits(results: Results, above: str = "H(mu)", more: int = 0) -> Evidence:
    rate = results[binary_rates]["rate"].sel(case="enumerated") / ((2 + more) / 2)
    sampled = results[long_contexts]
    # With the term of order 1/t^2 taken out, rates at t and 2 t agree with the law to order 1/t^2.
    extrapolated = 2 * rate.sel(read=1024) - rate.sel(read=512)
    return Evidence.all(
        Evidence.exact(float(abs(rate.sel(read=1024) - 1).max()), "<=", 0.02, "binary chains, t = 1024: 2 %"),
        Evidence.exact(
            float(abs(extrapolated - 1).max()), "<=", 0.002, "binary chains, 512 and 1024: a second order of (30/t)^2"
        ),
        Evidence.equals(
            sampled["bigram"], 6 + more, 0.5 / (6 + more), "three symbols: half-way to a free probability more or less"
        ),
        # H(mu) is approached at order (S - 1) / (2 t) < 0.001, a few hundredths of a typical gap H(mu) - h here.
        Evidence.over_seeds(abs(sampled["unigram"].sel(above=above)), "<=", 0.2, "a fifth of the gap"),
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
@PROOFS.measurement(seeds=lambda config: 48, root=2031)
def sampled_divergences(config: NoConfig, seed: int) -> LabelledArrays:
    """The mean over 5,000 multinomial draws of KL(p || smoothed) for one law of 5 symbols, n = 20, alpha = 1/2."""
    law = one_law()
    counts = stream(seed, "counts").rng().multinomial(20, law, 5_000)
    return {"divergence": labelled((law * np.log(law / ((counts + 0.5) / 22.5))).sum(-1).mean())}


def one_law() -> np.ndarray:
    """The law of 5 symbols."""
    return stream(0, "law").rng().dirichlet(np.ones(5))


@PROOFS.claim(
    "induction-heads-markov/B3",
    where="derived",
    kind="identity",
    statement=r"After $n$ draws from $p$ add-$\alpha$ smoothing costs $\sum_b p_b \log p_b - \sum_b p_b E \log \frac{c_b + "
    r"\alpha}{n + S\alpha}$, $c_b \sim \mathrm{Bin}(n, p_b)$: the mean of 48 times 5,000 simulated divergences agrees.",
    controls=[control("its leading term (S - 1) / (2 n)", formula="leading")],
)
def smoothing_costs(results: Results, formula: str = "exact") -> Evidence:
    law = float(smoothing_divergence(one_law(), 20, 0.5)) if formula == "exact" else 4 / 40
    return Evidence.equals(results[sampled_divergences]["divergence"], law, 0.02, "the formula")


@PROOFS.cases(claimed={}, doubled={"factor": 2.0})
def averaged_divergences(config: NoConfig, *, factor: float = 1.0) -> LabelledArrays:
    """|mean over the prior of the divergence - (risk_n - L*)|, by quadrature over each coordinate's Beta law.

    The smoothing has ``factor`` times the concentration of the prior.
    """

    def average(states: int, prior: float, visits: int) -> float:
        smoothing = factor * prior
        counts = np.arange(visits + 1)
        logs = np.log((counts + smoothing) / (visits + states * smoothing))

        def integrand(p: float) -> float:
            inner = np.log(p) - stats.binom.pmf(counts, visits, p) @ logs
            return float(p * inner * stats.beta.pdf(p, prior, (states - 1) * prior))

        # By exchangeability every coordinate contributes the same.
        return states * float(integrate.quad(integrand, 0, 1, epsabs=1e-12, epsrel=1e-12, limit=400)[0])

    sizes, priors, numbers = (2, 4), (0.5, 1.0), (1, 12)
    differences = [
        abs(average(s, a, n) - (risk_after_visits(n, s, a) - oracle_risk(s, a)))
        for s, a, n in itertools.product(sizes, priors, numbers)
    ]
    return {"difference": labelled(np.reshape(differences, (2, 2, 2)), states=sizes, prior=priors, visits=numbers)}


@PROOFS.claim(
    "induction-heads-markov/B4",
    where="derived",
    kind="identity",
    statement=r"Averaged over rows from $\mathrm{Dirichlet}(\alpha)$ the cost of add-$\alpha$ smoothing after $n$ visits is "
    r"$\mathrm{risk}_n - L_*$, the Bayes risk minus the loss of who knows the row.",
    controls=[control("smoothing with twice the concentration of the prior", case="doubled")],
)
def averaged_cost_is_bayes_risk(results: Results, case: str = "claimed") -> Evidence:
    difference = results[averaged_divergences]["difference"].sel(case=case).max()
    return Evidence.exact(
        float(difference), "<=", 1e-10, "tolerance 1e-12 asked of the quadrature, times 4 symbols and slack 25"
    )


# %%
PROOFS.show(smoothing_costs)
PROOFS.show(averaged_cost_is_bayes_risk)

# %%
PROOFS.show()
