"""What theory computes exactly, one module a domain: batched, in the precision of the inputs."""
