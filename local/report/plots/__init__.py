"""Pictures for papers: sizes in centimetres, letters in points, PNG and SVG.

`recording_figure` draws a spectrogram with events and scores over time, `curves` draws precision
against recall and recall against false alarms; `page` sets the look and writes files. Kinds and
systems are told apart by line, marker and fill as well as by colour, so a grey print is readable.
"""
