"""What can be said of derivations without training: generators, translations and networks with explicit weights."""

# In the order of the argument.
PARTS = ("derivations", "formulas", "words", "multiplication", "subsequence")
