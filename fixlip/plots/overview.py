"""One picture of an explanation: the image, the words that it interacts with most, the pairs."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fixlip.explanation import Explanation
from fixlip.plots.panels import bars, colourbar, graph, heatmap, picture

WORDS = 5  # beside the image, in two rows of three


def overview(explanation: Explanation) -> Figure:
    """Draw the image, maps of the words that interact with it most, the strongest pairs and terms.

    Parameters
    ----------
    explanation : Explanation
        With a patch grid on its image side.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown and not saved.
    """
    figure = plt.figure(figsize=(13, 9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    axes = above.subplots(2, 3).ravel()
    picture(explanation, ax=axes[0]).set_title("the image as the model sees it")
    strongest = np.argsort(-np.abs(explanation.cross).sum(0), kind="stable")[:WORDS]
    words = np.sort(strongest) + explanation.n_image  # in the order of the caption
    limit = float(np.abs(explanation.cross).max(initial=0)) or 1.0
    for ax in axes[1 + len(words) :]:
        ax.set_axis_off()
    for word, ax in zip(words, axes[1:], strict=False):
        heatmap(explanation, int(word), ax=ax, limit=limit)
    colourbar(limit, axes)
    left, right = below.subplots(1, 2, width_ratios=(1.4, 1))
    graph(explanation, ax=left)
    bars(explanation, ax=right)
    return figure
