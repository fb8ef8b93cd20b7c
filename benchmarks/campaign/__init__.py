"""Every row that the papers compare, at one equal budget of machine minutes, on one's own data.

    python -m benchmarks.campaign --data cfd:data/cfd --minutes 6 --seeds 1

Each row is trained from random weights for the same minutes, its epochs counted by a measurement of a few
steps; its threshold comes from validation images; it is scored on the test images of every data set named,
its own and the others, and ranked. What is trained stays trained: run it again to go on, also with more rows,
data sets or seeds. Ray is not needed. The minutes are those of the machine while nothing else runs on it:
`--plan` measures all rows at once, so that other work may go on beside their trainings.

Rows that segment take the data sets with masks, classifiers those with labels.

OUT/plan.json       the epochs that fit the minutes, for each row and data set, and the seconds of one
OUT/runs/           the runs, as `fissura train` leaves them
OUT/campaign.md     leaderboard, cross-data matrix, and whether each paper's main claim holds here
"""
