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
# # An equation in context
#
# Periodic advection and diffusion, $u_t + \beta u_x = \nu u_{xx}$, turns and shrinks each Fourier mode by
# $g_k = e^{-(\nu k^2 + i\beta k)\Delta}$ a step: the states of one trajectory are $x_{t+1} = W x_t$ with a diagonal W. Least
# squares mode by mode finds each multiplier; but all of them are functions of two numbers, and a fit of those two
# averages the noise of all modes. Angles are only known up to full turns, which limits what can be told apart:
# $|\beta| < \pi/\Delta$.

# %%
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.dynamics import linear_equation as dynamics
from lab.domains.dynamics import mesa_optimization as mesa
from lab.domains.dynamics.linear_equation_prompts import Family, fields, pde_trajectories, propagators
from lab.domains.dynamics.sequences import Phases
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.icl_function_classes._shared import SLUG


@dataclass(frozen=True)
class Config:
    """How much is sampled."""

    draws: int = 16
    """independent draws"""
    trajectories: int = 200
    """equations a draw"""


PROOFS = Task(
    SLUG,
    "garg-2022-function-classes",
    {"smoke": Config(draws=4, trajectories=10), "ci": Config(), "paper": Config(draws=32, trajectories=1_000)},
    root=2026,
)
FAMILY = Family()
POINTS = 256
TIME = 0.5
STEPS = 500
NOISES = (0.01, 0.05, 0.1)
FORECAST = 5
FORECASTS = ("two coefficients", "mode by mode", "persistence", "prior mean")


@PROOFS.measurement(seeds=lambda config: 2)
def finite_differences(config: Config, seed: int) -> LabelledArrays:
    """Largest relative difference of a 4th-order scheme from the propagator over its truncation bound, by the sign that the
    propagator gives the advection."""
    drawn = pde_trajectories(stream(seed, "scheme"), 8, family=FAMILY, trajectories=1, length=2)
    beta, nu = drawn.advection[:, 0, :1], drawn.diffusion[:, 0, :1]
    start = drawn.modes[:, 0, 0]
    field = fields(start, POINTS)
    width, step = 2 * math.pi / POINTS, TIME / STEPS

    def slope(u: Tensor) -> Tensor:
        shifted = {offset: u.roll(-offset, -1) for offset in (-2, -1, 1, 2)}
        first = (8 * (shifted[1] - shifted[-1]) - (shifted[2] - shifted[-2])) / (12 * width)
        second = (16 * (shifted[1] + shifted[-1]) - (shifted[2] + shifted[-2]) - 30 * u) / (12 * width**2)
        return -beta * first + nu * second

    for _ in range(STEPS):
        a = slope(field)
        b = slope(field + step / 2 * a)
        c = slope(field + step / 2 * b)
        d = slope(field + step * c)
        field = field + step / 6 * (a + 2 * b + 2 * c + d)
    # Truncation of the highest mode K: K^5 h^4 / 30 and K^6 h^4 / 90 a unit of time, and |lambda|^5 dt^4 / 120.
    high = float(FAMILY.modes)
    rate = beta.abs() * high + nu * high**2
    bound = TIME * (beta.abs() * high**5 * width**4 / 30 + nu * high**6 * width**4 / 90 + rate**5 * step**4 / 120)
    excesses = []
    for sign in (1.0, -1.0):
        exact = fields(start * propagators(sign * beta[:, 0], nu[:, 0], FAMILY.modes, TIME), POINTS)
        # Modes shrink, so that errors relative to the start bound those a mode makes.
        excesses.append(
            float((((field - exact).norm(dim=-1) / fields(start, POINTS).norm(dim=-1)) / bound[:, 0]).max())
        )
    return {"excess": labelled(excesses, sign=("own", "other"))}


@PROOFS.claim(
    "icl-function-classes/pde.I1",
    where="derived (propagator in Fourier modes)",
    kind="construction",
    statement=r"A fourth-order scheme on 256 points (Runge-Kutta in time) agrees with the exact propagator $e^{-(\nu k^2 + i\beta k)t}$ at "
    r"$t = 1/2$ within 1.1 times its leading truncation error.",
    controls=[control("the sign of the advection exchanged", sign="other")],
)
def propagator_solves_the_equation(results: Results, sign: str = "own") -> Evidence:
    worst = results[finite_differences]["excess"].sel(sign=sign).max().item()
    return Evidence.exact(worst, "<=", 1.1, "leading truncation errors of space and time, a tenth for the next order")


