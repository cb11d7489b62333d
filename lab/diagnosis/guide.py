"""The page that says how a model is brought to ``lab diagnose``: protocols, adapters with their examples, prompts, candidates.

``python -m lab.diagnosis.guide`` writes it to `PAGE`. Its examples are files that the suite diagnoses, and its tables are
made from the settings themselves.
"""

from __future__ import annotations

import ast
import dataclasses
import textwrap
from collections.abc import Iterator
from pathlib import Path

from lab.diagnosis.adapt import CONVENTIONS, LAYOUTS
from lab.diagnosis.algorithms import Candidate
from lab.diagnosis.setting import Setting
from lab.diagnosis.settings import OF_TASKS, SETTINGS
from lab.files import PROJECT, write
from lab.streams import stream

PAGE = PROJECT / "figures" / "diagnosis.md"
EXAMPLES = PROJECT / "tests" / "examples"
# Example files in the order of the page, and the command line after the name of the model.
ADAPTERS = {
    "interleaved": "--adapter interleaved",
    "paired": "--adapter paired",
    "flagged": "--adapter flagged",
    "positions": "--adapter positions --dtype float64",
    "arrays": "--adapter arrays",
    "arrays_of_jax": "--adapter arrays",
    "causal_lm": "--adapter causal-lm --task markov-chains --length 12",
    "embedded": "--adapter interleaved",
}
PROTOCOLS = """\
| protocol | a predictor is called with | and returns |
| --- | --- | --- |
| regression | `x_context [B, n, d]`, `y_context [B, n]`, `x_query [B, m, d]` | predictions `[B, m]` |
| tokens | `tokens [B, T]` (int64), `prefix_length [B]` | log-probabilities `[B, T, V]`; position t is the law of token t + 1 |
| states | `states [B, T, d]` | the state after the last, `[B, d]` |

* **Numbers.** Inputs are float64 tensors. What cannot take them is asked in float32, and that is said. Answers may be of either.
* **Independent queries.** The m queries of a prompt are asked at once but are m questions: the answer to one may not depend on
  another, nor on another prompt of the batch. The adapters put every query into a sequence of its own.
* **Lengths.** A regression predictor is asked with 0.2, 0.5, 1 and 2 times as many examples as `--context-length`, and twice as
  many under a shift; a token predictor with 1/8, 1/4, 1/2 and all of `--length`. A length that a model cannot take is a finding, and the
  rest goes on.
* **Nothing else.** Calls keep no state, inputs are not changed, nothing is random: a module is put into evaluation mode, which is
  said. A predictor never sees the answer; a token predictor reads no token beyond max(t, prefix).
* **Where.** `--device cuda` moves a module and its inputs there.
"""
NAMED = """\
* **A checkpoint**, written by `lab.models.checkpoint.save_model`.
* **A released network**: a folder of `config.json` and safetensors, of GPT-2, GPT-NeoX, LLaMA, Mistral or Qwen2, as
  `save_pretrained` writes it. It becomes the lab's transformer, whose logits are those of the library to 1e-12 in float64 (where
  that, too, computes norms and angles in float64). Of its many ids some stand for the symbols of the prompts:
  `lab diagnose gpt2/ --adapter causal-lm --symbols 32 33 34 --task markov-chains`.
* **A network that `lab run` trained**: `SHEET:ARM`, such as `causallm-icl:causal`, on the prompts of its sheet. It is the first
  training in the order of the argument that has the arm, and its first seed; `SHEET/PART/MEASUREMENT/TRAINING:ARM@SEED` names
  another, and what was taken is said. Networks lie beside their measurements, those of all seeds in one file of at most a few MB;
  of measurements that came with the lab there are none until `lab run SHEET --again '*'` trains them here.
"""
ATTENTION = """\
Where a model attends, `heads.csv` and `attention.png` say which share of every head's attention goes to the token before, to the
same symbol and what followed it, to the parent in a latent graph, to the goal or to an edge of the node just written, to the label
of an example or to its own input. Beside it stands the share of a head that sees all visible places alike and, where theory has an
explicit construction (the induction head, the copy of the parents, gradient descent by linear attention), the largest share of
one of its heads. The weights of the lab's transformer are noted; of any other module of torch every softmax over a square of tokens
is taken, every `scaled_dot_product_attention` and every `nn.MultiheadAttention`, so that nothing need be changed in the model.
"""
BY_HAND = """\
from lab.diagnosis.comparison import diagnose
from lab.diagnosis.presentation import sentences
from lab.diagnosis.settings import find_setting

def half(x_context, y_context, x_query):
    return (x_query @ (x_context.pinverse() @ y_context[..., None]))[..., 0] / 2

found = diagnose(half, find_setting("linear-regression"), name="half", prompts=64)
print(*sentences(found), sep="\\n")
"""
WITHOUT_FILE = """\
from torch.utils.data import DataLoader
from lab.data.loaders import PromptDataset
from lab.data.sources import Source
from lab.domains.regression.prompts import linear_regression

sizes = {"dimension": 2, "context_length": 8, "query_length": 4, "noise": 0.1}
train = PromptDataset(Source("linear_regression", linear_regression, sizes, part="train"), seed=0)
batch = next(iter(DataLoader(train, batch_size=64)))   # tensors by name, the batch first; without end
"""
OF_ONES_OWN = """\
from lab.contracts import regression_predictor

@regression_predictor(power=0.7)   # its real numbers are fitted around the example, its whole numbers tried
def shrunken(power):
    def predictor(x_context, y_context, x_query):
        weights = x_context.pinverse() @ y_context[..., None]
        return (x_query @ (weights.sign() * weights.abs() ** power))[..., 0]
    return predictor

CANDIDATES = {"half of least squares": lambda x, y, query: (query @ (x.pinverse() @ y[..., None]))[..., 0] / 2}
"""


