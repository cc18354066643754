"""The table of faults."""

import crowds
import disks
import kills
import mlflow_troubles as mlflow
import oddities
from fault import Fault

AGAIN, BEHIND, GOES_ON = (
    "again (?:at once|in)",
    "lacks some runs; nothing is lost",
    "Interrupted. The same command goes on",
)
ENDS = ("NonFiniteMetric", "returned None", "SystemExit: 3", "died without a word")
IS_BEHIND, ANOTHER, FULL = "warning: MLflow is behind", "starting another", "waiting for space"

FAULTS = [
    Fault("SIGKILL of the driver", 20, kills.kill_drivers),
    Fault("SIGKILL of the driver in its report", 1, kills.kill_in_report),
    Fault("Ctrl-C, and SIGTERM", 2, kills.interrupt, (GOES_ON,)),
    Fault("SIGKILL of a trial", 5, kills.kill_trials, (AGAIN,)),
    Fault("SIGKILL of a trial with a checkpoint half up", 2, kills.kill_half_up, (AGAIN,)),
    Fault("SIGKILL of one of two ranks", 5, kills.kill_ranks, (AGAIN,)),
    Fault("SIGKILL of the raylet", 5, kills.kill_raylets, ("Ray on this machine is gone",)),
    Fault("SIGKILL of the feeder", 5, kills.kill_feeders, (ANOTHER,)),
    Fault("SIGKILL of the feeder as it makes its database", 2, kills.kill_feeder_in_making, (ANOTHER,)),
    Fault("a job's driver killed, and submitted again", 1, crowds.kill_job),
    Fault("two nodes of three lost", 1, crowds.lose_nodes, (AGAIN,)),
    Fault("MLflow away for a part", 1, mlflow.in_mode("refuse"), (IS_BEHIND,)),
    Fault("MLflow away to the end", 1, mlflow.in_mode("refuse", to_the_end=True), (BEHIND,)),
    Fault("MLflow hangs for a part", 1, mlflow.in_mode("hang"), (IS_BEHIND,)),
    Fault("MLflow says 503 after the commit", 1, mlflow.in_mode("commit and 503"), (IS_BEHIND,)),
    Fault("MLflow's database locked", 1, mlflow.locked_database),
    Fault("MLflow's database garbled", 1, mlflow.garbled_database, ("cannot be read", BEHIND)),
    Fault("a full or read-only disk, no HOME", 3, disks.refused, ("No space left", "Read-only", "Not a directory")),
    Fault("disk full for a moment", 1, disks.full_for_a_moment, (FULL,)),
    Fault("disk full in mid study", 1, disks.full_in_mid_study, (FULL,)),
    Fault("NaN, None, sys.exit, os._exit", 4, oddities.misbehave, ENDS),
    Fault("a trial hangs", 1, oddities.hang, ("longer than the time limit",)),
    Fault("Ray's memory monitor", 1, oddities.eat_memory, (AGAIN,)),
    Fault("the clock set back by a day", 2, oddities.set_clock_back),
]
