"""This folder is on the path of its tests: several rooms share ``mutations``."""
