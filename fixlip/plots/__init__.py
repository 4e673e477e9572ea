"""Pictures of explanations, one panel per function."""

from fixlip.extras import need

need("a picture of an explanation", "plots")

from fixlip.plots.drawn import as_json, numbers
from fixlip.plots.names import name_style, shown
from fixlip.plots.overview import overview
from fixlip.plots.panels import COLOURS, bars, colourbar, graph, heatmap, patches, picture
from fixlip.plots.saving import describe, save

__all__ = ["COLOURS", "as_json", "bars", "colourbar", "describe", "graph", "heatmap"]
__all__ += ["name_style", "numbers", "overview", "patches", "picture", "save", "shown"]
