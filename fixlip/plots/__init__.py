"""Pictures of explanations, one panel per function."""

from fixlip.plots.panels import bars, colourbar, graph, heatmap, patches, picture, save

__all__ = ["bars", "colourbar", "graph", "heatmap", "patches", "picture", "save"]
