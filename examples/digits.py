"""The experiment of digits.yaml from Python, and what it found.

python examples/digits.py
"""

from pathlib import Path

import flambe
from flambe.compile import Grid

# As   flambe digits.yaml train.max_steps=4 'train.optimizer.lr=!g [0.003, 0.01]' ...
experiment = flambe.load_config(
    Path(__file__).with_name("digits.yaml"),
    overrides={
        "name": "digits-from-python",
        "train.max_steps": 4,
        "train.optimizer.lr": Grid((0.003, 0.01)),
    },
)
run = experiment.run(force=True)

# A table of pandas: which size is the best, whatever the learning rate?
table = run.stage("train").variants
print(table.groupby("output_size").metric.max())

# The best training as it ended: its model is a torch module like any other.
best = run.best("train")
model = best.load().model
print(f"{best.choices}: {best.metric:.3f}, {sum(p.numel() for p in model.parameters())} parameters")