def page() -> str:
    """The page in Markdown."""
    return "\n".join(
        [
            "# Which algorithm is my model?",
            "",
            "`lab diagnose MODEL [MODEL ...]` asks models fresh prompts and compares their answers with every closed form that can "
            "answer the same prompts. A model is `MODULE:NAME`, `FILE.py:NAME`, or a network of the kinds below; several share a table "
            "and a picture, and each has a folder of its own. "
            "`--adapter` brings models of other conventions, `--candidates FILE.py` adds closed forms of your own.",
            "",
            "## The protocols",
            "",
            PROTOCOLS,
            "## Networks by their files and names",
            "",
            NAMED,
            "## Where the heads look",
            "",
            ATTENTION,
            "## Adapters",
            "",
            f"The adapters are {', '.join(f'`{name}`' for name in CONVENTIONS)}. In Python they are functions of "
            f"`lab.diagnosis.adapt`: `module(model, layout)` with the layouts {', '.join(LAYOUTS)}, `positions`, `causal_lm`, "
            "`arrays`, and `Embedded` for a Hugging Face backbone over embeddings. The examples that import transformers or jax need "
            "`pip install -e '.[diagnose]'`.",
            "",
            *_examples(),
            "## A small GPT, trained and diagnosed",
            "",
            _docstring(EXAMPLES / "small_gpt.py"),
            "",
            "The file is [tests/examples/small_gpt.py](../tests/examples/small_gpt.py).",
            "",
            "## Prompts to train on elsewhere",
            "",
            _docstring(EXAMPLES / "trained_elsewhere.py"),
            "",
            "The file is [tests/examples/trained_elsewhere.py](../tests/examples/trained_elsewhere.py). `lab data` without a name lists "
            "the generators; `--part train` and `--part held-out` share no question. In Python the same prompts come without a file:",
            "",
            "```python",
            f"{WITHOUT_FILE}```",
            "",
            "## From Python",
            "",
            "```python",
            f"{BY_HAND}```",
            "",
            "## Closed forms of your own",
            "",
            "A file for `--candidates`. What it registers is checked first; a multiple of each is a family too.",
            "",
            "```python",
            f"{OF_ONES_OWN}```",
            "",
            "## Prompts",
            "",
            "`--task` takes one of these names, a task of the same prompts, or a file that holds a setting. The sizes are options, as "
            "`lab diagnose MODEL --task NAME --help` shows.",
            "",
            *_prompts(),
            "",
            "## Candidates",
            "",
            "Parameters are fitted on one half of the prompts and judged on the other. Candidates whose distances differ by no more "
            "than their paired intervals are *not told apart*; where the nearest has such company, the pages of the sheets say *not "
            "identified*. Where it lowers the distance by a tenth at least, a multiple of a regression candidate is a candidate as well.",
            "",
            *(f"* **{name}**: {'; '.join(names(setting))}." for name, setting in SETTINGS.items()),
            "",
        ]
    )


def names(setting: Setting) -> list[str]:
    """The candidates of a setting, in the order in which they are tried."""
    prompts = setting.sample(stream(0, "guide"), 8)
    return [_name(candidate) for candidate in setting.candidates(prompts)]


def _name(candidate: Candidate) -> str:
    return getattr(candidate, "name", "preconditioned step, fitted")


def _examples() -> Iterator[str]:
    for name, options in ADAPTERS.items():
        file = EXAMPLES / "adapters" / f"{name}.py"
        about, _, code = file.read_text(encoding="utf-8").partition('"""\n\n')
        yield about.removeprefix('"""').strip()
        yield f"\n```python\n{code.strip()}\n```\n"
        yield f"`lab diagnose {file.relative_to(PROJECT)}:model {options}`\n"


def _docstring(file: Path) -> str:
    return textwrap.dedent(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")


def _prompts() -> Iterator[str]:
    yield "| name | prompts | protocol | sizes | tasks |"
    yield "| --- | --- | --- | --- | --- |"
    for name, setting in SETTINGS.items():
        about = " ".join((type(setting).__doc__ or "").split())
        fields = dataclasses.fields(setting)  # type: ignore[arg-type]
        sizes = ", ".join(f"`{field.name}` {field.default}" for field in fields)
        tasks = ", ".join(task for task, of in OF_TASKS.items() if of == name)
        yield f"| `{name}` | {about} | {setting.kind} | {sizes} | {tasks} |"


if __name__ == "__main__":
    write(PAGE, page().encode())
    print(f"wrote {PAGE}")
