"""Trials that Ray Tune gives up although they have not failed: a real search, whose trial's process dies."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SPACE = """
recipe: small_unet
objective: {metric: val/f1, mode: max}
scheduler: {kind: asha, grace: 1, reduction: 2}
space:
  phases.train.optimizer.lr: {float: [1.0e-4, 1.0e-1], log: true}
"""
# trial 0 ends its own process in epoch 3; Tune then hears of the dead actor a second time, as it now and then
# does where a node is lost: in one of three searches of tests/cluster
DRIVER = """
import json, os, signal, sys
from pathlib import Path
from fissura.distributed.environment import prepare_environment
prepare_environment(None)
import optuna
from ray import tune
from ray.exceptions import ActorUnavailableError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from fissura.distributed.cluster import connected
from fissura.distributed.search.schedulers import scheduler_for
from fissura.distributed.search.search import run_trials
from fissura.distributed.search.searcher import StudySearch
from fissura.spaces.load import load_text
from fissura.studies.study import Study

folder, space = Path(sys.argv[1]), load_text(sys.argv[2], source="test.yaml")
once = TuneController._process_trial_failure

def twice(self, trial, exception):
    once(self, trial, exception)
    if trial.status == Trial.PENDING:
        once(self, trial, ActorUnavailableError("The actor is temporarily unavailable: RpcError", None))

TuneController._process_trial_failure = twice

class Steps(tune.Trainable):
    def setup(self, config):
        self.reset_config(config)

    def reset_config(self, config):
        self.number, self.path = config["number"], folder / f"epochs-{config['number']}"
        return True

    def step(self):
        told = self.path.read_text().split() if self.path.exists() else []
        epoch = len(told) + 1
        if (self.number, epoch) == (0, 3) and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.path.write_text(" ".join([*told, str(epoch)]))
        return {"epoch": epoch, "kept_epoch": epoch, "val/f1": epoch / 10, "wait_share": 0.0,
                "finished": epoch == 4, "interrupted": False, "failure": "", "done": epoch == 4}

    def save_checkpoint(self, checkpoint_dir):
        pass

    def load_checkpoint(self, checkpoint):
        pass

study = Study(folder / "study")
(study.path / "runs").mkdir(parents=True)
search = StudySearch(space, storage=study.storage(), study_name="study", seed=0, content="c" * 16,
                     context={"study": str(study.path)}, stop_requested=lambda: False)
with connected(None, cpus=2):
    run_trials(tune.with_resources(Steps, {"cpu": 1}), search, study, todo=3, concurrent=2, total=3,
               say=print, scheduler=scheduler_for(space, epochs=4, earlier=[]))
print(json.dumps([[trial.number, trial.state.name] for trial in search.study.trials]))
"""


@pytest.mark.slow
def test_a_trial_whose_dead_actor_tune_hears_of_twice_goes_on_under_its_own_number(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), SPACE],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    states = dict(json.loads(ended.stdout.splitlines()[-1]))
    assert (tmp_path / "died").exists()
    assert states.keys() == {0, 1, 2}, "as many trials as were asked for, and none in its place"
    assert set(states.values()) <= {"COMPLETE", "PRUNED"}
    assert (tmp_path / "epochs-0").read_text().split() == ["1", "2", "3", "4"]
    log = (tmp_path / "study" / "search.log").read_text()
    assert log.count("trial 0 begins as run ") == 2
    assert re.search(r"trial 0 waits to go on: .* temporarily unavailable", log)
