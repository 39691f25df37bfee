"""The examples of docs/experiments.md on several seeds, as they are printed there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_text
from flambe.experiment.counting import count_variants
from flambe.experiment.spec import ExperimentSpec

TEXT = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
SECTION = TEXT.split("## Several seeds\n")[1].split("\n## ")[0]
EXAMPLES = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize(
    ("example", "seeds"), list(zip(EXAMPLES, [(0, 1, 2, 3, 4), (0, 1, 7)], strict=True))
)
def test_the_seeds_of_an_example(example: str, seeds: tuple[int, ...]) -> None:
    text = "!Experiment\nname: x\npipeline:\n  a: !torch.Linear\n    in_features: !g [1, 2, 3]\n"
    document = read_text(f"{text}    out_features: 1\n  b: !torch.Sequential [!@ a]\n{example}")
    check(document)
    document.raise_problems()
    spec = ExperimentSpec.from_keywords(document.root.kwargs)
    assert spec.seeds == seeds
    counts = count_variants(spec)
    assert [counts[stage].count for stage in "ab"] == [3 * len(seeds)] * 2
