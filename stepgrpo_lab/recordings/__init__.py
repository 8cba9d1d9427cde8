"""Recorded groups of trajectories: every analysis, figure and widget of the package works on them without a model."""

from stepgrpo_lab.recordings._files import load_recordings, load_survey, write_recordings
from stepgrpo_lab.recordings.schema import RecordedGroup, RecordedMember

__all__ = ["RecordedGroup", "RecordedMember", "load_recordings", "load_survey", "write_recordings"]
