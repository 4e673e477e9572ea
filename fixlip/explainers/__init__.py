"""Other explainers of dual encoders, one file per method, on the sides that `fixlip.load` makes."""
