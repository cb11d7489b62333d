"""Problems with their derivations: answered at once, or step by step."""
