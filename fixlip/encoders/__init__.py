"""Image and text towers as sides of a game: the only folder that imports open_clip and timm."""

from fixlip.extras import need

need("loading a model", "open_clip")

from fixlip.encoders.encoder import Encoder
from fixlip.encoders.loading import load
from fixlip.encoders.sides import ImageSide, TextSide
from fixlip.encoders.spans import patches_in, players_at

__all__ = ["Encoder", "ImageSide", "TextSide", "load", "patches_in", "players_at"]
