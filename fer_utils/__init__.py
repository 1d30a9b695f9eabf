"""Helpers shared by the notebooks that reproduce a comparison of four CNNs on FER2013."""
