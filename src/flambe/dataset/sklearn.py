"""The data sets that come with scikit-learn."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from flambe.compile.state import random_state
from flambe.dataset.dataset import BaseDataset
from flambe.dataset.table import Table


class SklearnDataset(BaseDataset):
    """A small data set that scikit-learn ships: nothing is downloaded.

    The splits have the same share of each class. Rows are features (float32) and a class (int64).

    Parameters
    ----------
    name
        ``digits`` (1797 images of 8 × 8), ``iris``, ``wine`` or ``breast_cancer``.
    val_ratio, test_ratio
        The share of validation and of test data.
    seed
        Of the split.
    scale
        Whether features are shifted and scaled to mean 0 and standard deviation 1, measured on the
        training data.

    Attributes
    ----------
    n_features, n_classes
        Their numbers: ``!@ dataset.n_features``.
    class_names
        The names of the classes.
    """

    def __init__(
        self,
        name: Literal["digits", "iris", "wine", "breast_cancer"] = "digits",
        val_ratio: float = 0.2,
        test_ratio: float = 0.2,
        seed: int = 0,
        scale: bool = True,
    ) -> None:
        with random_state.undrawn():  # it draws when it is imported
            from sklearn import datasets
            from sklearn.model_selection import train_test_split

        if not (val_ratio > 0 and test_ratio > 0 and val_ratio + test_ratio < 1):
            raise ValueError("val_ratio and test_ratio are above 0, and their sum is below 1")
        self.name = name
        loaded = getattr(datasets, f"load_{name}")()
        features = np.asarray(loaded.data, dtype=np.float64)
        labels = np.asarray(loaded.target, dtype=np.int64)
        self.n_features = int(features.shape[1])
        self.class_names = [str(class_name) for class_name in loaded.target_names]
        self.n_classes = len(self.class_names)

        rest, test = train_test_split(
            np.arange(len(labels)), test_size=test_ratio, random_state=seed, stratify=labels
        )
        train, val = train_test_split(
            rest,
            test_size=val_ratio / (1 - test_ratio),
            random_state=seed,
            stratify=labels[rest],
        )
        if scale:
            spread = features[train].std(axis=0)
            features = (features - features[train].mean(axis=0)) / np.where(spread == 0, 1, spread)
        self.train, self.val, self.test = (
            Table(
                {
                    "features": torch.from_numpy(features[rows].astype(np.float32)),
                    "label": torch.from_numpy(labels[rows]),
                }
            )
            for rows in (train, val, test)
        )
