"""Synthetic cracks of exactly known centreline, width and topology: the known-answer set of tests and demos.

`cracks` grows the geometry, `textures` paints the surfaces, `nuisances` degrades them, `scene` draws one
image and `store` writes a set.
"""

from fissura.data.synthetic.cracks import Crack, Stroke, Topology
from fissura.data.synthetic.scene import SurfaceMix, SyntheticImage, SyntheticSpec, draw
from fissura.data.synthetic.store import write

__all__ = ["Crack", "Stroke", "SurfaceMix", "SyntheticImage", "SyntheticSpec", "Topology", "draw", "write"]
