"""Drills: inject faults into a cluster and measure their cost.

A drill injects a fault (`Scenario`, one file each) during work of its own (`DrillWork`: a search, a search of
classifiers, a training over workers), on a `Ground`: a cluster, and a folder that its nodes share. The
drivers are real `fissura` processes. Their Ray processes carry a mark in their environment; a drill ends only
marked processes and the nodes named to it. The result is a `FaultCost`.
"""
