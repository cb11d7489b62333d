"""Addition digit by digit, in columns."""
