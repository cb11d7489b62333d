"""What training makes of linear attention in both directions and in one."""

PARTS = ("masked_token",)
