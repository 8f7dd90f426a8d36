"""A stand-in for Ant Media Server. It is not Ant Media's software: see README."""
