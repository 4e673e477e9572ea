"""The demo world: drawn scenes whose captions are exactly true or false, and its small models."""

from fixlip.demo.concepts import CONCEPTS
from fixlip.demo.sampling import sample_scene
from fixlip.demo.world import Scene, Thing

__all__ = ["CONCEPTS", "Scene", "Thing", "sample_scene"]
