"""Language model engines behind one protocol; each is imported when it is used."""
