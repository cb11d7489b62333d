"""Trees that predict the next token: what one can say at once, and what small ones carry out token by token."""

# In the order of the argument.
PARTS = ("at_once", "token_by_token")
