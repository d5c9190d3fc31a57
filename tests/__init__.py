"""Tests of Canopy; what several of them share can be imported from here."""
