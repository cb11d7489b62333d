"""What can be proved of addition by columns without training: the table of windows, carries, other ways to write."""

# In the order of the argument.
PARTS = ("tables", "carries", "without_the_carry")
