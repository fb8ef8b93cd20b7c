"""A study in memory, backed by its database: reads need no query, a new trial is one transaction.

Optuna writes a trial in a dozen transactions, each of which waits for the disk, and reads the database again
for each parameter that it suggests. One driver owns a study (`Study.claimed`), so nobody else changes it.
"""

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class StudyMemory(InMemoryStorage):
    """The study `name` of `database`, as it lies there or about to begin.

    A trial that the sampler is asked for is written whole by `write`, or when it ends, or with its first
    value; whatever changes a trial that is written goes to the database at once.
    """

    def __init__(self, database: BaseStorage, *, name: str) -> None:
        super().__init__()
        self._database = database
        self._in_database: dict[int, int] = {}
        self._unwritten: list[int] = []
        for study in database.get_all_studies():
            if study.study_name == name:
                self._load(study._study_id, name)

    def write(self) -> None:
        """Writes the trials that are not in the database yet, in the order of their numbers."""
        while self._unwritten:
            trial = self.get_trial(self._unwritten[0])
            database_id = self._database.create_new_trial(self._study, template_trial=trial)
            self._in_database[self._unwritten.pop(0)] = database_id

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Begins the study in both places."""
        study_id = super().create_new_study(directions, study_name)
        self._study = self._database.create_new_study(directions, study_name)
        return study_id

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Sets it in both places."""
        super().set_study_user_attr(study_id, key, value)
        self._database.set_study_user_attr(self._study, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Sets it in both places."""
        super().set_study_system_attr(study_id, key, value)
        self._database.set_study_system_attr(self._study, key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Begins a trial in memory; one with a template is known whole, and is written."""
        self.write()
        trial_id = super().create_new_trial(study_id, template_trial)
        self._unwritten.append(trial_id)
        if template_trial is not None:
            self.write()
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Sets it in memory, and in the database where the trial is written."""
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        if trial_id in self._in_database:
            self._database.set_trial_param(
                self._in_database[trial_id], param_name, param_value_internal, distribution
            )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Sets it in memory, and in the database where the trial is written."""
        super().set_trial_user_attr(trial_id, key, value)
        if trial_id in self._in_database:
            self._database.set_trial_user_attr(self._in_database[trial_id], key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Sets it in memory, and in the database where the trial is written."""
        super().set_trial_system_attr(trial_id, key, value)
        if trial_id in self._in_database:
            self._database.set_trial_system_attr(self._in_database[trial_id], key, value)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Sets it in both places."""
        self.write()
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._database.set_trial_intermediate_value(self._in_database[trial_id], step, intermediate_value)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Sets it in both places."""
        changed = super().set_trial_state_values(trial_id, state, values)
        if trial_id in self._in_database:
            return changed and self._database.set_trial_state_values(
                self._in_database[trial_id], state, values
            )
        self.write()
        return changed

    def _load(self, study: int, name: str) -> None:
        self._study = study
        study_id = super().create_new_study(self._database.get_study_directions(study), name)
        for key, value in self._database.get_study_user_attrs(study).items():
            super().set_study_user_attr(study_id, key, value)
        for key, value in self._database.get_study_system_attrs(study).items():
            super().set_study_system_attr(study_id, key, value)
        for trial in self._database.get_all_trials(study, deepcopy=False):
            trial_id = super().create_new_trial(study_id, trial)
            self._in_database[trial_id] = trial._trial_id
