"""Compresses random forests: fewer features, fewer leaves, fewer bits, nodes without pointers."""

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Integer

from fissura.classical.quantisation import Bits, Stored, stored
from fissura.core.errors import DataError
from fissura.core.seeding import derive

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import Pipeline

    from fissura.classical.compression import Compression


@dataclass(frozen=True)
class Trees:
    """All trees of a forest, one after the other; `left`, `right` and `feature` are -1 at a leaf.

    `roots` are the first nodes of the trees; `probability` is a node's share of each class; `risk` is its
    Gini impurity times the share of the training samples that reach it.
    """

    roots: Int[np.ndarray, " trees"]
    left: Int[np.ndarray, " nodes"]
    right: Int[np.ndarray, " nodes"]
    feature: Int[np.ndarray, " nodes"]
    threshold: Float[np.ndarray, " nodes"]
    probability: Float[np.ndarray, "nodes classes"]
    risk: Float[np.ndarray, " nodes"]


def compress_forest(
    pipeline: "Pipeline",
    *,
    features: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, " n"],
    compression: "Compression",
    seed: int,
) -> tuple[str, Stored]:
    """The kind of Compact and its arrays. Pruning keeps the features with the largest impurity importance,
    grows the forest again on them, and cuts its weakest branches.

    Raises:
        DataError: the forest splits nowhere.
    """
    forest = pipeline["classifier"]
    columns = np.arange(features.shape[1])
    if compression.method == "prune" and compression.components < features.shape[1]:
        from sklearn.base import clone

        strongest = np.argsort(-forest.feature_importances_, kind="stable")[: compression.components]
        columns = np.sort(strongest)
        forest = clone(forest).set_params(random_state=derive(seed, "compression") % 2**32)
        forest.fit(pipeline[:-1].transform(features)[:, columns], labels)
    trees = read(forest)
    inner = trees.left >= 0
    if compression.method == "prune":
        inner = pruned(trees, inner, share=compression.share)
    if not inner.any():
        raise DataError("forest: no tree splits the samples; allow more depth, or take a smaller `share`")
    order = level_order(trees, inner)
    inside = order[inner[order]]
    used, feature = np.unique(trees.feature[inside], return_inverse=True)
    threshold, arrays = _coordinates(
        pipeline,
        columns[used],
        feature=feature,
        threshold=trees.threshold[inside],
        features=features,
        bits=compression.bits,
    )
    codes = np.full(len(order), -1, np.min_scalar_type(-len(used)))
    codes[inner[order]] = feature
    leaves = trees.probability[order[~inner[order]], :-1]
    stored_leaves = leaves.astype(np.float32)
    if compression.bits == 8:
        stored_leaves = np.rint(leaves * 255).astype(np.uint8)
    return "forest", arrays | {"feature": codes, "threshold": threshold, "leaves": stored_leaves}


def read(forest: "RandomForestClassifier") -> Trees:
    """The trees of a fitted forest."""
    trees = [estimator.tree_ for estimator in forest.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(tree, name) for tree in trees])

    def shifted(name: str) -> np.ndarray:
        children = [getattr(tree, name) for tree in trees]
        pairs = zip(children, roots, strict=True)
        return np.concatenate([np.where(child < 0, -1, child + root) for child, root in pairs])

    left = shifted("children_left")
    weights = [tree.weighted_n_node_samples / tree.weighted_n_node_samples[0] for tree in trees]
    return Trees(
        roots=roots,
        left=left,
        right=shifted("children_right"),
        feature=np.where(left < 0, -1, joined("feature")),
        threshold=joined("threshold"),
        probability=joined("value")[:, 0],
        risk=joined("impurity") * np.concatenate(weights),
    )


