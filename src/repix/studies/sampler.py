"""How a search chooses the values of a trial: by Optuna's TPE, with randomness that is the trial's own.

TPE as it comes draws from one stream for all trials of a process, begun by the clock: the same search made twice tries
other values. Here a trial draws from a stream that the study's name and the number of trials before it begin, so that
it has the same values after whatever interruption and on whichever machine, as long as the same ones were finished.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from repix.files import digest_text


def was_killed(trial: FrozenTrial) -> bool:
    """Return whether a trial did not fail by itself: it is tried again under another number."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


class Sampler(optuna.samplers.BaseSampler):
    """TPE (Bergstra et al., 2011) with a stream of random numbers for each trial.

    A trial is chosen, trained and ended by one thread.
    """

    def __init__(self) -> None:
        self._own = threading.local()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Begin the stream of a trial; one that was killed, and is tried again under another number, counts once."""
        begun = study.get_trials(deepcopy=False)
        before = sum(one.number < trial.number and not was_killed(one) for one in begun)
        seed = int(digest_text(f"{study.study_name} {before}")[:8], 16)
        self._own.tpe = optuna.samplers.TPESampler(constant_liar=True, seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the settings that are chosen together: none, in TPE as it is used here."""
        found: dict[str, BaseDistribution] = self._own.tpe.infer_relative_search_space(study, trial)
        return found

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return values for the settings that are chosen together."""
        found: dict[str, Any] = self._own.tpe.sample_relative(study, trial, search_space)
        return found

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value for one setting."""
        return self._own.tpe.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Do nothing: TPE learns from the database."""
