"""The demo world: drawn scenes whose captions are exactly true or false, and its small models."""
