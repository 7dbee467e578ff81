"""Whether a map points at the finding: two numbers, each beside what a blind map scores.

Shape legend: R side of the map.
"""

import numpy as np
from numpy.typing import NDArray


def pointing_game(map_RR: NDArray, mask_RR: NDArray[np.bool_]) -> float:
    """1 if the largest value lies inside the box, else 0 (Zhang et al. 2018, "Top-down neural attention", section 4.2).

    Without the tolerance of 15 pixels of that paper, whose images are larger. Of equal largest values the expected
    value of a draw among them, so that a constant map scores the box's share of the area.
    """
    return float(mask_RR[map_RR == map_RR.max()].mean())


def energy_inside(map_RR: NDArray, mask_RR: NDArray[np.bool_]) -> float:
    """The share of the map's sum that lies inside the box (Wang et al. 2020, "Score-CAM", section 4.3).

    A map of zeros (Grad-CAM can give one) says nothing: it scores the box's share of the area, as any constant map.
    """
    total = map_RR.sum(dtype=np.float64)
    return float(map_RR[mask_RR].sum(dtype=np.float64) / total) if total > 0 else float(mask_RR.mean())
