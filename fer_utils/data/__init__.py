"""From a copy of FER2013 to arrays, and which copy it is."""
