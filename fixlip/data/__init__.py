"""Scenes with exactly known truth, and the small demo models trained on them."""
