"""Settings that Ray reads from the environment while it is being imported, so they must be made before."""

import os
import secrets
import sys


def prepare_environment(address: str | None) -> None:
    """Makes the settings for a cluster at `address`, or for a Ray of this process's own where it is None.

    A Ray of one's own listens on all of the machine's addresses, so it stands behind a token that only this
    process and its children know. For a cluster the reader's own RAY_AUTH_* settings hold.
    """
    # threads that wait by spinning make a shared machine several times slower; read when PyTorch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # stopping is ours: see jobs/stopping.py
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # a failed or interrupted trial ends without its metric
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    # the study's log and its trials hold the reason of each failure
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"
    # Tune's own state is never restored, and a snapshot of it walks all trials
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1e9"
    # the old output engine is the one that "silent" silences
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
    if address is None and "ray" not in sys.modules:
        # ten looks a second at two or three replicas take a fortieth of a small machine
        os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.3")
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