def pruned(trees: Trees, inner: Bool[np.ndarray, " nodes"], *, share: float) -> Bool[np.ndarray, " nodes"]:
    """Which nodes still split once at least a `share` of all leaves is gone, weakest branches first.

    A branch's strength is the risk that it removes over the leaves that it costs (minimal cost-complexity;
    Breiman et al., 1984). All trees are pruned together, so that a tree of weak branches loses more.
    """
    parent = np.full(len(inner), -1)
    inside = np.flatnonzero(inner)
    parent[trees.left[inside]] = inside
    parent[trees.right[inside]] = inside
    kept = inner.copy()
    leaves, risk = np.ones(len(inner), np.int64), trees.risk.copy()
    # scikit-learn gives children larger numbers than their parents
    for node in inside[::-1]:
        leaves[node] = leaves[trees.left[node]] + leaves[trees.right[node]]
        risk[node] = risk[trees.left[node]] + risk[trees.right[node]]

    def strength(node: int) -> float:
        return float((trees.risk[node] - risk[node]) / (leaves[node] - 1))

    total = int(leaves[trees.roots].sum())
    surplus = round(share * total)
    queue = [(strength(node), node) for node in map(int, inside)]
    heapq.heapify(queue)
    while surplus > 0 and queue:
        value, node = heapq.heappop(queue)
        if not kept[node] or value != strength(node):
            continue  # already cut, or queued again
        removed, gain = int(leaves[node]) - 1, float(trees.risk[node] - risk[node])
        below = [int(node)]
        while below:
            child = below.pop()
            if kept[child]:
                kept[child] = False
                below += [int(trees.left[child]), int(trees.right[child])]
        surplus -= removed
        above = node
        while above >= 0:
            leaves[above] -= removed
            risk[above] += gain
            if kept[above]:
                heapq.heappush(queue, (strength(above), above))
            above = int(parent[above])
    return kept


def level_order(trees: Trees, inner: Bool[np.ndarray, " nodes"]) -> Int[np.ndarray, " kept"]:
    """The nodes level by level, all trees together, the children in the order of their parents."""
    levels = [trees.roots]
    while len(level := levels[-1]):
        parents = level[inner[level]]
        levels.append(np.stack([trees.left[parents], trees.right[parents]], axis=1).ravel())
    return np.concatenate(levels)


def _coordinates(
    pipeline: "Pipeline",
    used: Int[np.ndarray, " c"],
    *,
    feature: Int[np.ndarray, " inner"],
    threshold: Float[np.ndarray, " inner"],
    features: Float[np.ndarray, "n d"],
    bits: Bits,
) -> tuple[np.ndarray, Stored]:
    """The thresholds as stored, and the arrays that map features to their coordinates."""
    whitening, scale = pipeline.named_steps.get("whitening"), pipeline["scaling"].scale_
    if whitening is None:
        columns = {"columns": used.astype(np.int32)}
        if bits == 32:
            return _unscaled(threshold, np.float32(scale)), columns
        mean = features[:, used].mean(axis=0, dtype=np.float64)
        centred = threshold * scale - mean[feature]
        whole, step = _whole(centred, feature, len(used))
        return whole, columns | {"mean": mean.astype(np.float32), "scale": (1 / step).astype(np.float32)}
    components = whitening.components_.astype(np.float64)
    unit = components[:, used] / whitening.gains_[:, None]
    matrix = components.T @ unit / scale
    mean_array = {"mean": whitening.mean_.astype(np.float32)}
    if bits == 32:
        arrays, _ = stored("matrix", matrix, bits=32)
        return _not_above(threshold), arrays | mean_array
    # the matrix absorbs the thresholds' steps: in its coordinates they are whole numbers
    whole, step = _whole(threshold, feature, len(used))
    arrays, _ = stored("matrix", matrix / step, bits=8)
    return whole, arrays | mean_array


def _whole(
    threshold: Float[np.ndarray, " inner"], feature: Int[np.ndarray, " inner"], count: int
) -> tuple[np.ndarray, Float[np.ndarray, " c"]]:
    """Thresholds as int8, in steps of their coordinate."""
    step = np.zeros(count)
    np.maximum.at(step, feature, np.abs(threshold) / 127)
    step[step == 0] = 1
    return np.rint(threshold / step[feature]).clip(-127, 127).astype(np.int8), step


def _not_above(threshold: Float[np.ndarray, " inner"]) -> Float32[np.ndarray, " inner"]:
    """The largest float32 up to each threshold: no float32 lies between, so that the decisions are equal."""
    single = threshold.astype(np.float32)
    return np.where(single > threshold, np.nextafter(single, np.float32(-np.inf)), single)


def _unscaled(threshold: Float[np.ndarray, " inner"], scale: np.float32) -> Float32[np.ndarray, " inner"]:
    """The largest float32 x with `x / scale <= threshold` in float32: equal decisions on unscaled
    features."""
    single = (threshold * scale).astype(np.float32)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    while (above := single / scale > threshold).any():
        single[above] = np.nextafter(single[above], down)
    while (room := np.nextafter(single, up) / scale <= threshold).any():
        single[room] = np.nextafter(single[room], up)
    return single
