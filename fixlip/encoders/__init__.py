"""Image and text towers as sides of a game: the only folder that imports open_clip and timm."""

from fixlip.encoders.encoder import Encoder, load
from fixlip.encoders.sides import ImageSide, TextSide

__all__ = ["Encoder", "ImageSide", "TextSide", "load"]
