"""What a study's database keeps of a trial beside its parameters and values: the names of its attributes."""

RUN = "run"
"""The digest that names the trial's run."""

PAPER = "paper"
"""Whether it is the paper's own configuration."""

SWEPT = "swept"
"""The path of the parameter that it varies, in a one-at-a-time sweep."""

REASON = "reason"
"""Why it failed, in one line."""

SKIPPED = "skipped"
"""Why it was never begun."""

TOOK = "seconds"
"""For how many seconds its last driver saw it run."""

SECONDS = "epoch_seconds"
"""The seconds of each of its epochs, beside what Ray and the database take."""

CURVE = "learning_curve"
"""`values` of the first objective after each of `epochs`, and the `kept` one."""
