"""Drills: faults made on purpose in a cluster, and what they cost, measured.

A fault (`Scenario`, one file each) is made while work of fissura's own is under way (`Work`: a search, a
search of classifiers, a training over workers), on a `Ground`: a cluster, and a folder that its nodes share.
The drivers are real `fissura` processes. Their Ray processes carry a mark in their environment, and a drill
ends no process without it, other than a node that was named to it. What came of it is a `Finding`.
"""
