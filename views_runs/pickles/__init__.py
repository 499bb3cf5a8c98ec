"""Write, read and analyse pickles; nothing here uses SQL."""
