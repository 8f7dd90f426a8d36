"""A stand-in for Ant Media Server: not Ant Media's software, see README."""
