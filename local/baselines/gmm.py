"""A mixture of Gaussians a class over frames: the classical model of who calls, and why."""

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.special import log_softmax
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from local.config import Section
from local.io.errors import CanopyError
from local.io.files import write_npz

_MEMBERS = ("label", "log_prior", "mean", "scale", "weights", "means", "variances", "n_components")


class GmmParams(Section):
    """Parameters of a `GmmClassifier`."""

    n_components: int = Field(default=8, ge=1)
    # Added to variances of features that have been brought to variance 1.
    floor: float = Field(default=1e-3, gt=0.0)
    max_iterations: int = Field(default=100, ge=1)
    # Classes are equally likely beforehand, or as frequent as among the training segments.
    prior: Literal["equal", "frequency"] = "equal"
    # Frames that are fitted of each class, at most; others are drawn by chance.
    max_frames: int = Field(default=50_000, ge=2)


class GmmClassifier:
    """Scores segments by the mean log-likelihood of their frames under each class's mixture.

    The mean rather than the sum: neighbouring frames are alike, and long segments would otherwise
    be certain of anything.
    """

    def __init__(self, params: GmmParams | None = None) -> None:
        self.params = params or GmmParams()
        self.labels: list[str] = []

    def fit(
        self, segments: list[np.ndarray], labels: list[str], rng: np.random.Generator
    ) -> "GmmClassifier":
        """Fit one mixture a class.

        Parameters
        ----------
        segments : (D, T_i) features of each segment.
        labels : the class of each; classes are kept in sorted order.
        """
        if len(segments) != len(labels) or not segments:
            raise ValueError(f"{len(segments)} segments and {len(labels)} labels")
        self.labels = sorted(set(labels))
        self._scaler = StandardScaler().fit(np.concatenate([part.T for part in segments]))
        self._mixtures = []
        for label in self.labels:
            mine = [part.T for part, own in zip(segments, labels, strict=True) if own == label]
            self._mixtures.append(
                self._fit_class(self._scaler.transform(np.concatenate(mine)), rng)
            )
        counts = np.array([labels.count(label) for label in self.labels], dtype=np.float64)
        equal = self.params.prior == "equal"
        self._log_prior = np.log(
            np.full_like(counts, 1 / len(counts)) if equal else counts / sum(counts)
        )
        return self

    def _fit_class(self, frames: np.ndarray, rng: np.random.Generator) -> GaussianMixture:
        if len(frames) > self.params.max_frames:
            frames = rng.choice(frames, self.params.max_frames, replace=False)
        # A mixture of more Gaussians than frames cannot be fitted.
        mixture = GaussianMixture(
            min(self.params.n_components, len(frames)),
            covariance_type="diag",
            reg_covar=self.params.floor,
            max_iter=self.params.max_iterations,
            random_state=int(rng.integers(2**31)),
        )
        if len(frames) == 1:
            frames = np.repeat(frames, 2, axis=0)
        return mixture.fit(frames)

    def scores(self, segments: list[np.ndarray]) -> np.ndarray:
        """(N, C) log posteriors of segments (D, T_i), classes in the order of `labels`."""
        if not self.labels:
            raise ValueError("fit or load comes first")
        mean = np.array(
            [
                [mixture.score(self._scaler.transform(part.T)) for mixture in self._mixtures]
                for part in segments
            ]
        ).reshape(-1, len(self.labels))
        return log_softmax(mean + self._log_prior, axis=1)

    def predict(self, segments: list[np.ndarray]) -> list[str]:
        """The likeliest class of each segment."""
        return [self.labels[index] for index in self.scores(segments).argmax(axis=1)]

    def save(self, path: Path | str) -> None:
        """Write the classifier as an npz of numbers."""
        sizes = [len(mixture.weights_) for mixture in self._mixtures]
        write_npz(
            path,
            label=np.array(self.labels, dtype=np.str_),
            log_prior=self._log_prior,
            mean=self._scaler.mean_,
            scale=self._scaler.scale_,
            weights=np.concatenate([mixture.weights_ for mixture in self._mixtures]),
            means=np.concatenate([mixture.means_ for mixture in self._mixtures]),
            variances=np.concatenate([mixture.covariances_ for mixture in self._mixtures]),
            n_components=np.array(sizes, dtype=np.int64),
        )

    @classmethod
    def load(cls, path: Path | str) -> "GmmClassifier":
        """Read what `save` wrote; for scoring alone."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                members = {name: stored[name] for name in _MEMBERS}
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise CanopyError(f"{path}: not a saved classifier ({error}); fit it again") from None
        found = cls()
        found.labels = members["label"].tolist()
        found._log_prior = members["log_prior"]
        found._scaler = StandardScaler()
        found._scaler.mean_, found._scaler.scale_ = members["mean"], members["scale"]
        found._mixtures = []
        ends = np.cumsum(members["n_components"])
        for start, end in zip(ends - members["n_components"], ends, strict=True):
            mixture = GaussianMixture(int(end - start), covariance_type="diag")
            mixture.weights_ = members["weights"][start:end]
            mixture.means_ = members["means"][start:end]
            mixture.covariances_ = members["variances"][start:end]
            mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
            found._mixtures.append(mixture)
        return found
