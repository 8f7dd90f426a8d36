"""Path of the checkout under test."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
