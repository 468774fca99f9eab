"""The site: pages written by hand, and pages generated from classes, notebooks and results."""
