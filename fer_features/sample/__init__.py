"""Drawn faces in FER2013's form: a stand-in for photographs, for the demo and the tests.

``python -m fer_features.sample FACES.csv`` writes them as a CSV file. Nothing in them comes from
a photograph.
"""