@PROOFS.measurement(seeds=lambda config: config.draws)
def coefficient_fits(config: Config, seed: int) -> LabelledArrays:
    """Error of coefficients without noise; with noise 0.01 (``noisy``); relative error of a
    forecast on a new start, by noise and rule."""
    context = pde_trajectories(stream(seed, "equations"), config.trajectories, family=FAMILY, trajectories=2, length=8)
    shown, new = context.modes[:, 0], context.modes[:, 1, 0]
    beta, nu = context.advection[:, 0, 0], context.diffusion[:, 0, 0]
    truth = propagators(beta, nu, FAMILY.modes, FAMILY.interval) ** FORECAST * new

    def fitted(states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        multipliers = dynamics.least_squares_propagators(states[:, :-1], states[:, 1:])
        weights = dynamics.mode_weights(states[:, :-1])
        return multipliers, *dynamics.fit_coefficients(multipliers, weights, FAMILY.interval)

    _, beta_found, nu_found = fitted(shown)
    noise = stream(seed, "noise").rng().normal(size=(*shown.shape, 2)) / math.sqrt(2)
    waste = torch.view_as_complex(torch.from_numpy(noise))
    forecasts = []
    for size in NOISES:
        multipliers, found_beta, found_nu = fitted(shown + size * waste)
        guesses = (
            propagators(found_beta, found_nu, FAMILY.modes, FAMILY.interval) ** FORECAST,
            multipliers**FORECAST,
            torch.ones_like(multipliers),
            dynamics.prior_mean_propagators(FAMILY).expand_as(multipliers) ** FORECAST,
        )
        forecasts.append([float(dynamics.relative_error(guess * new, truth).mean()) for guess in guesses])
    _, noisy_beta, noisy_nu = fitted(shown + NOISES[0] * waste)
    distances = [
        [float((found_beta - beta).abs().max()), float((found_nu - nu).abs().max())]
        for found_beta, found_nu in ((beta_found, nu_found), (noisy_beta, noisy_nu))
    ]
    return {
        "distance": labelled(distances, states=("exact", "noisy"), coefficient=("advection", "diffusion")),
        "forecast": labelled(forecasts, noise=NOISES, rule=FORECASTS),
    }


@PROOFS.claim(
    "icl-function-classes/pde.I2",
    where="derived (least squares in context)",
    kind="identity",
    statement=r"Eight states of a trajectory without noise tell $\beta$ and $\nu$ to rounding.",
    controls=[control("states with noise of standard deviation 0.01", states="noisy")],
)
def states_tell_the_equation(results: Results, states: str = "exact") -> Evidence:
    worst = results[coefficient_fits]["distance"].sel(states=states).max().item()
    # Products along 8 states, a logarithm and a division by the interval.
    return Evidence.exact(
        worst, "<=", rounding_bound(100 / FAMILY.interval), "rounding of 8 states, divided by the interval"
    )


@PROOFS.claim(
    "icl-function-classes/pde.I2.noise",
    where="derived (least squares in context)",
    kind="ordering",
    statement=r"With observation noise 0.01, 0.05 and 0.1 on every mode the fit of two coefficients forecasts 5 steps of a new state "
    r"better than least squares mode by mode.",
    controls=[
        control("persistence in its place", rule="persistence"),
        control("the prior mean in its place", rule="prior mean"),
    ],
)
def two_coefficients_forecast_better(results: Results, rule: str = "two coefficients") -> Evidence:
    logs = np.log(results[coefficient_fits]["forecast"])
    gap = logs.sel(rule="mode by mode", drop=True) - logs.sel(rule=rule, drop=True)
    return Evidence.all(
        *(
            Evidence.over_seeds(gap.sel(noise=noise, drop=True), ">", 0.0, f"log ratio at noise {noise}; 0 is a tie")
            for noise in NOISES
        )
    )


@PROOFS.cases(claimed={}, beyond={"alias": False})
def aliases(config: Config, *, alias: bool = True) -> LabelledArrays:
    """Largest distance of the advection found from the alias of the true one between -pi/interval and pi/interval, or from the
    true one itself."""
    interval = FAMILY.interval
    beta = torch.arange(-35.0, 36.0, dtype=torch.float64)
    multipliers = propagators(beta, torch.full_like(beta, 0.05), FAMILY.modes, interval)
    advection, _ = dynamics.fit_coefficients(multipliers, torch.ones(len(beta), FAMILY.modes).double(), interval)
    period = 2 * math.pi / interval
    goal = beta - period * (beta / period).round() if alias else beta
    return {"distance": float((advection - goal).abs().max())}


@PROOFS.claim(
    "icl-function-classes/pde.I3",
    where="derived (sampling in time)",
    kind="identity",
    statement=r"Advection is recovered for $|\beta| < \pi/\Delta$; beyond, $\beta$ is taken for its alias $\beta - 2\pi m/\Delta$ in that "
    r"interval ($\Delta = 0.1$, 71 values up to 35).",
    controls=[control("the true value beyond the limit", case="beyond")],
)
def advection_has_aliases(results: Results, case: str = "claimed") -> Evidence:
    worst = results[aliases]["distance"].sel(case=case).item()
    # Angles up to 3 * 35 * 0.1 carry a rounding of that size, divided by the interval.
    return Evidence.exact(worst, "<=", rounding_bound(100, 3 * 35.0), "rounding of the angles over the interval")


MESA_DIMENSION, MESA_LENGTH = 3, 5


def exact_mesa_loss(phases: Phases, step: float) -> float:
    """Population loss of one diagonal layer by exact quadrature, signs as first state."""
    rule = mesa.quadrature("rademacher", MESA_DIMENSION, MESA_LENGTH, phases)
    product, square = mesa.step_statistics(rule.states)
    energy = rule.states[:, 2:].abs().square().sum((-2, -1))
    each = 0.5 * ((step**2 * square - 2 * step * product).sum(-1) + energy)
    return float((rule.weights * each).sum())


@PROOFS.cases(harmonic={}, independent={"phases": "independent"})
def distance_of_losses(config: Config, *, phases: Phases = "harmonic") -> LabelledArrays:
    """Exact loss at the best step of the formula for independent phases, minus what the formula says."""
    law = mesa.moments("rademacher", MESA_DIMENSION)
    step = mesa.optimal_step(law, MESA_LENGTH)
    formula = float(mesa.population_loss(step, law, MESA_DIMENSION, MESA_LENGTH))
    return {"distance": exact_mesa_loss(phases, step) - formula}


@PROOFS.claim(
    "icl-function-classes/pde.N1",
    where="derived, against Zheng et al. 2024, Theorem 4.1",
    paper="zheng-2024-mesa",
    kind="identity",
    statement=r"With phases that are multiples of one angle, as under advection, the population loss of a diagonal one-step layer differs "
    r"from the formula for independent phases by more than 0.01 at its own best step ($d = 3$, $T = 5$, signs as first state).",
    controls=[control("independent phases", case="independent")],
)
def advection_is_no_independent_phases(results: Results, case: str = "harmonic") -> Evidence:
    distance = abs(results[distance_of_losses]["distance"].sel(case=case).item())
    return Evidence.exact(distance, ">", 0.01, "distance of two exact losses; a round number, far above rounding")


# %%
@PROOFS.figure
def equations_in_context(results: Results) -> Sheet:
    """A trajectory in space and time, and forecasts by observation noise."""
    sheet = Sheet(columns=2, width=5.0)
    drawn = pde_trajectories(stream(3, "picture"), 1, family=FAMILY, trajectories=1, length=24)
    beta, nu = float(drawn.advection[0, 0, 0]), float(drawn.diffusion[0, 0, 0])
    field = fields(drawn.modes[0, 0], 24).numpy().T
    picture = sheet.panel("waves move and fade", x="state, 0.1 apart in time", y="place, 24 around the circle")
    picture.heat(field, signed=True, bar="u", of=f"one equation, beta = {beta:.2f}, nu = {nu:.2f}")
    forecast = sheet.panel(
        "two coefficients forecast best",
        x="observation noise on a mode",
        y="relative error of 5 steps",
        scale=("log", "log"),
        xticks={noise: f"{noise:g}" for noise in NOISES},
    )
    for rule in FORECASTS:
        forecast.curve(results[coefficient_fits]["forecast"].sel(rule=rule), over="noise", name=rule)
    return sheet


PROOFS.show(equations_in_context)
